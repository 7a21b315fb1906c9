"""Streaming search for the candidate that a block is sent as; memory does not grow with the candidates.

    nominate:  seed -> chunk of latents -> chunk of candidates -> one product with all blocks -> nominees
                                              (ln W_i, or the cost of index i) -^
    decide:    nominees -> made again alone, as a decoder makes them -> the best of every block

Reduced precision only nominates: every candidate within the error of the best stays, and where several do
the exact score decides. So the choice does not depend on the chunk, the tile, the number of threads, or on
how the candidates were divided into ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rcccodec.channel.distances import (
    CentredBlocks,
    candidates_at,
    chunk_candidates,
    default_chunk,
    squared_distances,
)
from rcccodec.channel.nominees import Nominees, lowest, merge
from rcccodec.channel.target import CostOfRange, Target, channel_target, cost_target, offsets_of
from rcccodec.channel.weights import Coder
from rcccodec.proposals import Proposal
from rcccodec.ranks import searching

Progress = Callable[[int, int], None]  # (candidates done, candidates in all)

_ROUNDING = 2.0**-18  # relative error allowed to a float32 score, generously
_TIES_KEPT = 8  # nominees a block keeps from one chunk, lowest indices first
_REMADE_AT_ONCE = 1024


@dataclass(frozen=True)
class Selection:
    """The chosen candidate of every block.

    indices: int64 (B,), 0-based. scores: float64 (B,), ``beta d + ln W`` (or ``beta d + cost``), in nats, to
    the accuracy of float32.
    certified: bool (B,), True where no candidate beyond the search can win (PFR only, else all False).
    """

    indices: Tensor
    scores: Tensor
    certified: Tensor


def select_channel(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    coder: Coder,
    seed: int,
    num_candidates: int,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Selection:
    """Simulate ``Q(y|x) ~ Q_Y(y) exp(-beta d(x, y))`` (NERD-RCC eq. 30, 36).

    ``k = argmin_i beta d(x, y_i) + ln W_i``, d the summed squared error.

    Args:
        x: float (B, dim), the source blocks.
        proposal: Q_Y; candidate i is made from latent i of stream ``stage``.
        beta: slope, nats per unit of summed squared error.
        coder: "pfr" or "orc".
        seed: common randomness; the arrival times of the encoder come from the same seed.
        num_candidates: N.
        stage: which stage of a successive code; its streams are disjoint from the others'.
        chunk: candidates a step; changes speed only.
        device: where candidates and scores are computed.
        progress: called after every chunk.

    Returns:
        Selection. The lowest index wins ties.

    A PFR choice is certified when ``ln W_N >= min_i (ln W_i + beta d_i)``: later weights are larger and
    d >= 0, so the search over the infinite process would end the same.
    """
    target = channel_target(
        x, proposal, beta=beta, coder=coder, seed=seed, num_candidates=num_candidates, stage=stage
    )
    return select([target], num_candidates, seed, stage, chunk, device, progress)[0]


def select_with_cost(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    cost_nats: Tensor | np.ndarray | CostOfRange,
    seed: int,
    num_candidates: int | None = None,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Selection:
    """Min-cost selection: k = argmin_i beta d(x, y_i) + cost_nats[i], cost = ln 2 * bits of index i.

    Any decoder of the same codebook reads the result, but the choice is a minimiser, not a sample of the
    channel.

    Args:
        cost_nats: float (N,); or a function (start, stop) -> float (stop - start,), which keeps memory
            independent of N and needs ``num_candidates``. +inf excludes a candidate.
        others: as in :func:`select_channel`.

    Returns:
        Selection; the lowest index wins ties; nothing is certified.
    """
    if callable(cost_nats):
        if num_candidates is None:
            raise ValueError("num_candidates is needed with a cost function")
        cost_of = cost_nats
    else:
        if num_candidates not in (None, len(cost_nats)):
            raise ValueError(f"{len(cost_nats)} costs for {num_candidates} candidates")
        whole, num_candidates = cost_nats, len(cost_nats)
        cost_of = lambda start, stop: whole[start:stop]  # noqa: E731
    target = cost_target(x, proposal, beta=beta, cost_nats=cost_of)
    return select([target], num_candidates, seed, stage, chunk, device, progress)[0]


def select(
    targets: Sequence[Target],
    num_candidates: int,
    seed: int,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> list[Selection]:
    """A Selection for every target from one pass over one codebook, shared by the ranks there are."""
    ranks = searching()
    start, stop = ranks.share(num_candidates)
    found = nominate(
        targets, start, stop, seed=seed, stage=stage, chunk=chunk, device=device, progress=progress
    )
    found = [merge(list(parts)) for parts in zip(*ranks.gather(found), strict=True)]
    return [
        decide(nominees, target, seed=seed, stage=stage, device=device)
        for nominees, target in zip(found, targets, strict=True)
    ]


def nominate(
    targets: Sequence[Target],
    start: int,
    stop: int,
    *,
    seed: int,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> list[Nominees]:
    """The candidates start .. stop - 1 that may be the best of each target, made once for all targets.

    Args:
        targets: their proposals make the leading coordinates of the widest one's candidates, from the
            leading latents (one draw of a joint proposal).
        others: as in :func:`select_channel`; progress counts candidates from ``start``.

    Returns:
        Nominees a target; merged over ranges that make up 0 .. N - 1, they go to :func:`decide`.
    """
    place = torch.device(device)
    chunk = chunk or default_chunk(place)
    proposal = max((target.proposal for target in targets), key=lambda one: one.dim)
    running = [_Running(target, place) for target in targets]
    for first in range(start, stop, chunk):
        count = min(chunk, stop - first)
        y = chunk_candidates(proposal, first, count, seed, stage, place)
        for one in running:
            one.look(first, y)
        if progress is not None:
            progress(first + count - start, stop - start)
    return [one.nominees for one in running]


def decide(
    nominees: Nominees,
    target: Target,
    *,
    seed: int,
    stage: int = 0,
    device: str | torch.device = "cpu",
) -> Selection:
    """The best candidate of every block of a target from the nominees of all candidates.

    Only blocks with several nominees left, or with a certificate in doubt, have theirs made again in float64.

    Raises:
        ValueError: some block has no candidate of finite score.
    """
    place, num_blocks = torch.device(device), len(target.x)
    nominees = nominees.pruned()
    doubtful = torch.bincount(nominees.rows, minlength=num_blocks)[nominees.rows] > 1
    if target.certifies:
        doubtful |= (nominees.scores - nominees.last).abs() <= nominees.errors
    scores = nominees.scores.clone()
    which = doubtful.nonzero()[:, 0]
    scores[which] = _remade(nominees.taken(which), target, seed, stage, place, torch.float64)
    best = lowest(nominees.rows, nominees.columns, scores, num_blocks)
    scores = scores[best]
    certified = scores <= nominees.last if target.certifies else torch.zeros(num_blocks, dtype=torch.bool)
    return Selection(nominees.columns[best], scores, certified)


def _remade(
    nominees: Nominees, target: Target, seed: int, stage: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Scores of the nominees from candidates made alone in ``dtype``, float64 (n,)."""
    unique, inverse = torch.unique(nominees.columns, return_inverse=True)
    order = torch.argsort(inverse, stable=True)
    scores = torch.empty(len(order), dtype=torch.float64)
    x, ends = target.x.cpu(), torch.bincount(inverse, minlength=len(unique)).cumsum(0)
    for first in range(0, len(unique), _REMADE_AT_ONCE):
        part = unique[first : first + _REMADE_AT_ONCE]
        with torch.no_grad():
            y = candidates_at(target.proposal, part.to(device), seed=seed, stage=stage, dtype=dtype).cpu()
        low, high = int(ends[first - 1]) if first else 0, int(ends[first + len(part) - 1])
        for which in order[low:high].split(_REMADE_AT_ONCE):
            far = squared_distances(x[nominees.rows[which]], y[inverse[which] - first])
            scores[which] = target.beta * far + nominees.offsets[which]
    return scores


