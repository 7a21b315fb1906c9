"""The index codes of a trained stage, fitted on training blocks and stored in the bundle as integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.channel.classes import MinCostChoice, best_per_class, select_mincost
from rcccodec.channel.distances import CentredBlocks, chunk_candidates, default_chunk
from rcccodec.channel.search import select_channel
from rcccodec.channel.weights import Coder, log_weights
from rcccodec.index_code.codebook_prior import quantise
from rcccodec.index_code.fitted import FittedCode, class_sizes, class_starts, fit
from rcccodec.proposals import Proposal
from rcccodec.proposals.joint import JointProposal
from rcccodec.training.groups import CentredGroups, Groups

NEAREST = 256  # candidates kept per training block while a prior is learnt
SOFT_STEPS, HARD_STEPS = 60, 12
PSEUDO_COUNT = 0.01
CLOSE = 64  # candidates kept per training block for the priors of channel simulation
GUESS_DISTANCES, GUESS_STEPS, GUESS_DOUBT = 1 << 25, 60, 0.1  # 128 MiB
_KEPT_BYTES = 1 << 30  # of a codebook's candidates, for the next coder


@dataclass(frozen=True)
class Smoothing:
    """How counts of winners become the priors of channel simulation.

    All but ``hard_share`` of a block's count goes to its runners-up too, by softmax(-(beta d + ln W) /
    temperature); the fitted histogram stands in with the weight of ``fitted_blocks`` blocks.
    """

    temperature: float = 0.4
    hard_share: float = 0.3
    fitted_blocks: float = 1000


def fit_histograms(
    coordinates: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    stage: int,
    seeds: tuple[int, ...],
    device: str = "cpu",
) -> dict[str, list[int]]:
    """Class frequencies of the index under each coder, averaged over codebooks.

    ``coordinates`` (n, dim) are split evenly over ``seeds``. Min-cost lengths are refitted until they settle.

    Returns:
        {"pfr": frequencies, "orc": ..., "mincost": ...} as FittedCode takes them.
    """
    if not len(coordinates):
        raise ValueError("no blocks to fit index codes to")
    seeds = seeds[: len(coordinates)]
    parts = list(zip(seeds, coordinates.tensor_split(len(seeds)), strict=True))
    starts, sizes = class_starts(num_candidates), class_sizes(num_candidates)
    chosen: dict[Coder, list[Tensor]] = {"pfr": [], "orc": []}
    nearest = []
    for seed, x in parts:
        codebook = _MadeOnce(proposal)
        common = {"num_candidates": num_candidates, "seed": seed, "stage": stage, "device": device}
        for coder, indices in chosen.items():
            indices.append(select_channel(x, codebook, beta=beta, coder=coder, **common).indices)
        nearest.append(best_per_class(x, codebook, class_starts=starts, **common))
    fitted = {
        str(coder): fit(torch.cat(indices).numpy(), num_candidates=num_candidates)
        for coder, indices in chosen.items()
    }
    closest, distances = (torch.cat([n[i] for n in nearest]) for i in (0, 1))
    choices = (
        select_mincost(closest, distances, begin, beta=beta, class_sizes=sizes)
        for begin in _first_lengths(starts, sizes)
    )
    cheapest = min(choices, key=lambda c: _cost_bits(c, beta))
    fitted["mincost"] = fit(cheapest.indices.numpy(), num_candidates=num_candidates)
    return fitted


class _MadeOnce:
    """A proposal that makes each chunk of candidates in float32 once, as long as there is room to keep it."""

    def __init__(self, proposal: Proposal) -> None:
        self._proposal, self._made, self._left = proposal, {}, _KEPT_BYTES  # type: ignore[var-annotated]
        self.dim, self.latent_dim = proposal.dim, proposal.latent_dim

    def candidates(self, z: Tensor) -> Tensor:
        """As the proposal makes them."""
        key = (len(z), z[:1].cpu().numpy().tobytes())  # a chunk is known by its first latents
        y: Tensor | None = self._made.get(key)
        if y is None:
            y = self._proposal.candidates(z)
            size = y.numel() * y.element_size()
            if z.dtype == torch.float32 and size <= self._left:
                self._made[key], self._left = y, self._left - size
        return y


def _first_lengths(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Lengths that min-cost refitting may begin with; each ends in an optimum of its own."""
    # Zipf-like: about as many bits as the index itself has, twice over for the class
    bits = np.log2(starts + 1)
    yield 2 * bits / (1 + bits) + np.log2(sizes)
    for plateau in range(3, 1 + int(bits[-1])):  # the first 2^plateau indices alike, dearer beyond
        yield np.where(starts < 1 << plateau, float(plateau), 1 + 1.5 * bits - 0.5 * plateau)


