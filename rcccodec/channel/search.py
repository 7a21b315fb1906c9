"""Streaming search for the candidate that a block is sent as; memory does not grow with the candidates.

    seed -> chunk of latents -> chunk of candidates -> one matrix product with all blocks -> running minimum
                                                   (ln W_i, or the cost of index i) -^

The product is float32 and only nominates: every nominee within its rounding error of the best is made again
alone in float64, as a decoder makes it, and the exact score decides. So the choice does not depend on the
chunk, the tile or the number of threads.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rcccodec.channel.distances import (
    CentredBlocks,
    chunk_candidates,
    default_chunk,
    exact_candidates,
    squared_distances,
)
from rcccodec.channel.weights import Coder, log_weights
from rcccodec.proposals import Proposal

Progress = Callable[[int, int], None]  # (candidates done, candidates in all)
CostOfRange = Callable[[int, int], Tensor | np.ndarray]  # (start, stop) -> nats, (stop - start,)

_ROUNDING = 2.0**-18  # relative error allowed to a float32 score, generously
_TIES_KEPT = 8  # nominees a block keeps from one chunk, lowest indices first


@dataclass(frozen=True)
class Selection:
    """The chosen candidate of every block.

    indices: int64 (B,), 0-based. scores: float64 (B,), ``beta d + ln W`` (or ``beta d + cost``), in nats.
    certified: bool (B,), True where no candidate beyond the search can win (PFR only, else all False).
    All on the CPU.
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
    chunk = chunk or default_chunk(device)
    weights = log_weights(coder, num_candidates, seed=seed, stage=stage, chunk=chunk)
    indices, scores, last = _search(
        x, proposal, beta, weights, seed, stage, num_candidates, torch.device(device), progress
    )
    certified = scores <= last if coder == "pfr" else torch.zeros_like(scores, dtype=torch.bool)
    return Selection(indices, scores, certified)


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
    pieces = _cost_pieces(cost_of, num_candidates, chunk or default_chunk(device))
    indices, scores, _ = _search(
        x, proposal, beta, pieces, seed, stage, num_candidates, torch.device(device), progress
    )
    return Selection(indices, scores, torch.zeros_like(scores, dtype=torch.bool))


def _cost_pieces(cost_of: CostOfRange, num_candidates: int, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, num_candidates, chunk):
        cost = cost_of(start, min(start + chunk, num_candidates))
        yield start, torch.as_tensor(cost, dtype=torch.float64, device="cpu")


def _search(
    x: Tensor,
    proposal: Proposal,
    beta: float,
    offsets: Iterable[tuple[int, Tensor]],
    seed: int,
    stage: int,
    num_candidates: int,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Tensor, Tensor, float]:
    """argmin_i beta d(x, y_i) + offset_i; returns (indices, scores, the last offset)."""
    frame = CentredBlocks(x, device)
    nominees = _Nominees(_ROUNDING * (1.0 + 4.0 * beta * frame.square_norms))
    last = -np.inf
    for start, offset in offsets:
        y = chunk_candidates(proposal, start, offset.numel(), seed, stage, device)
        y_centred = frame.centre(y)
        row = beta * y_centred.square().sum(dim=1) + offset.to(device, torch.float32)
        for tile, scores in frame.tiles(y_centred, row, -2.0 * beta):
            nominees.take(tile, scores)
        last = float(offset[-1])
        nominees.remember(start, offset)
        if progress is not None:
            progress(start + offset.numel(), num_candidates)
    rows, columns, cost = nominees.merged()
    unique, inverse = torch.unique(columns, return_inverse=True)
    made = exact_candidates(proposal, unique, seed, stage, device)
    exact = beta * squared_distances(x.cpu()[rows], made[inverse]) + cost
    return *_lowest(rows, columns, exact, x.shape[0]), last


class _Nominees:
    """Per block, the candidates whose float32 score is within its rounding error of the best so far."""

    def __init__(self, tolerance: Tensor) -> None:
        self._tolerance = tolerance.to(torch.float32)
        self._best = torch.full_like(self._tolerance, torch.inf)
        self._fresh: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, columns in chunk, score
        self._rows = torch.empty(0, dtype=torch.int64)
        self._columns = torch.empty(0, dtype=torch.int64)
        self._approximate = torch.empty(0, dtype=torch.float32)
        self._cost = torch.empty(0, dtype=torch.float64)

    def take(self, rows: slice, scores: Tensor) -> None:
        """Look at one tile of scores, (blocks, candidates of the chunk)."""
        low, where = scores.min(dim=1)
        best = self._best[rows]
        slack = self._tolerance[rows] + _ROUNDING * torch.minimum(low, best).abs()
        live = ((low <= best + slack) & low.isfinite()).nonzero()[:, 0]
        torch.minimum(best, low, out=best)
        if not live.numel():
            return
        close = scores[live] <= (best + slack)[live, None]
        close &= close.cumsum(dim=1, dtype=torch.int32) <= _TIES_KEPT
        close[torch.arange(live.numel(), device=live.device), where[live]] = True
        which, column = close.nonzero(as_tuple=True)
        row = live[which]
        self._fresh.append(((row + rows.start).cpu(), column.cpu(), scores[row, column].cpu()))

    def remember(self, start: int, offset: Tensor) -> None:
        """Close a chunk: attach exact offsets to its nominees and drop those that have fallen behind."""
        if not self._fresh:
            return
        rows, columns, approximate = (torch.cat(parts) for parts in zip(*self._fresh, strict=True))
        self._fresh = []
        self._rows = torch.cat([self._rows, rows])
        self._columns = torch.cat([self._columns, columns + start])
        self._approximate = torch.cat([self._approximate, approximate])
        self._cost = torch.cat([self._cost, offset[columns]])
        best = self._best.cpu()[self._rows]
        slack = self._tolerance.cpu()[self._rows] + _ROUNDING * best.abs()
        self._keep((self._approximate <= best + slack).nonzero()[:, 0])
        self._keep(_first_of_each(self._rows, self._columns, 4 * _TIES_KEPT))

    def merged(self) -> tuple[Tensor, Tensor, Tensor]:
        """(block rows, candidate indices, exact offsets) of all that are left."""
        return self._rows, self._columns, self._cost

    def _keep(self, which: Tensor) -> None:
        self._rows, self._columns = self._rows[which], self._columns[which]
        self._approximate, self._cost = self._approximate[which], self._cost[which]


def _first_of_each(rows: Tensor, columns: Tensor, limit: int) -> Tensor:
    """Positions that keep at most ``limit`` entries a row, lowest columns first."""
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    counts = torch.bincount(rows)
    rank = torch.arange(rows.numel()) - (counts.cumsum(0) - counts)[rows[order]]
    return order[rank < limit]


def _lowest(rows: Tensor, columns: Tensor, scores: Tensor, num_blocks: int) -> tuple[Tensor, Tensor]:
    """Per row the smallest score, lowest column at ties."""
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(scores[order], stable=True)]
    order = order[torch.argsort(rows[order], stable=True)]
    first = torch.ones(order.numel(), dtype=torch.bool)
    first[1:] = rows[order][1:] != rows[order][:-1]
    winners = order[first]
    if winners.numel() != num_blocks:
        raise ValueError("some block has no candidate of finite score")
    return columns[winners], scores[winners]
