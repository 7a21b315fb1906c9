"""The streamed search against brute force, and what must not change its answer: chunk, tile, threads."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from rcccodec import channel
from rcccodec.channel import distances
from rcccodec.channel.weights import log_weights
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import ARRIVAL_STREAM, exponentials, standard_normals

VARIANCES = 4 * np.exp(-0.5 * np.arange(10))
SCORES = 3e-6  # relative error of the score of a sole nominee, which is not made again


class LatticeProposal:
    """Candidates rounded to a coarse grid, so that many coincide exactly."""

    dim = 3
    latent_dim = 3

    def candidates(self, z: Tensor) -> Tensor:
        return z.round()


class MixingProposal:
    """A fixed nonlinear map of the latents, far from the origin."""

    def __init__(self, dim: int = 17, latent_dim: int = 5, offset: float = 30.0) -> None:
        self.dim, self.latent_dim, self.offset = dim, latent_dim, offset
        self.matrix = standard_normals(99, torch.arange(latent_dim), dim, 7)

    def candidates(self, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.matrix.to(z.dtype)) + self.offset


def gaussian_blocks(count: int, seed: int = 5) -> Tensor:
    scale = torch.tensor(VARIANCES).sqrt().float()
    return standard_normals(seed, torch.arange(count), len(VARIANCES), 40) * scale


def brute_log_weights(coder: str, n: int, seed: int, stage: int = 0) -> list[float]:
    """Eq. 28 as printed, one term at a time."""
    x = exponentials(seed, 0, n, ARRIVAL_STREAM + stage).tolist()
    total, out = 0.0, []
    for i in range(1, n + 1):
        total += x[i - 1] if coder == "pfr" else n / (n - i + 1) * x[i - 1]
        out.append(math.log(total))
    return out


def brute_force(
    x: Tensor, proposal: object, beta: float, offsets: list[float], seed: int, stage: int = 0
) -> tuple[list[int], list[float]]:
    """Plain loops over blocks and candidates; a strict < keeps the lowest index."""
    z = standard_normals(seed, torch.arange(len(offsets)), proposal.latent_dim, stage)  # type: ignore[attr-defined]
    y = proposal.candidates(z.double()).tolist()  # type: ignore[attr-defined]
    indices, scores = [], []
    for block in x.double().tolist():
        best, where = math.inf, -1
        for i, candidate in enumerate(y):
            score = beta * sum((a - b) ** 2 for a, b in zip(block, candidate, strict=True)) + offsets[i]
            if score < best:
                best, where = score, i
        indices.append(where)
        scores.append(best)
    return indices, scores


@pytest.mark.parametrize("coder", ["pfr", "orc"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_log_weights_follow_the_formula_bit_for_bit_in_any_chunks(coder: str, chunk: int) -> None:
    pieces = list(log_weights(coder, 300, seed=4, stage=2, chunk=chunk))  # type: ignore[arg-type]
    assert [start for start, _ in pieces] == list(range(0, 300, chunk))
    whole = torch.cat([piece for _, piece in pieces])
    (_, single), *_ = log_weights(coder, 300, seed=4, stage=2, chunk=300)  # type: ignore[arg-type]
    assert torch.equal(whole, single)
    assert bool((whole[1:] >= whole[:-1]).all())
    assert bool(whole.isfinite().all())
    np.testing.assert_allclose(whole.numpy(), brute_log_weights(coder, 300, 4, stage=2), rtol=1e-12)


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(ValueError, match="pfr"):
        list(log_weights("mincost", 10, seed=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("coder", ["pfr", "orc"])
@pytest.mark.parametrize("proposal", [GaussianProposal(VARIANCES, 2.0), MixingProposal()])
def test_selection_equals_brute_force(coder: str, proposal: object) -> None:
    dim = proposal.dim  # type: ignore[attr-defined]
    x = gaussian_blocks(6) if dim == 10 else standard_normals(1, torch.arange(6), dim, 50) * 0.7 + 30.0
    offsets = brute_log_weights(coder, 500, 11, stage=1)
    indices, scores = brute_force(x, proposal, 2.0, offsets, 11, stage=1)
    got = channel.select_channel(
        x,
        proposal,
        beta=2.0,
        coder=coder,
        seed=11,
        stage=1,
        num_candidates=500,
        chunk=97,  # type: ignore[arg-type]
    )
    assert got.indices.tolist() == indices
    np.testing.assert_allclose(got.scores.numpy(), scores, rtol=SCORES)
    assert got.indices.dtype == torch.int64
    assert got.scores.dtype == torch.float64


@pytest.mark.parametrize("chunk", [1, 13, 256, 4096])
def test_the_lowest_index_wins_exact_ties(chunk: int) -> None:
    proposal = LatticeProposal()
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.5, 0.5, 0.5], [2.0, 2.0, 2.0]])
    cost = [0.0] * 600
    indices, scores = brute_force(x, proposal, 1.5, cost, 8)
    got = channel.select_with_cost(x, proposal, beta=1.5, cost_nats=torch.tensor(cost), seed=8, chunk=chunk)
    assert got.indices.tolist() == indices
    np.testing.assert_allclose(got.scores.numpy(), scores)
    starts = np.array([0, 1, 4, 100])
    per_class, distortion = channel.best_per_class(
        x, proposal, class_starts=starts, num_candidates=600, seed=8, chunk=chunk
    )
    for c, (low, high) in enumerate([(0, 1), (1, 4), (4, 100), (100, 600)]):
        inside = [math.inf] * low + [0.0] * (high - low)
        expected, d = brute_force(x, proposal, 1.0, inside, 8)
        assert per_class[:, c].tolist() == expected
        np.testing.assert_allclose(distortion[:, c].numpy(), d, atol=1e-12)


def test_a_source_of_one_value_and_identical_candidates_keeps_memory_and_index_small() -> None:
    proposal = GaussianProposal(np.ones(4) * 1e-3, 1.0)  # below the water level: every candidate is zero
    assert proposal.latent_dim == 0
    x = torch.zeros(5, 4)
    got = channel.select_with_cost(x, proposal, beta=1.0, cost_nats=np.zeros(50_000), seed=0, chunk=1000)
    assert got.indices.tolist() == [0] * 5
    pfr = channel.select_channel(x, proposal, beta=1.0, coder="pfr", seed=0, num_candidates=5000)
    assert pfr.indices.tolist() == [0] * 5
    assert bool(pfr.certified.all())


def test_the_answer_does_not_depend_on_chunk_tile_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = MixingProposal(dim=40, latent_dim=8)
    x = standard_normals(2, torch.arange(70), 40, 60) * 0.5 + 30.0
    options = {"beta": 1.5, "coder": "pfr", "seed": 21, "num_candidates": 5000}
    reference = channel.select_channel(x, proposal, **options, chunk=5000)  # type: ignore[arg-type]
    threads = torch.get_num_threads()
    try:
        for chunk, tile, count in [(64, 1 << 21, 1), (999, 5000, 2), (4096, 1 << 14, 3), (50, 1 << 21, 1)]:
            monkeypatch.setattr(distances, "_TILE_SCORES_CPU", tile)
            torch.set_num_threads(count)
            got = channel.select_channel(x, proposal, **options, chunk=chunk)  # type: ignore[arg-type]
            assert torch.equal(got.indices, reference.indices)
            assert torch.allclose(got.scores, reference.scores, rtol=SCORES)
            alone = channel.select_channel(x[3:4], proposal, **options, chunk=chunk)  # type: ignore[arg-type]
            assert alone.indices[0] == reference.indices[3]
    finally:
        torch.set_num_threads(threads)


def test_a_large_common_offset_does_not_spoil_the_search() -> None:
    """Sources near 3000 lose seven digits in ||x||^2; centred, the choice is that of the shifted problem."""
    near, far = MixingProposal(offset=0.0), MixingProposal(offset=3000.0)
    x = standard_normals(1, torch.arange(40), 17, 50).double() * 0.7
    options = {"beta": 2.0, "coder": "orc", "seed": 3, "num_candidates": 3000}
    a = channel.select_channel(x, near, **options)  # type: ignore[arg-type]
    b = channel.select_channel(x + 3000.0, far, **options)  # type: ignore[arg-type]
    assert torch.equal(a.indices, b.indices)


def test_certified_choices_are_those_of_a_longer_search_and_certificates_are_not_given_lightly() -> None:
    proposal = GaussianProposal(VARIANCES, 1.5)
    x = gaussian_blocks(300)
    options = {"beta": 1.5, "coder": "pfr", "seed": 6}
    short = channel.select_channel(x, proposal, **options, num_candidates=400)  # type: ignore[arg-type]
    long = channel.select_channel(x, proposal, **options, num_candidates=40_000)  # type: ignore[arg-type]
    same = short.indices == long.indices
    assert 0.1 < short.certified.float().mean() < 0.9
    assert bool(same[short.certified].all())
    assert not bool(same.all()), "the short search must be too short for some uncertified block"
    last = brute_log_weights("pfr", 400, 6)[-1]
    assert torch.equal(short.certified, short.scores <= last)
    assert bool(long.certified[short.certified].all())


def test_orc_and_cost_selections_are_never_certified() -> None:
    x = gaussian_blocks(4)
    proposal = GaussianProposal(VARIANCES, 0.3)
    orc = channel.select_channel(x, proposal, beta=0.3, coder="orc", seed=0, num_candidates=500)
    cost = channel.select_with_cost(x, proposal, beta=0.3, cost_nats=np.zeros(500), seed=0)
    assert not orc.certified.any()
    assert not cost.certified.any()


def test_a_cost_function_gives_the_choices_of_its_table() -> None:
    x, proposal = gaussian_blocks(20), GaussianProposal(VARIANCES, 2.0)
    table = 0.7 * np.log1p(np.arange(3000))
    whole = channel.select_with_cost(x, proposal, beta=2.0, cost_nats=table, seed=4)
    streamed = channel.select_with_cost(
        x,
        proposal,
        beta=2.0,
        cost_nats=lambda start, stop: 0.7 * np.log1p(np.arange(start, stop)),
        num_candidates=3000,
        seed=4,
        chunk=700,
    )
    assert torch.equal(whole.indices, streamed.indices)
    assert torch.allclose(whole.scores, streamed.scores, rtol=SCORES)
    with pytest.raises(ValueError, match="num_candidates"):
        channel.select_with_cost(x, proposal, beta=2.0, cost_nats=lambda a, b: table[a:b], seed=4)
    with pytest.raises(ValueError, match="3000 costs"):
        channel.select_with_cost(x, proposal, beta=2.0, cost_nats=table, num_candidates=5, seed=4)


def test_an_infinite_cost_excludes_a_candidate_and_no_candidate_is_an_error() -> None:
    x = gaussian_blocks(8)
    proposal = GaussianProposal(VARIANCES, 2.0)
    free = channel.select_with_cost(x, proposal, beta=2.0, cost_nats=np.zeros(2000), seed=0, chunk=300)
    cost = np.zeros(2000)
    cost[free.indices.numpy()] = np.inf
    cost[:900] = np.inf
    got = channel.select_with_cost(x, proposal, beta=2.0, cost_nats=cost, seed=0, chunk=300)
    assert int(got.indices.min()) >= 900
    assert not set(got.indices.tolist()) & set(free.indices.tolist())
    with pytest.raises(ValueError, match="finite"):
        channel.select_with_cost(x, proposal, beta=2.0, cost_nats=np.full(10, np.inf), seed=0)


def test_the_decoder_makes_the_chosen_candidates_alone() -> None:
    proposal = MixingProposal()
    x = standard_normals(1, torch.arange(9), 17, 50) * 0.7 + 30.0
    got = channel.select_channel(x, proposal, beta=3.0, coder="pfr", seed=2, stage=1, num_candidates=2000)
    y = channel.candidates_at(proposal, got.indices, seed=2, stage=1)
    weights = torch.tensor(brute_log_weights("pfr", 2000, 2, stage=1), dtype=torch.float64)
    score = 3.0 * channel.squared_distances(x, y) + weights[got.indices]
    assert torch.allclose(score, got.scores, rtol=SCORES)
    other_stage = channel.candidates_at(proposal, got.indices, seed=2, stage=0)
    assert not torch.allclose(other_stage, y)


def test_progress_reports_every_chunk() -> None:
    calls: list[tuple[int, int]] = []
    channel.select_channel(
        gaussian_blocks(2),
        GaussianProposal(VARIANCES, 1.0),
        beta=1.0,
        coder="orc",
        seed=0,
        num_candidates=250,
        chunk=100,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(100, 250), (200, 250), (250, 250)]


CLASS_STARTS = np.array([0, 1, 2, 3, 5, 7, 11, 15, 22, 31, 45, 63, 90, 127, 181, 255, 362, 511, 724, 1023])
NUM_IN_CLASSES = 4000


def class_table() -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    x = gaussian_blocks(400)
    indices, distortion = channel.best_per_class(
        x, GaussianProposal(VARIANCES, 1.0), class_starts=CLASS_STARTS, num_candidates=NUM_IN_CLASSES, seed=13
    )
    return x, indices, distortion, np.diff(np.append(CLASS_STARTS, NUM_IN_CLASSES))


def test_class_selection_with_fixed_lengths_equals_a_search_with_a_cost_per_index() -> None:
    x, indices, distortion, sizes = class_table()
    lengths = 1.0 + 0.7 * np.arange(len(sizes))
    choice = channel.select_mincost(indices, distortion, lengths, beta=1.0, class_sizes=sizes, refit=False)
    cost = math.log(2) * np.repeat(lengths, sizes)
    full = channel.select_with_cost(x, GaussianProposal(VARIANCES, 1.0), beta=1.0, cost_nats=cost, seed=13)
    assert torch.equal(choice.indices, full.indices)
    assert choice.rounds == 1
    assert choice.settled
    np.testing.assert_array_equal(choice.lengths_bits, lengths)


def test_mincost_settles_and_every_round_lowers_the_objective() -> None:
    _, indices, distortion, sizes = class_table()
    lengths = np.log2(sizes) + np.log2(len(sizes))

    def objective(rounds: int) -> float:
        choice = channel.select_mincost(
            indices, distortion, lengths, beta=1.0, class_sizes=sizes, max_rounds=rounds
        )
        counts = np.bincount(choice.classes.numpy(), minlength=len(sizes)) + 1.0
        p = counts / counts.sum()
        length = -np.log2(p) + np.log2(sizes)
        bits = length[choice.classes.numpy()].sum() - np.log2(p).sum()
        return float(distortion.gather(1, choice.classes[:, None]).sum() / math.log(2) + bits)

    path = [objective(rounds) for rounds in range(1, 12)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(path))
    assert path[-1] < path[0] - 1
    choice = channel.select_mincost(indices, distortion, lengths, beta=1.0, class_sizes=sizes)
    assert choice.settled
    assert choice.rounds < 200
    again = channel.select_mincost(indices, distortion, choice.lengths_bits, beta=1.0, class_sizes=sizes)
    assert torch.equal(again.indices, choice.indices)
    assert (choice.indices >= torch.tensor(CLASS_STARTS)[choice.classes]).all()
    # a probability per index: the lengths satisfy Kraft with equality
    assert abs((sizes * 2.0**-choice.lengths_bits).sum() - 1) < 1e-12


@pytest.mark.parametrize("starts", [[1, 2], [0, 2, 2], [0, 5, 100], []])
def test_class_starts_that_do_not_partition_the_indices_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="class_starts"):
        channel.best_per_class(
            gaussian_blocks(1),
            GaussianProposal(VARIANCES, 1.0),
            class_starts=np.array(starts, dtype=int),
            num_candidates=100,
            seed=0,
        )


MEMORY_PROBE = """
import resource, sys, numpy as np, torch
torch.set_num_threads(1)
from rcccodec import channel
from rcccodec.proposals.gaussian import GaussianProposal
proposal = GaussianProposal(4 * np.exp(-0.5 * np.arange(10)), 2.0)
x = torch.linspace(-1, 1, 40).view(4, 10)
n = int(sys.argv[1])
channel.select_channel(x, proposal, beta=2.0, coder="pfr", seed=0, num_candidates=n)
channel.best_per_class(x, proposal, class_starts=np.array([0, 10, 1000]), num_candidates=n, seed=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_candidates() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    peak = [
        int(subprocess.check_output([sys.executable, "-c", MEMORY_PROBE, str(n)], env=environment))
        for n in (2**16, 2**20)
    ]
    assert peak[1] < 1.05 * peak[0]
