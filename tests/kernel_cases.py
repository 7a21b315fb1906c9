"""What Triton's kernels must do; run by test_kernels.py in a process of its own, where Triton is imported.

RCC_KERNEL_DEVICE names the device: ``cpu`` with TRITON_INTERPRET=1, or ``cuda``.
"""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from rcccodec.channel import Selection, candidates_at, fused
from rcccodec.channel.nominees import Nominees, merge
from rcccodec.channel.search import decide, nominate
from rcccodec.channel.target import Target, channel_target, cost_target
from rcccodec.kernels import arrivals, gaussian_search, latents, usable
from rcccodec.kernels.gaussian_search import GaussianScores, Winners
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import ARRIVAL_STREAM, exponentials, plain_normals, standard_normals

DEVICE = os.environ["RCC_KERNEL_DEVICE"]


@triton.jit
def _one_counter(out, counter, seed):
    word = (tl.load(counter + tl.arange(0, 4)) & 0xFFFFFFFF).to(tl.uint32)
    which = tl.arange(0, 4)
    c0 = tl.sum(tl.where(which == 0, word, 0), axis=0).to(tl.uint32)
    c1 = tl.sum(tl.where(which == 1, word, 0), axis=0).to(tl.uint32)
    c2 = tl.sum(tl.where(which == 2, word, 0), axis=0).to(tl.uint32)
    c3 = tl.sum(tl.where(which == 3, word, 0), axis=0).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(tl.load(seed), c0, c1, c2, c3)
    tl.store(out + 0, w0.to(tl.int64))
    tl.store(out + 1, w1.to(tl.int64))
    tl.store(out + 2, w2.to(tl.int64))
    tl.store(out + 3, w3.to(tl.int64))


