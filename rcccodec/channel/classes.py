"""Min-cost selection for codes that give all indices of a class one length: one pass over the candidates.

    best_per_class: (blocks, candidates) -> nearest candidate of every class      the only pass, streamed
    select_mincost: choose the class, refit the lengths, again until nothing changes      on (B, C) numbers

Within a class the nearest candidate is also the cheapest, so nothing is lost by keeping one of each.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rcccodec.arithmetic import full_float32
from rcccodec.channel.distances import (
    CentredBlocks,
    chunk_candidates,
    default_chunk,
    squared_distances,
)
from rcccodec.channel.search import Progress
from rcccodec.proposals import Proposal


@dataclass(frozen=True)
class MinCostChoice:
    """What min-cost selection settled on.

    indices, classes: int64 (B,). distortion: float64 (B,), summed squared error.
    lengths_bits: float64 (C,), of one index in each class, the lengths the choice was made with.
    rounds: choices made. settled: False if the limit on rounds ended it.
    """

    indices: Tensor
    classes: Tensor
    distortion: Tensor
    lengths_bits: np.ndarray
    rounds: int
    settled: bool


@full_float32()
def best_per_class(
    x: Tensor,
    proposal: Proposal,
    *,
    class_starts: np.ndarray | Tensor,
    num_candidates: int,
    seed: int,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """The nearest candidate of every index class.

    Args:
        x: float (B, dim).
        class_starts: int (C,), 0-based first index of each class, increasing from 0; class c ends where c + 1
            starts, the last at ``num_candidates``.
        others: as in :func:`rcccodec.channel.search.select_channel`.

    Returns:
        indices int64 (B, C) and summed squared error float64 (B, C), on the CPU; lowest index at ties.
    """
    starts = [int(s) for s in class_starts]
    if starts[:1] != [0] or any(a >= b for a, b in zip(starts, [*starts[1:], num_candidates], strict=True)):
        raise ValueError("class_starts must rise from 0 to below num_candidates")
    place = torch.device(device)
    chunk = chunk or default_chunk(place)
    frame = CentredBlocks(x, place)
    source = x.to(place, torch.float32)
    indices = torch.zeros(x.shape[0], len(starts), dtype=torch.int64, device=place)
    distortion = torch.full((x.shape[0], len(starts)), torch.inf, dtype=torch.float64, device=place)
    for start in range(0, num_candidates, chunk):
        stop = min(start + chunk, num_candidates)
        y = chunk_candidates(proposal, start, stop - start, seed, stage, place)
        y_centred = frame.centre(y)
        for rows, scores in frame.tiles(y_centred, y_centred.square().sum(dim=1), -2.0):
            for c, (low, high) in enumerate(zip(starts, [*starts[1:], num_candidates], strict=True)):
                first, end = max(low, start), min(high, stop)
                if first >= end:
                    continue
                column = scores[:, first - start : end - start].argmin(dim=1) + (first - start)
                exact = squared_distances(source[rows], y[column])  # by differences: no cancellation
                better = exact < distortion[rows, c]
                distortion[rows, c] = torch.where(better, exact, distortion[rows, c])
                indices[rows, c] = torch.where(better, column + start, indices[rows, c])
        if progress is not None:
            progress(stop, num_candidates)
    return indices.cpu(), distortion.cpu()


def select_mincost(
    indices: Tensor,
    distortion: Tensor,
    lengths_bits: np.ndarray | Tensor,
    *,
    beta: float,
    class_sizes: np.ndarray | Tensor,
    refit: bool = True,
    smoothing: float = 1.0,
    max_rounds: int = 200,
) -> MinCostChoice:
    """argmin_c beta d(b, c) + ln 2 * len(c) for every block, len refitted to the choice until it settles.

    ``len(c) = -log2 p(c) + log2 size(c)`` with ``p(c) ~ count(c) + smoothing``. Each half-step lowers
    ``sum_b (beta d + ln2 len) - smoothing sum_c ln p(c)``, so the iteration ends.

    Args:
        indices, distortion: (B, C) of :func:`best_per_class`.
        lengths_bits: float (C,), bits of one index of each class, to begin with.
        beta: nats per unit of summed squared error.
        class_sizes: int (C,).
        refit: False keeps ``lengths_bits``: one choice, for a code that is already fixed.
        smoothing: pseudo-count of every class, > 0.

    Returns:
        MinCostChoice; the lowest class wins ties.
    """
    sizes = torch.as_tensor(np.asarray(class_sizes), dtype=torch.float64)
    lengths = torch.as_tensor(np.asarray(lengths_bits), dtype=torch.float64)
    cost = beta * distortion
    previous, rounds, settled = None, 0, False
    while rounds < max_rounds and not settled:
        classes = torch.argmin(cost + math.log(2.0) * lengths, dim=1)
        rounds += 1
        settled = not refit or (previous is not None and torch.equal(classes, previous))
        previous = classes
        if not settled and rounds < max_rounds:
            weights = torch.bincount(classes, minlength=sizes.numel()).to(torch.float64) + smoothing
            lengths = torch.log2(weights.sum() / weights) + torch.log2(sizes)
    pick = classes[:, None]
    return MinCostChoice(
        indices.gather(1, pick)[:, 0],
        classes,
        distortion.gather(1, pick)[:, 0],
        lengths.numpy(),
        rounds,
        settled,
    )