def _cost_bits(choice: MinCostChoice, beta: float) -> float:
    lengths = torch.from_numpy(choice.lengths_bits)[choice.classes]
    return float((beta / math.log(2) * choice.distortion + lengths).mean())


def fit_codebook_prior(
    coordinates: Tensor | Groups,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    stage: int,
    seed: int,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Length of every index of one codebook, by soft and then hard entropy-constrained reassignment.

    Soft (Blahut-Arimoto): w_j <- E_x w_j exp(-beta d_j) / sum_i w_i exp(-beta d_i).
    Hard: w_j <- share of the blocks whose argmin_i (beta d_i - ln w_i) is j, plus a pseudo-count.
    A first guess of w comes from some blocks and all candidates; then each block keeps the ``NEAREST``
    candidates of lowest beta d - ln w. Those of lowest d alone would not do: at R bits a block shares its
    candidate with others, and the best one to share is typically the (N 2^-R)th nearest.

    Args:
        coordinates: (n, dim) training blocks, at least one; groups of them for a proposal of as many draws.
        seed: of the codebook that the model ships.

    Returns:
        uint8 (N,) levels as CodebookPrior takes them.
    """
    place = torch.device(device)
    log_w = _first_guess(coordinates, proposal, beta, num_candidates, stage, seed, place)
    distances, columns = _cheapest(coordinates, proposal, -log_w / beta, stage, seed, place, NEAREST)
    logits = -beta * (distances - distances.amin(1, keepdim=True))
    flat = columns.flatten().long()
    for _ in range(SOFT_STEPS):
        posterior = torch.softmax(logits + log_w[columns.long()], dim=1)
        weights = torch.bincount(flat, posterior.flatten().double(), minlength=num_candidates)
        log_w = torch.log((weights / len(coordinates)).clamp_min(1e-30)).float()
    lengths_nats = -log_w
    for _ in range(HARD_STEPS):
        best = torch.argmax(logits - lengths_nats[columns.long()], dim=1, keepdim=True)
        counts = torch.bincount(columns.gather(1, best)[:, 0].long(), minlength=num_candidates) + PSEUDO_COUNT
        lengths_nats = -torch.log(counts / counts.sum()).float()
    return quantise(lengths_nats.double().numpy() / math.log(2))


def fit_channel_priors(
    coordinates: Tensor | Groups,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    stage: int,
    seed: int,
    fitted: dict[str, list[int]],
    smoothing: Smoothing = Smoothing(),
    device: str = "cpu",
) -> dict[str, NDArray[np.uint8]]:
    """Length of every index of one codebook under "pfr" and "orc", whose choice it leaves as it is.

    An index that wins for many blocks gets a short code: its probability given the codebook and its arrival
    times, which the fitted histogram averages over. Counts alone would need many blocks an index, hence the
    ``smoothing``.

    Args:
        coordinates: (n, dim) training blocks, at least one; groups of them for a proposal of as many draws.
        seed: of the codebook that the model ships.
        fitted: what ``fit_histograms`` returned.

    Returns:
        uint8 (N,) levels by coder, as CodebookPrior takes them.
    """
    place = torch.device(device)
    log_w = {
        coder: torch.cat([w for _, w in log_weights(coder, num_candidates, seed=seed, stage=stage)])
        for coder in ("pfr", "orc")
    }
    # ORC has the same arrivals, the late ones put off: its winner is among PFR's first
    distances, columns = _cheapest(
        coordinates, proposal, log_w["pfr"].float() / beta, stage, seed, place, CLOSE
    )
    columns = columns.long()
    levels = {}
    for coder, weights in log_w.items():
        scores = -(beta * distances + weights[columns]).double()
        shares = (1 - smoothing.hard_share) * torch.softmax(scores / smoothing.temperature, dim=1)
        hard = torch.full((len(scores), 1), smoothing.hard_share)
        shares.scatter_add_(1, scores.argmax(1, keepdim=True), hard.double())
        counts = torch.bincount(columns.flatten(), shares.flatten(), minlength=num_candidates).numpy()
        code = FittedCode(fitted[coder], num_candidates)
        counts += smoothing.fitted_blocks * np.exp2(-code.lengths_bits(np.arange(num_candidates)))
        levels[coder] = quantise(-np.log2(counts / counts.sum()))
    return levels


def _first_guess(
    x: Tensor | Groups,
    proposal: Proposal,
    beta: float,
    num_candidates: int,
    stage: int,
    seed: int,
    place: torch.device,
) -> Tensor:
    """ln w (N,), float32 on the CPU, after a few soft steps of some blocks with all candidates."""
    rows = max(1, GUESS_DISTANCES // num_candidates)
    every = max(1, len(x) // rows)
    frame = CentredBlocks(x[slice(0, rows * every, every)], place)
    logits = torch.empty((len(frame.x), num_candidates), device=place)
    for start, y in _chunks(proposal, num_candidates, seed, stage, place):
        y = frame.centre(y)
        for part, scores in frame.tiles(y, y.square().sum(1), -2.0):
            logits[part, start : start + len(y)] = -beta * scores
    w = torch.full((num_candidates,), 1 / num_candidates, device=place)
    for _ in range(GUESS_STEPS):
        total = torch.zeros_like(w)
        for part in logits.split(64):
            total += torch.softmax(part + w.log(), dim=1).sum(0)
        w = (total / len(logits)).clamp_min(1e-30)
    return ((1 - GUESS_DOUBT) * w + GUESS_DOUBT / num_candidates).log().cpu()


def _cheapest(
    x: Tensor | Groups,
    proposal: Proposal,
    offsets: Tensor,
    stage: int,
    seed: int,
    place: torch.device,
    count: int,
) -> tuple[Tensor, Tensor]:
    """The ``count`` candidates of lowest d + offset of every block, ``offsets`` (N,) in units of d.

    Returns:
        Squared distances float32 and indices int32, (B, count) each, on the CPU; the lowest sum first.
    """
    frame: CentredBlocks | CentredGroups
    frame = CentredGroups(x, place) if isinstance(x, Groups) else CentredBlocks(x, place)
    offsets = offsets.to(place)
    keep = min(count, len(offsets))
    best = torch.full((len(x), keep), torch.inf, device=place)
    columns = torch.zeros((len(x), keep), dtype=torch.int32, device=place)
    for start, y in _chunks(proposal, len(offsets), seed, stage, place):
        y, size = frame.centre(y), len(y)
        numbers = torch.arange(start, start + size, dtype=torch.int32, device=place)
        for rows, scores in frame.tiles(y, y.square().sum(1) + offsets[start : start + size], -2.0):
            near, where = torch.topk(scores, min(keep, size), dim=1, largest=False)
            both = torch.cat([best[rows], near], 1)
            names = torch.cat([columns[rows], numbers[where]], 1)
            best[rows], order = torch.topk(both, keep, dim=1, largest=False)
            columns[rows] = names.gather(1, order)
    best += frame.square_norms.float()[:, None] - offsets[columns.long()]
    return best.clamp_min_(0).cpu(), columns.cpu()


def _chunks(
    proposal: Proposal, num_candidates: int, seed: int, stage: int, place: torch.device
) -> Iterator[tuple[int, Tensor]]:
    draws = proposal.size if isinstance(proposal, JointProposal) else 1
    chunk = max(1, default_chunk(place) // draws)
    for start in range(0, num_candidates, chunk):
        yield start, chunk_candidates(proposal, start, min(chunk, num_candidates - start), seed, stage, place)
