"""The two halves of a search: ranges merge to the answer of the whole, several targets share a pass."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rcccodec.channel import channel_target, cost_target, decide, merge, nominate, select, select_channel
from rcccodec.channel.nominees import Nominees
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import standard_normals

BETA, SEED, NUM_CANDIDATES = 2.0, 3, 2000
VARIANCES = 4 * np.exp(-0.5 * np.arange(10))
PROPOSAL = GaussianProposal(VARIANCES, BETA)


class Rounded(GaussianProposal):
    """Many candidates coincide exactly."""

    def candidates(self, z: Tensor) -> Tensor:
        return super().candidates(z).round()


class Twice:
    """Two draws end to end, as a joint proposal makes them; the first ones are PROPOSAL's own."""

    dim, latent_dim = 2 * PROPOSAL.dim, 2 * PROPOSAL.latent_dim

    def candidates(self, z: Tensor) -> Tensor:
        return PROPOSAL.candidates(z.reshape(-1, PROPOSAL.latent_dim)).reshape(len(z), -1)


def blocks(count: int, dim: int = 10) -> Tensor:
    scale = torch.tensor(np.tile(VARIANCES, dim // 10)).sqrt().float()
    return standard_normals(5, torch.arange(count), dim, 40) * scale


def targets(proposal: object = PROPOSAL, count: int = 30) -> list:
    common = {"beta": BETA, "seed": SEED, "num_candidates": NUM_CANDIDATES}
    x = blocks(count)
    return [
        channel_target(x, proposal, coder="pfr", **common),  # type: ignore[arg-type]
        channel_target(x, proposal, coder="orc", **common),  # type: ignore[arg-type]
        cost_target(x, proposal, beta=BETA, cost_nats=lambda a, b: np.log1p(np.arange(a, b))),
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, NUM_CANDIDATES), max_size=4),
    st.integers(1, 700),
    st.randoms(use_true_random=False),
    st.sampled_from([PROPOSAL, Rounded(VARIANCES, BETA)]),
)
def test_ranges_in_any_order_merge_to_the_answer_of_the_whole(cuts, chunk, order, proposal):
    ends = [0, *sorted(cuts), NUM_CANDIDATES]
    ranges = list(pairwise(ends))
    order.shuffle(ranges)
    parts = [nominate(targets(proposal), a, b, seed=SEED, chunk=chunk) for a, b in ranges]
    whole = select(targets(proposal), NUM_CANDIDATES, SEED)
    for target, expected, *found in zip(targets(proposal), whole, *parts, strict=True):
        got = decide(merge(found), target, seed=SEED)
        assert torch.equal(got.indices, expected.indices)
        assert torch.equal(got.certified, expected.certified)
        assert torch.allclose(got.scores, expected.scores, rtol=3e-6)


def test_a_range_left_out_is_missed():
    """The control of the test above: the halves do not find what is not among their candidates."""
    target = targets()[0]
    (whole,) = select([target], NUM_CANDIDATES, SEED)
    (half,) = nominate([target], 0, NUM_CANDIDATES // 2, seed=SEED)
    got = decide(half, target, seed=SEED)
    early = whole.indices < NUM_CANDIDATES // 2
    assert 0 < int(early.sum()) < len(early)
    assert torch.equal(got.indices[early], whole.indices[early])
    assert not bool((got.indices == whole.indices)[~early].any())


def test_every_score_is_within_its_error_of_the_exact_one_and_below_the_ceiling():
    target = targets(count=100)[0]
    (found,) = nominate([target], 0, NUM_CANDIDATES, seed=SEED, chunk=300)
    y = PROPOSAL.candidates(standard_normals(SEED, found.columns, PROPOSAL.latent_dim, 0).double())
    exact = BETA * (target.x.double()[found.rows] - y).square().sum(1) + found.offsets
    assert bool(((exact - found.scores).abs() <= found.errors).all())
    assert bool((found.scores != exact).any())
    best = torch.full((100,), torch.inf, dtype=torch.float64).scatter_reduce(0, found.rows, exact, "amin")
    assert bool((best <= found.ceilings).all())


def test_a_close_second_is_decided_exactly():
    """A score that is wrong by as much as it admits does not change the choice; the control admits none."""
    target = targets(count=60)[0]
    (found,) = nominate([target], 0, NUM_CANDIDATES, seed=SEED)
    expected = decide(found, target, seed=SEED)
    every = torch.arange(60)
    rival = torch.where(expected.indices == 0, 1, 0)
    false = Nominees(
        every, rival, expected.scores - 1.0, torch.full((60,), 500.0).double(),
        target.offsets(0, 2)[rival], found.ceilings, found.last,
    )  # fmt: skip
    honest = merge([found, false])
    assert len(honest.rows) == len(found.rows) + 60
    assert torch.equal(decide(honest, target, seed=SEED).indices, expected.indices)
    sure = replace(false, errors=torch.zeros(60).double(), ceilings=expected.scores - 1.0)
    assert torch.equal(decide(merge([found, sure]), target, seed=SEED).indices, rival)


def test_targets_that_share_a_pass_choose_as_they_do_alone():
    joint, one = blocks(12, dim=20), blocks(7)
    common = {"beta": BETA, "seed": SEED, "num_candidates": NUM_CANDIDATES, "coder": "pfr"}
    both = [channel_target(joint, Twice(), **common), channel_target(one, PROPOSAL, **common)]  # type: ignore[arg-type]
    shared, own = select(both, NUM_CANDIDATES, SEED)
    assert torch.equal(shared.indices, select_channel(joint, Twice(), **common).indices)  # type: ignore[arg-type]
    assert torch.equal(own.indices, select_channel(one, PROPOSAL, **common).indices)  # type: ignore[arg-type]
    second_half = channel_target(joint[:, 10:], PROPOSAL, **common)  # type: ignore[arg-type]
    assert not torch.equal(select([second_half], NUM_CANDIDATES, SEED)[0].indices, shared.indices)


def test_nominees_of_different_blocks_are_not_merged():
    with pytest.raises(ValueError, match="same blocks"):
        merge([Nominees.none(3), Nominees.none(4)])
    with pytest.raises(ValueError, match="same blocks"):
        merge([])
