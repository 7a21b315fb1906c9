"""What any one-shot simulation of a channel must spend, and what one is known to get by with.

    D_CS(Q || P)  <=  least expected bits  <=  I + log2(I + 3.4) + 1  <=  R + log2(R + 1) + 5

The last is NERD-RCC eq. 25 (`rcccodec.report.guarantee_bits`), the one before arXiv 2501.13736, the first the
channel-simulation divergence of arXiv 2401.16579.
"""

import math

import torch
from torch import Tensor

from rcccodec.channel.distances import chunk_candidates, default_chunk
from rcccodec.proposals import Proposal

_ROWS = 64  # blocks whose weights are sorted at a time


def sharper_bound_bits(rate_bits: float) -> float:
    """I + log2(I + 3.4) + 1, which the index entropy of some exact simulation keeps to (arXiv 2501.13736)."""
    return rate_bits + math.log2(rate_bits + 3.4) + 1


def simulation_divergence_bits(weights: Tensor) -> Tensor:
    """D_CS = -int_0^inf w(h) log2 w(h) dh, w(h) = P_{Z~P}[dQ/dP(Z) >= h], for P uniform on N candidates.

    Args:
        weights: float (B, N), rows of Q that sum to 1, so that dQ/dP = N Q; in any order.

    Returns:
        float64 (B,), bits.

    Invariants: at least the divergence KL(Q || P); log2(N / m) for Q uniform on m candidates.
    """
    num_candidates = weights.shape[1]
    falling = weights.double().sort(dim=1, descending=True).values * num_candidates
    steps = falling - torch.nn.functional.pad(falling[:, 1:], (0, 1))
    share = torch.arange(1, num_candidates + 1, dtype=torch.float64, device=weights.device) / num_candidates
    return -(steps * (share * share.log2())).sum(1)


def divergence_bits(weights: Tensor) -> Tensor:
    """KL(Q || P) in bits, float64 (B,), for the same Q and P."""
    exact = weights.double()
    return (torch.special.xlogy(exact, exact * weights.shape[1])).sum(1) / math.log(2)


def estimate_floor_excess(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    seed: int,
    stage: int = 0,
    device: str = "cpu",
) -> Tensor:
    """D_CS - KL of every block: bits above R that no simulation of its channel can save.

    The channel is the softmax of -beta d(x, y_j) over the codebook, as in `rcccodec.rd.nerd`; like R, the
    answer is that of N candidates and means little where log2 N - R is small.

    Args:
        x: float32 (B, dim), in the coordinates of the proposal.
        proposal: Q_Y; all N candidates are held in memory.
        beta: slope, nats per unit of summed squared error.

    Returns:
        float64 (B,), bits, on the CPU.
    """
    place = torch.device(device)
    chunk = default_chunk(place)
    starts = range(0, num_candidates, chunk)
    y = torch.cat(
        [
            chunk_candidates(proposal, a, min(chunk, num_candidates - a), seed, stage, place).float()
            for a in starts
        ]
    )
    centre = y.mean(0)
    y = y - centre
    row = -beta * y.square().sum(1)
    excess = []
    for rows in (x.to(place) - centre).split(_ROWS):
        weights = torch.softmax(torch.addmm(row, rows, y.T, alpha=2 * beta), dim=1)
        excess.append((simulation_divergence_bits(weights) - divergence_bits(weights)).cpu())
    return torch.cat(excess)