class _Running:
    """One target while its candidates pass by."""

    def __init__(self, target: Target, device: torch.device) -> None:
        self.target, self.device = target, device
        self.nominees = Nominees.none(len(target.x))
        self._frame = CentredBlocks(target.x, device)
        self._norms = target.beta * self._frame.square_norms  # what the running scores leave out
        self._tolerance = (_ROUNDING * (1.0 + 4.0 * self._norms)).to(torch.float32)
        self._ceilings = torch.full_like(self._tolerance, torch.inf)
        self._fresh: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # rows, columns in chunk, score, error

    def look(self, start: int, y: Tensor) -> None:
        """At the candidates y (n, at least dim) from number ``start`` on."""
        beta, offsets = self.target.beta, offsets_of(self.target, start, start + len(y))
        y = self._frame.centre(y[:, : self.target.proposal.dim])
        row = beta * y.square().sum(dim=1) + offsets.to(self.device, torch.float32)
        for tile, scores in self._frame.tiles(y, row, -2.0 * beta):
            self._take(tile, scores)
        self._remember(start, offsets)

    def _take(self, rows: slice, scores: Tensor) -> None:
        """Look at one tile of scores, (blocks, candidates of the chunk)."""
        ceilings, tolerance = self._ceilings[rows], self._tolerance[rows]
        low = scores.amin(dim=1)
        error = tolerance + _ROUNDING * low.abs()
        live = ((low - error <= ceilings) & low.isfinite()).nonzero()[:, 0]
        if not live.numel():
            return
        ceilings[live] = torch.minimum(ceilings[live], (low + error)[live])
        error = tolerance[live, None] + _ROUNDING * scores[live].abs()
        close = scores[live] - error <= ceilings[live, None]
        close &= close.cumsum(dim=1, dtype=torch.int32) <= _TIES_KEPT
        close[torch.arange(live.numel(), device=live.device), scores[live].argmin(dim=1)] = True
        which, column = close.nonzero(as_tuple=True)
        row = live[which]
        parts = (row + rows.start, column, scores[row, column], error[which, column])
        self._fresh.append(tuple(part.cpu() for part in parts))

    def _remember(self, start: int, offsets: Tensor) -> None:
        """Close a chunk: attach exact offsets to its nominees and drop those that have fallen behind."""
        last = float(offsets[-1]) if self.target.rising else -torch.inf
        if not self._fresh:
            self.nominees = replace(self.nominees, last=last)
            return
        rows, columns, scores, errors = (torch.cat(parts) for parts in zip(*self._fresh, strict=True))
        self._fresh = []
        norms, ceilings = self._norms.cpu(), self._ceilings.cpu().double() + self._norms.cpu()
        fresh = Nominees(
            rows,
            columns + start,
            scores.double() + norms[rows],
            errors.double(),
            offsets[columns],
            ceilings,
            last,
        )
        self.nominees = merge([self.nominees, fresh]).pruned(4 * _TIES_KEPT)
