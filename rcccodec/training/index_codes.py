"""The index codes of a trained stage, fitted on training blocks and stored in the bundle as integers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.channel.classes import best_per_class, select_mincost
from rcccodec.channel.distances import CentredBlocks, chunk_candidates, default_chunk
from rcccodec.channel.search import select_channel
from rcccodec.index_code.codebook_prior import quantise
from rcccodec.index_code.fitted import class_sizes, class_starts, fit
from rcccodec.proposals.generator import GeneratorProposal

NEAREST = 256  # candidates kept per training block while a prior is learnt
SOFT_STEPS, HARD_STEPS = 60, 12
PSEUDO_COUNT = 0.01
GUESS_DISTANCES, GUESS_STEPS, GUESS_DOUBT = 1 << 25, 60, 0.1  # 128 MiB


def fit_histograms(
    coordinates: Tensor,
    proposal: GeneratorProposal,
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
    fitted: dict[str, list[int]] = {}
    for coder in ("pfr", "orc"):
        indices = [
            select_channel(
                x, proposal, beta=beta, coder=coder, seed=seed, stage=stage,
                num_candidates=num_candidates, device=device,
            ).indices
            for seed, x in parts
        ]  # fmt: skip
        fitted[coder] = fit(torch.cat(indices).numpy(), num_candidates=num_candidates)
    starts, sizes = class_starts(num_candidates), class_sizes(num_candidates)
    nearest = [
        best_per_class(
            x,
            proposal,
            class_starts=starts,
            num_candidates=num_candidates,
            seed=seed,
            stage=stage,
            device=device,
        )
        for seed, x in parts
    ]
    # Zipf-like lengths to begin with: about as many bits as the index itself has, twice over for the class
    begin = 2 * np.log2(starts + 1) / (1 + np.log2(starts + 1)) + np.log2(sizes)
    choice = select_mincost(
        torch.cat([n[0] for n in nearest]),
        torch.cat([n[1] for n in nearest]),
        begin,
        beta=beta,
        class_sizes=sizes,
    )
    fitted["mincost"] = fit(choice.indices.numpy(), num_candidates=num_candidates)
    return fitted


def fit_codebook_prior(
    coordinates: Tensor,
    proposal: GeneratorProposal,
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
        coordinates: (n, dim) training blocks, at least one. seed: of the codebook that the model ships.

    Returns:
        uint8 (N,) levels as CodebookPrior takes them.
    """
    place = torch.device(device)
    log_w = _first_guess(coordinates, proposal, beta, num_candidates, stage, seed, place)
    distances, columns = _cheapest(coordinates, proposal, -log_w / beta, stage, seed, place)
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


def _first_guess(
    x: Tensor,
    proposal: GeneratorProposal,
    beta: float,
    num_candidates: int,
    stage: int,
    seed: int,
    place: torch.device,
) -> Tensor:
    """ln w (N,), float32 on the CPU, after a few soft steps of some blocks with all candidates."""
    rows = max(1, GUESS_DISTANCES // num_candidates)
    frame = CentredBlocks(x[:: max(1, len(x) // rows)][:rows], place)
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
    x: Tensor, proposal: GeneratorProposal, offsets: Tensor, stage: int, seed: int, place: torch.device
) -> tuple[Tensor, Tensor]:
    """The candidates of lowest d + offset of every block, ``offsets`` (N,) in units of d.

    Returns:
        Squared distances float32 and indices int32, (B, NEAREST) each, on the CPU; the lowest sum first.
    """
    frame, offsets = CentredBlocks(x, place), offsets.to(place)
    keep = min(NEAREST, len(offsets))
    best = torch.full((len(x), keep), torch.inf, device=place)
    columns = torch.zeros((len(x), keep), dtype=torch.int32, device=place)
    for start, y in _chunks(proposal, len(offsets), seed, stage, place):
        y, count = frame.centre(y), len(y)
        numbers = torch.arange(start, start + count, dtype=torch.int32, device=place)
        for rows, scores in frame.tiles(y, y.square().sum(1) + offsets[start : start + count], -2.0):
            near, where = torch.topk(scores, min(keep, count), dim=1, largest=False)
            both = torch.cat([best[rows], near], 1)
            names = torch.cat([columns[rows], numbers[where]], 1)
            best[rows], order = torch.topk(both, keep, dim=1, largest=False)
            columns[rows] = names.gather(1, order)
    best += frame.square_norms.float()[:, None] - offsets[columns.long()]
    return best.clamp_min_(0).cpu(), columns.cpu()


def _chunks(
    proposal: GeneratorProposal, num_candidates: int, seed: int, stage: int, place: torch.device
) -> Iterator[tuple[int, Tensor]]:
    chunk = default_chunk(place)
    for start in range(0, num_candidates, chunk):
        yield start, chunk_candidates(proposal, start, min(chunk, num_candidates - start), seed, stage, place)
