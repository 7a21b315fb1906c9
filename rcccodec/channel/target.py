"""What a search is for: blocks, the slope, and what each candidate costs besides its distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rcccodec.channel.weights import Coder, LogWeights
from rcccodec.proposals import Proposal

CostOfRange = Callable[[int, int], Tensor | np.ndarray]  # (start, stop) -> nats, (stop - start,)


@dataclass(frozen=True)
class Target:
    """Find ``argmin_i beta d(x, y_i) + offset_i`` for every row of x, lowest index at ties.

    x: float (B, proposal.dim). beta: nats per unit of summed squared error.
    offsets: nats of a range of candidates; +inf excludes one.
    proposal: makes the candidates of this target, alone when they are made again.
    rising: the offsets never fall as i grows.
    certifies: offsets of a process that has no end, so that a choice can be certified.
    """

    x: Tensor
    beta: float
    offsets: CostOfRange
    proposal: Proposal
    rising: bool = False
    certifies: bool = False


def channel_target(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    coder: Coder,
    seed: int,
    num_candidates: int,
    stage: int = 0,
) -> Target:
    """Simulation of ``Q(y|x) ~ Q_Y(y) exp(-beta d(x, y))``: offset_i = ln W_i (NERD-RCC eq. 30, 36)."""
    weights = LogWeights(coder, num_candidates, seed=seed, stage=stage)
    return Target(x, beta, weights, proposal, rising=True, certifies=coder == "pfr")


def cost_target(x: Tensor, proposal: Proposal, *, beta: float, cost_nats: CostOfRange) -> Target:
    """Min-cost selection: offset_i = ln 2 * bits of index i."""
    return Target(x, beta, cost_nats, proposal)


def offsets_of(target: Target, start: int, stop: int) -> Tensor:
    """Offsets of candidates start .. stop - 1, float64 (stop - start,), on the CPU."""
    return torch.as_tensor(target.offsets(start, stop), dtype=torch.float64, device="cpu")
