"""Candidates of any numbers made again alone, as a decoder makes them, and their scores."""

from __future__ import annotations

import torch
from torch import Tensor

from rcccodec.channel.distances import candidates_at, squared_distances
from rcccodec.channel.nominees import Nominees
from rcccodec.channel.target import Target

_AT_ONCE = 1024


def remade_scores(
    nominees: Nominees, target: Target, *, seed: int, stage: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Scores of the nominees from candidates made in ``dtype``, each once; float64 (n,) on the CPU."""
    unique, inverse = torch.unique(nominees.columns, return_inverse=True)
    order = torch.argsort(inverse, stable=True)
    scores = torch.empty(len(order), dtype=torch.float64)
    x, ends = target.x.cpu(), torch.bincount(inverse, minlength=len(unique)).cumsum(0)
    for first in range(0, len(unique), _AT_ONCE):
        part = unique[first : first + _AT_ONCE].to(device)
        with torch.no_grad():
            y = candidates_at(target.proposal, part, seed=seed, stage=stage, dtype=dtype).cpu()
        low, high = int(ends[first - 1]) if first else 0, int(ends[first + len(part) - 1])
        for which in order[low:high].split(_AT_ONCE):
            far = squared_distances(x[nominees.rows[which]], y[inverse[which] - first])
            scores[which] = target.beta * far + nominees.offsets[which]
    return scores
