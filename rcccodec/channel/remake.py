"""Candidates of any numbers made again alone, as a decoder makes them, and their scores."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import blake2b

import torch
from torch import Tensor

from rcccodec.channel.distances import candidates_at, squared_distances
from rcccodec.channel.nominees import Nominees, lowest
from rcccodec.channel.target import Target
from rcccodec.threads import one_thread

_AT_ONCE, _VALUES_AT_ONCE = 1024, 1 << 22
_LAST_BITS = 2.0**-36  # of a score; what float64 leaves open is far less


def remade_scores(
    nominees: Nominees, target: Target, *, seed: int, stage: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Scores of the nominees from candidates made in ``dtype``, each once; float64 (n,) on the CPU."""
    unique, inverse = torch.unique(nominees.columns, return_inverse=True)
    order = torch.argsort(inverse, stable=True)
    scores = torch.empty(len(order), dtype=torch.float64)
    x, ends = target.x.cpu(), torch.bincount(inverse, minlength=len(unique)).cumsum(0)
    at_once = _rows_at_once(target)
    for first in range(0, len(unique), at_once):
        part = unique[first : first + at_once].to(device)
        with torch.no_grad():
            y = candidates_at(target.proposal, part, seed=seed, stage=stage, dtype=dtype).cpu()
        low, high = int(ends[first - 1]) if first else 0, int(ends[first + len(part) - 1])
        for which in order[low:high].split(at_once):
            far = squared_distances(x[nominees.rows[which]], y[inverse[which] - first])
            scores[which] = target.beta * far + nominees.offsets[which]
    return scores


def exact_scores(
    nominees: Nominees, target: Target, *, seed: int, stage: int, device: torch.device
) -> Tensor:
    """Float64 scores of the nominees, float64 (n,), whose order does not depend on what is made beside them.

    The last bits of a candidate may, and on the number of threads. Where they could decide a block, its
    candidates are made one by one.
    """
    make = partial(remade_scores, target=target, seed=seed, stage=stage, device=device, dtype=torch.float64)
    scores = make(nominees)
    slack = _LAST_BITS * (1.0 + target.beta + scores.abs() + nominees.offsets.abs())
    least = torch.full((len(target.x),), torch.inf, dtype=torch.float64)
    least.scatter_reduce_(0, nominees.rows, scores + slack, "amin")
    near = scores - slack <= least[nominees.rows]
    several = torch.bincount(nominees.rows[near], minlength=len(target.x)) > 1
    (tied,) = (near & several[nominees.rows]).nonzero(as_tuple=True)
    with one_thread():
        for column in torch.unique(nominees.columns[tied]):
            which = tied[nominees.columns[tied] == column]
            scores[which] = make(nominees.taken(which))
    return scores


def winners(nominees: Nominees, target: Target, *, seed: int, stage: int, device: torch.device) -> Nominees:
    """The best nominee of every block that has any, with its float64 score; lowest column at ties."""
    columns, inverse = torch.unique(nominees.columns, return_inverse=True)
    offsets = torch.empty(len(columns), dtype=torch.float64).scatter_(0, inverse, nominees.offsets)
    left = nominees.taken(_distinct(columns, offsets, target, seed, stage, device)[inverse])
    scores = exact_scores(left, target, seed=seed, stage=stage, device=device)
    blocks, rows = torch.unique(left.rows, return_inverse=True)
    left = replace(left, scores=scores, errors=torch.zeros_like(scores))
    return left.taken(lowest(rows, left.columns, scores, len(blocks)))


def _distinct(
    columns: Tensor, offsets: Tensor, target: Target, seed: int, stage: int, device: torch.device
) -> Tensor:
    """bool (n,), False where an earlier candidate is the same and its offset no higher."""
    lowest_offset: dict[bytes, float] = {}
    keep = torch.ones(len(columns), dtype=torch.bool)
    at_once = _rows_at_once(target)
    for first in range(0, len(columns), at_once):
        part = columns[first : first + at_once].to(device)
        with torch.no_grad():
            y = candidates_at(target.proposal, part, seed=seed, stage=stage)[:, : target.x.shape[1]].cpu()
        for place, row in enumerate(y.contiguous().numpy(), first):
            name = blake2b(row.tobytes(), digest_size=16).digest()
            offset = float(offsets[place])
            keep[place] = offset < lowest_offset.get(name, torch.inf)
            lowest_offset[name] = min(offset, lowest_offset.get(name, torch.inf))
    return keep


def _rows_at_once(target: Target) -> int:
    """Candidates, or blocks beside them, in memory at a time."""
    return min(_AT_ONCE, max(1, _VALUES_AT_ONCE // target.proposal.dim))
