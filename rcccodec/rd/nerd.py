"""The NERD estimate of R(D) from a proposal: an upper bound on held-out blocks, with Monte-Carlo errors."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from rcccodec.channel.distances import CentredBlocks, chunk_candidates, default_chunk
from rcccodec.distortion import Distortion, parse_distortion
from rcccodec.proposals import Proposal
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.point import RatePoint, upper_point


def estimate_nerd(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    seeds: tuple[int, ...],
    stage: int = 0,
    device: str = "cpu",
    distortion: str = "mse",
) -> RatePoint:
    """L = -E_x log (1/N) sum_j exp(-beta d(x, y_j)), D = E_x sum_j w_j d_j, R = L - beta D (nats).

    nerd-rcc eq. 11 and 8, with w = softmax(-beta d) over the candidates.

    Args:
        x: (B, block_dim) float32 blocks that the proposal was not trained on.
        proposal: a GeneratorProposal, or any Proposal whose candidates are the blocks themselves.
        beta: slope, nats per unit of summed squared error.
        num_candidates: N, drawn anew for each of ``seeds``.
        distortion: ``mse``, or ``lp:P`` as in rcccodec.distortion.

    Returns:
        RatePoint; the codebooks' log sums are averaged, so Jensen's bias stays that of one codebook of N.

    Raises:
        ValueError: beta or N not positive, no blocks or no seeds. InputError: an unknown distortion.
    """
    if not 0 < beta < math.inf or num_candidates < 1 or not len(x) or not seeds:
        raise ValueError("estimate_nerd needs beta > 0 and at least one candidate, block and seed")
    began = time.perf_counter()
    measure = None if distortion == "mse" else parse_distortion(distortion)
    coordinates, left_out = x, torch.zeros(len(x), dtype=torch.float64)
    if isinstance(proposal, GeneratorProposal) and proposal.is_linear:
        if measure is None:
            coordinates = proposal.analyse(x)
            left_out = (x - proposal.synthesise(coordinates)).double().square().sum(1)
        else:
            proposal = _InPixels(proposal)
    log_means, distortions = zip(
        *(
            _one_codebook(coordinates, proposal, beta, num_candidates, seed, stage, device, measure)
            for seed in seeds
        ),
        strict=True,
    )
    d = torch.stack(distortions) + left_out  # (codebooks, B)
    lagrangian = -torch.stack(log_means) + beta * left_out
    return upper_point(
        "nerd", beta, lagrangian, d, num_samples=num_candidates, seconds=time.perf_counter() - began
    )


class _InPixels:
    """A linear generator whose candidates are blocks: other distortions do not survive a rotation."""

    def __init__(self, linear: GeneratorProposal) -> None:
        self.linear = linear
        self.dim, self.latent_dim = linear.block_dim, linear.latent_dim

    def candidates(self, z: Tensor) -> Tensor:
        return self.linear.synthesise(self.linear.candidates(z))


def _one_codebook(
    x: Tensor,
    proposal: Proposal,
    beta: float,
    num_candidates: int,
    seed: int,
    stage: int,
    device: str,
    measure: Distortion | None,
) -> tuple[Tensor, Tensor]:
    """ln (1/N) sum_j exp(-beta d_j) and the posterior mean of d, float64 (B,), streamed over candidates."""
    place = torch.device(device)
    frame = CentredBlocks(x, place)
    highest = torch.full((len(x),), -torch.inf, device=place)  # of the logits so far
    mass = torch.zeros(len(x), dtype=torch.float64, device=place)
    moment = torch.zeros(len(x), dtype=torch.float64, device=place)
    norms = frame.square_norms.float()[:, None]
    chunk = default_chunk(place)
    for start in range(0, num_candidates, chunk):
        count = min(chunk, num_candidates - start)
        y = frame.centre(chunk_candidates(proposal, start, count, seed, stage, place))
        for rows, scores in frame.tiles(y, y.square().sum(1), -2.0):
            distances = (scores + norms[rows]).clamp_min_(0) if measure is None else measure(frame.x[rows], y)
            top = torch.maximum(highest[rows], -beta * distances.amin(1))
            shrink = torch.exp(highest[rows] - top).double()
            weights = torch.exp(-beta * distances - top[:, None])
            mass[rows] = mass[rows] * shrink + weights.sum(1)
            moment[rows] = moment[rows] * shrink + (weights * distances).sum(1)
            highest[rows] = top
    log_mean = highest.double() + torch.log(mass) - math.log(num_candidates)
    return log_mean.cpu(), (moment / mass).cpu()
