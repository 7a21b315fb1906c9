"""The index codes of a trained stage, fitted on training blocks and stored in the bundle as integers."""

from __future__ import annotations

import math

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

NEAREST = 384  # candidates kept per training block while a prior is learnt
SOFT_STEPS, HARD_STEPS = 60, 12
PSEUDO_COUNT = 0.05


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

    ``coordinates`` (n, dim) are split evenly over ``seeds``.  Min-cost lengths are refitted until they settle.

    Returns:
        {"pfr": frequencies, "orc": ..., "mincost": ...} as FittedCode takes them.
    """
    parts = list(zip(seeds, coordinates.chunk(len(seeds)), strict=True))
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
    Only each block's ``NEAREST`` nearest candidates take part: the others' weights vanish.

    Returns:
        uint8 (N,) levels as CodebookPrior takes them.
    """
    distances, columns = _nearest(coordinates, proposal, num_candidates, stage, seed, device)
    logits = -beta * (distances - distances[:, :1])
    log_w = torch.zeros(num_candidates)
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


def _nearest(
    x: Tensor, proposal: GeneratorProposal, num_candidates: int, stage: int, seed: int, device: str
) -> tuple[Tensor, Tensor]:
    """Squared distances (float32, ascending) and indices (int32) of each block's nearest candidates, (B, NEAREST)."""
    place = torch.device(device)
    frame = CentredBlocks(x, place)
    keep = min(NEAREST, num_candidates)
    best = torch.full((len(x), keep), torch.inf, device=place)
    columns = torch.zeros((len(x), keep), dtype=torch.int32, device=place)
    chunk = default_chunk(place)
    for start in range(0, num_candidates, chunk):
        count = min(chunk, num_candidates - start)
        y = frame.centre(chunk_candidates(proposal, start, count, seed, stage, place))
        numbers = torch.arange(start, start + count, dtype=torch.int32, device=place)
        for rows, scores in frame.tiles(y, y.square().sum(1), -2.0):
            near, where = torch.topk(scores, min(keep, count), dim=1, largest=False)
            both = torch.cat([best[rows], near], 1)
            names = torch.cat([columns[rows], numbers[where]], 1)
            best[rows], order = torch.topk(both, keep, dim=1, largest=False)
            columns[rows] = names.gather(1, order)
    best += frame.square_norms.float()[:, None]
    return best.clamp_min_(0).cpu(), columns.cpu()
