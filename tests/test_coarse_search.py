"""A search that makes and scores most candidates coarsely, or not at all, chooses as brute force does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rcccodec.bundle import load_model
from rcccodec.channel import channel_target, coarse, cost_target, decide, merge, nominate, running, search
from rcccodec.channel.coarse import CoarseError, calibrate
from rcccodec.channel.screen import WIDTHS, Screen, at_most, leading_axes, products_at
from rcccodec.channel.target import Target, offsets_of
from rcccodec.proposals.joint import JointProposal
from rcccodec.randomness import standard_normals

NUM_CANDIDATES, SEED = 4500, 3
SCORES = 1e-5


class Patches:
    """A nonlinear map of few latents to many pixels, whose blocks have few directions that matter."""

    dim, latent_dim = 256, 12

    def __init__(self) -> None:
        smooth = torch.exp(-0.15 * torch.arange(self.dim))
        self.matrix = standard_normals(99, torch.arange(self.latent_dim), self.dim, 7) * smooth

    def candidates(self, z: Tensor) -> Tensor:
        return torch.tanh(0.7 * z @ self.matrix.to(z.dtype)) + 0.5


PROPOSAL = Patches()


def blocks(count: int = 300, noise: float = 0.05) -> Tensor:
    z = standard_normals(8, torch.arange(count), PROPOSAL.latent_dim, 50)
    return PROPOSAL.candidates(z) + noise * standard_normals(9, torch.arange(count), PROPOSAL.dim, 51)


def target(kind: str, beta: float, seed: int, x: Tensor, proposal: object = PROPOSAL) -> Target:
    if kind == "cost":
        cost = lambda a, b: 0.7 * np.log1p(np.arange(a, b))  # noqa: E731
        return cost_target(x, proposal, beta=beta, cost_nats=cost)  # type: ignore[arg-type]
    return channel_target(
        x, proposal, beta=beta, coder=kind, seed=seed, num_candidates=NUM_CANDIDATES  # type: ignore[arg-type]
    )  # fmt: skip


def brute_distances(one: Target, seed: int = SEED, num_candidates: int = NUM_CANDIDATES) -> Tensor:
    """Every block to every candidate in float64, (blocks, candidates)."""
    z = standard_normals(seed, torch.arange(num_candidates), one.proposal.latent_dim, 0)
    y = one.proposal.candidates(z.double())
    x = one.x.double()
    return x.square().sum(1)[:, None] - 2 * x @ y.T + y.square().sum(1)


def brute_force(one: Target, seed: int, num_candidates: int = NUM_CANDIDATES) -> tuple[Tensor, Tensor]:
    """Indices and scores, everything in float64."""
    distances = brute_distances(one, seed, num_candidates)
    low = (one.beta * distances + offsets_of(one, 0, num_candidates)).min(dim=1)
    return low.indices, low.values


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["pfr", "orc", "cost"])
@pytest.mark.parametrize(("beta", "seed"), [(0.2, 1), (3.0, 2), (20.0, 3)])
def test_the_choice_is_that_of_brute_force(precision, kind: str, beta: float, seed: int):
    one = target(kind, beta, seed, blocks())
    (found,) = nominate([one], 0, NUM_CANDIDATES, seed=seed, precision=precision, chunk=1024)
    got = decide(found, one, seed=seed)
    indices, scores = brute_force(one, seed)
    assert torch.equal(got.indices, indices)
    assert torch.allclose(got.scores, scores, rtol=SCORES, atol=SCORES)
    assert len(found.rows) < 2 * len(one.x)


@pytest.mark.parametrize("kind", ["pfr", "cost"])
def test_models_of_pictures_choose_as_brute_force_does(kind: str, tiny: Path):
    stage = load_model("grey").rungs[0].stages[0]
    one, joint = stage.proposal(), JointProposal(stage.proposal(), 2)
    x = torch.rand(160, one.dim, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    both = [
        target(kind, stage.beta, SEED, x.reshape(-1, joint.dim), joint),
        target(kind, stage.beta, SEED, x, one),
    ]
    found = nominate(both, 0, NUM_CANDIDATES, seed=SEED, precision=torch.bfloat16)
    for each, nominees in zip(both, found, strict=True):
        assert torch.equal(decide(nominees, each, seed=SEED).indices, brute_force(each, SEED)[0])


def test_without_an_allowance_for_its_error_the_coarse_pass_misses_some(monkeypatch: pytest.MonkeyPatch):
    """The control of the tests above."""
    monkeypatch.setattr(search, "calibrate", lambda *_: CoarseError(1e-12))
    monkeypatch.setattr(running, "SUSPECT", torch.inf)
    missed = 0
    for seed in (1, 2, 3):
        one = target("pfr", 20.0, seed, blocks())
        (found,) = nominate([one], 0, NUM_CANDIDATES, seed=seed, precision=torch.bfloat16)
        kept = set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
        missed += len(set(enumerate(brute_force(one, seed)[0].tolist())) - kept)
    assert missed


def test_a_calibration_that_was_too_kind_is_noticed(monkeypatch: pytest.MonkeyPatch):
    tried: list[torch.dtype] = []
    make = search.chunk_candidates

    def spy(*args: object, **options: object) -> Tensor:
        tried.append(options.get("dtype", torch.float32))  # type: ignore[arg-type]
        return make(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "calibrate", lambda *_: CoarseError(1e-5))
    monkeypatch.setattr(search, "chunk_candidates", spy)
    one = target("pfr", 20.0, 2, blocks())
    (found,) = nominate([one], 0, NUM_CANDIDATES, seed=2, precision=torch.bfloat16)
    assert torch.bfloat16 in tried
    assert tried[-1] == torch.float32
    assert torch.equal(decide(found, one, seed=2).indices, brute_force(one, 2)[0])


def test_the_answer_does_not_depend_on_chunk_range_or_precision():
    one = target("pfr", 3.0, SEED, blocks())
    expected = brute_force(one, SEED)[0]
    for chunk, precision in ((4500, torch.bfloat16), (700, torch.float32), (2048, torch.bfloat16)):
        (found,) = nominate([one], 0, NUM_CANDIDATES, seed=SEED, chunk=chunk, precision=precision)
        assert torch.equal(decide(found, one, seed=SEED).indices, expected)
    halves = [
        nominate([one], a, b, seed=SEED, precision=torch.bfloat16)[0] for a, b in ((0, 2300), (2300, 4500))
    ]
    assert torch.equal(decide(merge(halves), one, seed=SEED).indices, expected)


def test_measured_errors_hold_for_candidates_that_were_not_measured():
    x, z = blocks(), standard_normals(SEED, torch.arange(2000), PROPOSAL.latent_dim, 0)
    fine, near = PROPOSAL.candidates(z), PROPOSAL.candidates(z.bfloat16()).float()
    error = calibrate(x, near[:256], fine[:256])
    far, close = (torch.cdist(x.double(), y.double()).square() for y in (near, fine))
    assert bool(((far - close).abs() <= error.of_distance(torch.minimum(far, close))).all())
    kind = replace(error, reach=error.reach / (4 * coarse.SAFETY))
    assert not bool(((far - close).abs() <= kind.of_distance(torch.minimum(far, close))).all())


def test_most_pairs_are_never_scored_and_the_bound_is_one():
    x, y = (
        part - 0.5 for part in (blocks(), PROPOSAL.candidates(standard_normals(1, torch.arange(900), 12, 0)))
    )
    screen = Screen(x)
    exact = torch.cdist(x.double(), y.double()).square()
    for width in WIDTHS:
        a, b = (screen.phi(part, part.square().sum(1), width) for part in (x, y))
        bound = torch.cdist(a.double(), b.double()).square()
        assert bool((bound <= exact + 1e-5 * x.square().sum(1).double()[:, None]).all())
    assert bool((bound > 0.9 * exact).double().mean() > 0.9)
    one = running.Running(target("pfr", 20.0, SEED, blocks()), torch.device("cpu"), lambda found, _: found)
    for start in range(0, NUM_CANDIDATES, 500):
        one.look(start, PROPOSAL.candidates(standard_normals(SEED, torch.arange(start, start + 500), 12, 0)))
    assert one.scored < 0.25 * one.seen


def test_axes_are_orthonormal_and_those_of_the_data():
    x = blocks() - blocks().mean(0)
    axes = leading_axes(x, 20)
    assert torch.allclose(axes.T @ axes, torch.eye(20), atol=1e-6)
    kept = (x @ axes).square().sum() / x.square().sum()
    best = torch.linalg.svdvals(x)[:20].square().sum() / x.square().sum()
    assert kept > 0.995 * best
    flat = leading_axes(torch.zeros(5, 30), 20)  # no direction matters, and they are still a basis
    assert torch.allclose(flat.T @ flat, torch.eye(20), atol=1e-6)


@pytest.mark.parametrize("n", [64, 61])
def test_sparse_steps_equal_dense_ones(n: int):
    scores = standard_normals(1, torch.arange(30), n, 0)
    ceilings = standard_normals(2, torch.arange(30), 1, 0)[:, 0] - 1
    rows, columns = at_most(scores, ceilings)
    expected = (scores <= ceilings[:, None]).nonzero(as_tuple=True)
    assert torch.equal(rows, expected[0])
    assert torch.equal(columns, expected[1])
    x, y = standard_normals(3, torch.arange(30), 40, 0), standard_normals(4, torch.arange(n), 40, 0)
    torch.testing.assert_close(products_at(x, y, rows, columns), (x @ y.T)[rows, columns])


def test_blocks_that_are_certain_are_done_and_stay_chosen():
    """At a low slope later weights alone exceed the best scores: the search ends before the candidates do."""
    one = target("pfr", 0.02, SEED, blocks())
    told: list[tuple[int, int]] = []
    (found,) = nominate(
        [one], 0, 50 * NUM_CANDIDATES, seed=SEED, chunk=512, progress=lambda *at: told.append(at)
    )
    assert told[-1] == (50 * NUM_CANDIDATES, 50 * NUM_CANDIDATES)
    assert len(told) < 20
    got = decide(found, one, seed=SEED)
    assert bool(got.certified.all())
    assert torch.equal(got.indices, brute_force(one, SEED)[0])
    cost = target("cost", 0.02, SEED, blocks())
    told.clear()
    nominate([cost], 0, NUM_CANDIDATES, seed=SEED, chunk=500, progress=lambda *at: told.append(at))
    assert len(told) == 9  # costs may fall again, so nothing ends that search


def test_identical_candidates_leave_few_nominees_and_the_first_wins():
    class Same(Patches):
        def candidates(self, z: Tensor) -> Tensor:
            return super().candidates(z * 0)

    one = cost_target(blocks(), Same(), beta=1.0, cost_nats=lambda a, b: np.zeros(b - a))
    for precision in (torch.float32, torch.bfloat16):
        (found,) = nominate([one], 0, NUM_CANDIDATES, seed=SEED, precision=precision)
        assert len(found.rows) <= 40 * len(one.x)
        assert decide(found, one, seed=SEED).indices.tolist() == [0] * len(one.x)


@pytest.mark.parametrize("chunk", [512, 4096])
@pytest.mark.parametrize("count", [1, 3])
def test_nominees_of_a_coarse_pass_that_gave_up_are_not_cut_by_their_place(count: int, chunk: int):
    """Costs undo the distances but for a little, and all of the second half ties within the coarse error."""
    x = blocks(1).repeat(count, 1)
    level = target("cost", 1.0, SEED, x)
    far = brute_distances(level)[0]
    generator = torch.Generator().manual_seed(SEED)
    cost = 200 - far + 0.001 + 0.002 * torch.rand(NUM_CANDIDATES, generator=generator).double()
    early = torch.randperm(2048, generator=generator)[:600]
    best = int(early.max())
    cost[best] = 200 - far[best]
    shut = torch.ones(NUM_CANDIDATES, dtype=torch.bool)
    shut[early], shut[2048:] = False, False
    cost[shut] = torch.inf
    one = replace(level, offsets=lambda a, b: cost[a:b])
    assert brute_force(one, SEED)[0].tolist() == [best] * count
    for size in (chunk, 2048):
        (found,) = nominate([one], 0, NUM_CANDIDATES, seed=SEED, precision=torch.bfloat16, chunk=size)
        assert decide(found, one, seed=SEED).indices.tolist() == [best] * count


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("plateau", [0.0, 5.0])
@pytest.mark.parametrize("beta", [1e-12, 1e-6, 1e-4])
def test_a_slope_below_the_resolution_of_float32_scores_still_chooses_the_nearest(
    beta: float, plateau: float, precision: torch.dtype
):
    cost = torch.where(torch.arange(NUM_CANDIDATES) < 3000, plateau, 2 * plateau).double()
    one = cost_target(blocks(140), PROPOSAL, beta=beta, cost_nats=lambda a, b: cost[a:b])
    (found,) = nominate([one], 0, NUM_CANDIDATES, seed=SEED, precision=precision, chunk=1024)
    assert len(found.rows) <= 4 * running.TIES_KEPT * len(one.x)
    exact = beta * brute_distances(one) + cost
    rows = torch.arange(len(one.x))
    chosen = exact[rows, decide(found, one, seed=SEED).indices]
    assert bool((chosen - exact.amin(dim=1) <= 1e-12 * beta + 1e-14 * plateau).all())
