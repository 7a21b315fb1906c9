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
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rcccodec.arithmetic import full_float32
from rcccodec.channel import fused
from rcccodec.channel.coarse import (
    CALIBRATION_COLUMNS,
    EXACT,
    CalibrationError,
    calibrate,
    coarse_precision,
)
from rcccodec.channel.distances import chunk_candidates, default_chunk
from rcccodec.channel.nominees import Nominees, lowest, merge
from rcccodec.channel.remake import exact_scores, remade_scores, winners
from rcccodec.channel.running import Running, TooClose
from rcccodec.channel.target import CostOfRange, Target, channel_target, cost_target
from rcccodec.channel.weights import Coder
from rcccodec.proposals import Proposal
from rcccodec.ranks import searching

Progress = Callable[[int, int], None]  # (candidates done, candidates in all)

_WORTH_CALIBRATING = 8 * CALIBRATION_COLUMNS  # candidates of a range


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


@full_float32()
def nominate(
    targets: Sequence[Target],
    start: int,
    stop: int,
    *,
    seed: int,
    stage: int = 0,
    chunk: int | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
) -> list[Nominees]:
    """The candidates start .. stop - 1 that may be the best of each target, made once for all targets.

    Args:
        targets: their proposals make the leading coordinates of the widest one's candidates, from the
            leading latents (one draw of a joint proposal).
        precision: float32, or bfloat16 for a coarse pass of candidates whose nominees are made again in
            float32; None: what is faster. The decision is the same.
        others: as in :func:`select_channel`; progress counts candidates from ``start``.

    Returns:
        Nominees a target; merged over ranges that make up 0 .. N - 1, they go to :func:`decide`.
    """
    place = torch.device(device)
    if fused.applies(targets, place):
        return fused.nominate_all(targets, start, stop, seed, stage, place, progress)
    proposal = max((target.proposal for target in targets), key=lambda one: one.dim)
    chunk = chunk or default_chunk(place, proposal.dim)
    make = partial(chunk_candidates, proposal, seed=seed, stage=stage, device=place)
    best = partial(winners, seed=seed, stage=stage, device=place)
    if precision is None:
        precision = coarse_precision(proposal, place)
    if precision != torch.float32 and stop - start >= _WORTH_CALIBRATING:
        try:
            running = [Running(target, place, best) for target in targets]
            return _coarse(running, start, stop, chunk, make, precision, seed, stage, place, progress)
        except CalibrationError:
            pass  # float32 needs none
    running = [Running(target, place, best) for target in targets]
    for first in range(start, stop, chunk):
        count = min(chunk, stop - first)
        y = make(first, count)
        for one in running:
            one.look(first, y)
        done = stop if all(one.done for one in running) else first + count
        _tell(progress, done - start, stop - start)
        if done == stop:
            break
    return [one.nominees for one in running]


def _coarse(
    running: Sequence[Running],
    start: int,
    stop: int,
    chunk: int,
    make: Callable[..., Tensor],
    precision: torch.dtype,
    seed: int,
    stage: int,
    place: torch.device,
    progress: Progress | None,
) -> list[Nominees]:
    """Nominees by way of candidates in reduced precision.

    Raises:
        CalibrationError: a nominee's coarse score was further off than is compatible with the calibration.
    """
    pair = [make(start, CALIBRATION_COLUMNS, dtype=dtype) for dtype in (precision, torch.float32)]
    errors = [calibrate(one.blocks, *map(one.centred, pair)) for one in running]
    remake = partial(remade_scores, seed=seed, stage=stage, device=place, dtype=torch.float32)
    for first in range(start, stop, chunk):
        count = min(chunk, stop - first)
        y = make(first, count, dtype=precision)
        for one, error in zip(running, errors, strict=True):
            try:
                one.look(first, y, EXACT if precision == torch.float32 else error)
            except TooClose:
                y, precision = make(first, count), torch.float32  # from here on, for all
                for each in running:
                    each.settle(remake)  # coarse errors would outlast the coarse pass
                one.look(first, y)
            if one.crowded:
                one.settle(remake)
        done = stop if all(one.done for one in running) else first + count
        _tell(progress, done - start, stop - start)
        if done == stop:
            break
    for one in running:
        one.settle(remake)
    return [one.nominees for one in running]


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


@full_float32()
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
        NoCandidate: some block has no candidate of finite score.
    """
    place, num_blocks = torch.device(device), len(target.x)
    nominees = nominees.pruned()
    doubtful = torch.bincount(nominees.rows, minlength=num_blocks)[nominees.rows] > 1
    if target.certifies:
        doubtful |= (nominees.scores - nominees.last).abs() <= nominees.errors
    scores = nominees.scores.clone()
    which = doubtful.nonzero()[:, 0]
    scores[which] = exact_scores(nominees.taken(which), target, seed=seed, stage=stage, device=place)
    best = lowest(nominees.rows, nominees.columns, scores, num_blocks)
    scores = scores[best]
    certified = scores <= nominees.last if target.certifies else torch.zeros(num_blocks, dtype=torch.bool)
    return Selection(nominees.columns[best], scores, certified)