@pytest.mark.parametrize(
    ("counter", "seed", "words"),
    [
        ("00000000 00000000 00000000 00000000", 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", -1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: str, seed: int, words: str) -> None:
    out = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    at = torch.tensor([int(w, 16) for w in counter.split()], device=DEVICE)
    _one_counter[(1,)](out, at, torch.tensor([seed], device=DEVICE))
    assert [f"{w & 0xFFFFFFFF:08x}" for w in out.tolist()] == words.split()


@pytest.mark.parametrize(
    ("seed", "first", "count", "dim", "stream"),
    [
        (0, 0, 70, 8, 0),
        (1, 2**31 - 10, 20, 11, 1),
        (2**31 + 7, 2**32 - 35, 70, 24, 2**16 + 3),
        (2**63 + 11, 2**33 + 5, 1, 131, 2**31),
        (2**64 - 1, 2**62 + 9, 3, 1, 2**32 - 1),
    ],
)
def test_latents_are_bit_identical_to_plain_torch(
    seed: int, first: int, count: int, dim: int, stream: int
) -> None:
    k = torch.arange(first, first + count)
    expected = plain_normals(seed, k, dim, stream)
    assert torch.equal(latents.normals(seed, k.to(DEVICE), dim, stream).cpu(), expected)
    for other in (
        plain_normals(seed ^ 1, k, dim, stream),
        plain_normals(seed, k, dim, stream ^ 1),
        plain_normals(seed, k & 0xFFFFFFFF ^ 1, dim, stream),
    ):
        assert not torch.equal(other, expected)


def test_latents_of_any_order_of_candidates_follow_them() -> None:
    k = torch.tensor([5, 2**40, 5, 0, 2**32 + 5])
    z = latents.normals(3, k.to(DEVICE)[[4, 3, 2, 1, 0]], 9, 2).cpu()
    assert torch.equal(z.flip(0), plain_normals(3, k, 9, 2))
    assert not torch.equal(z[0], z[2]), "2^32 + 5 and 5 are different candidates"


def test_arrival_times_are_those_of_plain_torch_but_for_the_last_bits() -> None:
    for seed, start in ((9, 0), (2**64 - 1, 2**32 - 300)):
        made = arrivals.gaps(seed, start, 600, ARRIVAL_STREAM, DEVICE).cpu()
        expected = exponentials(seed, start, 600, ARRIVAL_STREAM)
        np.testing.assert_allclose(made.numpy(), expected.numpy(), rtol=1e-14)
        assert not np.allclose(made.numpy(), exponentials(seed, start + 1, 600, ARRIVAL_STREAM).numpy())


def exact_scores(
    x: torch.Tensor, proposal: GaussianProposal, offsets: torch.Tensor, start: int, seed: int, stream: int
) -> torch.Tensor:
    """float64 (B, n), beta d + offset."""
    k = torch.arange(start, start + len(offsets))
    y = candidates_at(proposal, k, seed=seed, stage=stream)
    return proposal.beta * (x.double()[:, None] - y[None]).square().sum(dim=2) + offsets


def searched(
    x: torch.Tensor,
    proposal: GaussianProposal,
    offsets: torch.Tensor,
    start: int,
    seed: int,
    stream: int,
    per_program: int = 128,
) -> Winners:
    of_blocks = GaussianScores.of(x, proposal, proposal.beta, DEVICE)
    return gaussian_search.search_range(
        of_blocks, offsets.float().to(DEVICE), start=start, seed=seed, stream=stream, per_program=per_program
    )


@pytest.mark.parametrize(
    ("dim", "blocks", "count", "start", "seed", "stream"),
    [
        (4, 3, 256, 0, 0, 0),
        (20, 21, 333, 2**31 - 100, 2**63 + 5, 3),
        (45, 66, 200, 2**32 - 77, 1, 1),  # dimensions and blocks that no tile divides
        (16, 1, 65, 2**45, 2**32, 2**20),
    ],
)
def test_the_fused_search_finds_what_float64_brute_force_finds(
    dim: int, blocks: int, count: int, start: int, seed: int, stream: int
) -> None:
    proposal = GaussianProposal(np.linspace(4.0, 0.3, dim), 1.0)  # some components are inactive
    x = plain_normals(99, torch.arange(blocks), dim, 7) * 1.5
    offsets = exponentials(5, 0, count, 8).cumsum(0).log()
    found = searched(x, proposal, offsets, start, seed, stream)
    scores, order = exact_scores(x, proposal, offsets, start, seed, stream).sort(dim=1)
    assert torch.equal(found.indices.cpu(), start + order[:, 0])
    norms = x.double().square().sum(dim=1)
    np.testing.assert_allclose(found.scores.cpu().double() + norms, scores[:, 0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.runners_up.cpu().double() + norms, scores[:, 1], rtol=1e-5, atol=1e-4)
    for wrong in ((start, seed ^ 1, stream), (start, seed, stream + 1), (start ^ 2**32, seed, stream)):
        other = exact_scores(x, proposal, offsets, *wrong).min(dim=1).values
        assert not np.allclose(found.scores.cpu().double() + norms, other, rtol=1e-5, atol=1e-4)


def test_winners_of_parts_joined_are_those_of_the_whole_and_excluded_candidates_never_win() -> None:
    proposal = GaussianProposal(np.array([3.0, 2.0, 1.0]), 1.0)
    x = plain_normals(1, torch.arange(5), 3, 9)
    offsets = torch.zeros(320, dtype=torch.float64)
    offsets[:192] = torch.inf  # more than a program's share
    whole = searched(x, proposal, offsets, 40, 7, 0)
    assert int(whole.indices.min()) >= 40 + 192
    parts = [searched(x, proposal, offsets[a : a + 64], 40 + a, 7, 0, 64) for a in range(0, 320, 64)]
    joined = parts[0]
    assert (joined.indices == -1).all()
    assert joined.scores.isposinf().all()
    for part in parts[1:]:
        joined = joined.joined(part)
    for name in ("scores", "indices", "runners_up"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert not torch.equal(parts[-1].indices, whole.indices)


def test_equal_candidates_tie_and_the_lowest_index_wins() -> None:
    proposal = GaussianProposal(np.array([0.1, 0.1]), 1.0)  # nothing is active: all candidates are zero
    x = torch.ones(2, 2)
    found = searched(x, proposal, torch.zeros(300), 2**33, 0, 0)
    assert found.indices.tolist() == [2**33] * 2
    assert torch.equal(found.scores, found.runners_up), "the runner-up tells of the tie"


def test_the_choice_of_kernels_changes_no_bit() -> None:
    assert usable(torch.device(DEVICE)) == (DEVICE != "cpu"), "interpreted kernels are for tests alone"
    k = torch.arange(2**32 - 50, 2**32 + 50)
    assert torch.equal(standard_normals(77, k.to(DEVICE), 131, 2).cpu(), plain_normals(77, k, 131, 2))


def chosen(target: Target, stop: int, seed: int, **chunk: int) -> tuple[Selection, list[tuple[int, int]]]:
    """The choice by way of the kernel, and (blocks, candidates) of each plain search it asked for."""
    asked = []

    def plain(part: Target, first: int, end: int) -> Nominees:
        asked.append((len(part.x), end - first))
        return nominate([part], first, end, seed=seed, stage=2)[0]

    place = torch.device(DEVICE)
    found = fused.nominate(target, 0, stop, plain, seed=seed, stage=2, device=place, **chunk)
    return decide(found, target, seed=seed, stage=2), asked


@pytest.mark.parametrize("coder", ["pfr", "orc", "cost"])
def test_the_choice_by_way_of_the_kernel_is_that_of_the_plain_search(coder: str) -> None:
    proposal, n, seed = GaussianProposal(np.linspace(3.0, 0.2, 11), 1.5), 448, 2**63 + 1
    x = plain_normals(4, torch.arange(37), 11, 9)
    if coder == "cost":
        cost = torch.log1p(torch.arange(n, dtype=torch.float64))
        target = cost_target(x, proposal, beta=1.5, cost_nats=lambda a, b: cost[a:b])
    else:
        options = {"beta": 1.5, "seed": seed, "num_candidates": n, "stage": 2}
        target = channel_target(x, proposal, coder=coder, **options)
    expected = decide(nominate([target], 0, n, seed=seed, stage=2)[0], target, seed=seed, stage=2)
    for chunk in (128, 448):
        selection, _ = chosen(target, n, seed, chunk=chunk)
        assert torch.equal(selection.indices, expected.indices)
        assert torch.equal(selection.certified, expected.certified)
        np.testing.assert_allclose(selection.scores, expected.scores, rtol=1e-5, atol=1e-4)
    assert not torch.equal(chosen(target, n, seed + 1, chunk=448)[0].indices, expected.indices)


def test_a_tie_sends_its_chunk_and_its_blocks_alone_to_the_plain_search() -> None:
    proposal, n, seed = GaussianProposal(np.array([2.0]), 1.0), 900, 3
    y = candidates_at(proposal, torch.arange(n), seed=seed, stage=2)[:, 0]
    values, counts = torch.unique(y, return_counts=True)
    twin = values[counts == 2][0]
    low, high = (y == twin).nonzero()[:, 0].tolist()  # two candidates on one point of the latents' grid
    x = torch.tensor([[float(twin)], [3.0], [-3.0]])
    target = cost_target(x, proposal, beta=1e4, cost_nats=lambda a, b: torch.zeros(b - a))
    selection, asked = chosen(target, n, seed, chunk=1024)
    assert asked == [(1, n)]
    nearest = (x.double() - y[None]).square().argmin(dim=1)
    assert torch.equal(selection.indices, nearest)
    assert int(selection.indices[0]) == low < high


def test_ranges_searched_apart_decide_as_one() -> None:
    proposal, n, seed = GaussianProposal(np.array([3.0, 2.0]), 1.0), 320, 11
    x = plain_normals(4, torch.arange(9), 2, 9)
    target = channel_target(x, proposal, beta=1.0, coder="pfr", seed=seed, num_candidates=n, stage=2)
    ways = {"seed": seed, "stage": 2, "device": torch.device(DEVICE), "chunk": 64}
    parts = [fused.nominate(target, a, b, not_needed, **ways) for a, b in ((192, 320), (0, 192), (7, 7))]
    whole = decide(nominate([target], 0, n, seed=seed, stage=2)[0], target, seed=seed, stage=2)
    apart = decide(merge(parts), target, seed=seed, stage=2)
    assert torch.equal(apart.indices, whole.indices)
    assert torch.equal(apart.certified, whole.certified)
    assert not torch.equal(decide(parts[0], target, seed=seed, stage=2).indices, whole.indices)


def not_needed(target: Target, first: int, end: int) -> Nominees:
    raise AssertionError("no two candidates are that near")


def test_the_rows_of_the_bench_time_every_arithmetic() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
    gpu = importlib.import_module("gpu")
    proposal = GaussianProposal(np.full(8, 2.0), 1.0)
    x = plain_normals(0, torch.arange(2), 8, 0)
    rows = gpu.kernel_rows(x, proposal, 64, 2.0, {"float32": 1.0}, 1, DEVICE)
    assert [row["row"].split()[-1] for row in rows] == ["ieee", "tf32x3", "tf32"]
    assert all(row["share_of_float32_peak"] == 2 * row["rate"] for row in rows)
