"""One target while its candidates pass by: the lowest score of every block so far, and what may beat it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rcccodec.channel.coarse import EXACT, SUSPECT, CalibrationError, CoarseError
from rcccodec.channel.distances import CentredBlocks, score_tiles
from rcccodec.channel.nominees import Nominees, merge
from rcccodec.channel.screen import Screen, at_most, products_at
from rcccodec.channel.target import Target, offsets_of

ROUNDING = 2.0**-18  # relative error allowed to a float32 score, generously
TIES_KEPT = 8  # nominees a block keeps from one piece, lowest indices first
_COARSE_KEPT = 16  # and on average where precision is reduced; more call for float32
_FIRST_PIECE = 512  # candidates scored in full before a bound is worth trying
_SCREENED_BLOCKS, _SCREENED_DIMS = 128, 64  # fewer are scored in full
_SCREEN_SCORES = 1 << 20  # a tile of bounds: they are read again at once
_CROWD = 64  # nominees a block, on average
_DROPPED_SHARE = 0.25  # of the blocks; certified ones leave the product when they are so many


class TooClose(Exception):
    """So many candidates are within the error of the best that reduced precision saves nothing."""


class Running:
    """The nominees of a target among the candidates shown to it.

    Scores here leave out ``beta |x|^2``, x centred, which does not change the order. ``ceilings``: no less
    than the exact score of the block's best candidate so far.
    """

    def __init__(self, target: Target, device: torch.device) -> None:
        self.target, self.device, self.error = target, device, EXACT
        self.nominees = Nominees.none(len(target.x))
        self.scored = self.seen = 0  # pairs
        self._frame = CentredBlocks(target.x, device)
        self._rows = torch.arange(len(target.x), device=device)  # blocks that are not done
        self._exact_norms = target.beta * self._frame.square_norms.cpu()
        self._norms = (target.beta * self._frame.square_norms).to(torch.float32)
        self._tolerance = ROUNDING * (1.0 + 4.0 * self._norms)
        self._ceilings = torch.full_like(self._tolerance, torch.inf)
        self._all_ceilings = torch.full((len(target.x),), torch.inf, dtype=torch.float64)
        self._fresh: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # rows, columns in chunk, score, error
        large = len(target.x) >= _SCREENED_BLOCKS and target.x.shape[1] >= _SCREENED_DIMS
        self._screened = device.type == "cpu" and large
        self._screen: Screen | None = None
        self._width, self._phi, self._next_try, self._shown = 0, self._frame.x, _FIRST_PIECE, 0

    @property
    def done(self) -> bool:
        """No later candidate can win any block."""
        return len(self._rows) == 0

    def centred(self, y: Tensor) -> Tensor:
        """The coordinates of candidates that this target compares, in the frame of its blocks."""
        return self._frame.centre(y[:, : self.target.proposal.dim].to(torch.float32))

    @property
    def blocks(self) -> Tensor:
        """Blocks that are not done, centred, float32 (n, dim)."""
        return self._frame.x

    def look(self, start: int, y: Tensor, error: CoarseError = EXACT) -> None:
        """At the candidates y (n, at least dim) from number ``start`` on, made with this ``error``.

        Raises:
            TooClose: nothing of y has been taken in; show it again in float32.
        """
        if self.done:
            return
        self.error = error
        offsets = offsets_of(self.target, start, start + len(y))
        kept = self._ceilings.clone()
        try:
            self._look(y, offsets)
        except TooClose:
            self._fresh, self._ceilings = [], kept
            raise
        self._remember(start, offsets)
        if self.target.rising:
            self._drop_done(float(offsets[-1]))

    @property
    def crowded(self) -> bool:
        """So many nominees that they should be settled before there are more."""
        return len(self.nominees.rows) > _CROWD * (len(self.target.x) + 1024)

    def settle(self, remake: Callable[[Nominees, Target], Tensor]) -> None:
        """Give nominees their float32 scores, ``remake`` of them, and drop those that have fallen behind.

        Raises:
            CalibrationError: a score was off by nearly as much as was allowed for, so another may be by more.
        """
        old = self.nominees
        scores = remake(old, self.target)
        if bool(((scores - old.scores).abs() > SUSPECT * old.errors).any()):
            raise CalibrationError
        errors = ROUNDING * (1.0 + 4.0 * self._exact_norms[old.rows] + scores.abs())
        ceilings = old.ceilings.scatter_reduce(0, old.rows, scores + errors, "amin")
        settled = replace(old, scores=scores, errors=errors, ceilings=ceilings)
        self.nominees = settled.pruned(4 * TIES_KEPT)
        self._all_ceilings = ceilings.clone()

    def _look(self, y: Tensor, offsets: Tensor) -> None:
        """Piece by piece: the first ones short, since a bound needs something to compare with."""
        first = 0
        while first < len(y):
            last = min(len(y), first + max(_FIRST_PIECE, self._shown)) if self._screened else len(y)
            self._piece(first, self.centred(y[first:last]), offsets[first:last].to(self.device))
            self._shown += last - first
            first = last

    def _piece(self, first: int, y: Tensor, offsets: Tensor) -> None:
        beta = self.target.beta
        floor = float(offsets.min())
        square_norms = torch.linalg.vector_norm(y, dim=1).square_()
        row = beta * square_norms + offsets.to(torch.float32)
        self.seen += len(self._frame.x) * len(y)
        if self._screened and self._shown >= self._next_try:
            self._choose_width(y, row, floor)
        if self._width:
            self._screened_scores(first, y, square_norms, row, offsets, floor)
            return
        self.scored += len(self._frame.x) * len(y)
        for tile, scores in self._frame.tiles(y, row, -2.0 * beta):
            self._take(tile, first, scores, offsets, floor)

    def _take(self, tile: slice, first: int, scores: Tensor, offsets: Tensor, floor: float) -> None:
        """Look at one tile of scores, (blocks, candidates of the piece)."""
        low = scores.amin(dim=1)
        live = (low.isfinite() & (low - self._errors(tile, low, floor) <= self._reach(tile, floor))).nonzero()
        live = live[:, 0]
        if not live.numel():
            return
        rows = live + tile.start
        self._ceilings[rows] = torch.minimum(
            self._ceilings[rows], low[live] + self._errors(rows, low[live], floor)
        )
        scores = scores[live]
        close = scores <= self._reach(rows, floor)[:, None]
        if self.error.reach:
            if int(close.sum()) > _COARSE_KEPT * (len(live) + 64):
                raise TooClose
        else:
            close &= close.cumsum(dim=1, dtype=torch.int32) <= TIES_KEPT
            close[torch.arange(live.numel(), device=live.device), scores.argmin(dim=1)] = True
        which, column = close.nonzero(as_tuple=True)
        self._keep(rows[which], column, first, scores[which, column], offsets)

    def _screened_scores(
        self, first: int, y: Tensor, square_norms: Tensor, row: Tensor, offsets: Tensor, floor: float
    ) -> None:
        """The same for the pairs that the bound leaves."""
        assert self._screen is not None
        scale, phi = -2.0 * self.target.beta, self._screen.phi(y, square_norms, self._width)
        for tile, bounds in score_tiles(self._phi, phi, row, scale, self._frame.buffer, _SCREEN_SCORES):
            rows, columns = at_most(bounds, self._reach(tile, floor))
            if not rows.numel():
                continue
            self.scored += len(rows)
            scores = row[columns] + scale * products_at(self._frame.x[tile], y, rows, columns)
            low = scores.new_full((len(bounds),), torch.inf).scatter_reduce_(0, rows, scores, "amin")
            rows = rows + tile.start
            better = torch.minimum(self._ceilings[tile], low + self._errors(tile, low, floor))
            self._ceilings[tile] = torch.where(low.isfinite(), better, self._ceilings[tile])
            close = (scores.isfinite() & (scores <= self._reach(rows, floor))).nonzero()[:, 0]
            if len(close) > _COARSE_KEPT * (len(bounds) + 64):
                if self.error.reach:
                    raise TooClose
                self._width = 0  # ties: the full product keeps but the first of them
            self._keep(rows[close], columns[close], first, scores[close], offsets)

    def _choose_width(self, y: Tensor, row: Tensor, floor: float) -> None:
        if self._screen is None:
            self._screen = Screen(self._frame.x)
        every = slice(0, len(self._frame.x))
        width = self._screen.best_width(
            self._frame.x, y, row, -2.0 * self.target.beta, self._reach(every, floor)
        )
        if width != self._width:
            self._width = width
            norms = self._frame.square_norms.to(torch.float32)
            self._phi = self._screen.phi(self._frame.x, norms, width) if width else self._frame.x
        self._next_try = 2 * self._shown

    def _errors(self, rows: slice | Tensor, scores: Tensor, floor: float | Tensor) -> Tensor:
        """Bounds on the errors of scores whose offsets are ``floor`` or more."""
        beta = self.target.beta
        rounding = self._tolerance[rows] + ROUNDING * scores.abs()
        if not self.error.reach:
            return rounding
        distance = (scores + rounding + self._norms[rows] - floor) / beta
        return rounding + beta * self.error.of_distance(distance)

    def _reach(self, rows: slice | Tensor, floor: float) -> Tensor:
        """The score up to which a candidate of such rows may still win."""
        ceilings = self._ceilings[rows]
        return ceilings + self._errors(rows, ceilings, floor)

    def _keep(self, rows: Tensor, columns: Tensor, first: int, scores: Tensor, offsets: Tensor) -> None:
        errors = self._errors(rows, scores, offsets[columns].to(torch.float32))
        parts = (rows, columns + first, scores, errors)
        self._fresh.append(tuple(part.cpu() for part in parts))  # type: ignore[arg-type]

    def _remember(self, start: int, offsets: Tensor) -> None:
        """Close a chunk: attach exact offsets to its nominees and drop those that have fallen behind."""
        self.nominees = replace(self.nominees, last=float(offsets[-1]) if self.target.rising else -torch.inf)
        if not self._fresh:
            return
        rows, columns, scores, errors = (torch.cat(parts) for parts in zip(*self._fresh, strict=True))
        self._fresh = []
        names = self._rows.cpu()
        exact_norms = self._exact_norms[names]
        ceilings = self._ceilings.cpu().double() + exact_norms
        self._all_ceilings[names] = torch.minimum(self._all_ceilings[names], ceilings)
        fresh = Nominees(
            names[rows],
            columns + start,
            scores.double() + exact_norms[rows],
            errors.double(),
            offsets[columns],
            self._all_ceilings.clone(),
            self.nominees.last,
        )
        self.nominees = merge([self.nominees, fresh]).pruned(None if self.error.reach else 4 * TIES_KEPT)

    def _drop_done(self, last: float) -> None:
        """Leave out blocks whose best no later candidate can beat: d >= 0, and offsets only rise."""
        left = (self._ceilings + self._norms > last - ROUNDING * abs(last)).nonzero()[:, 0]
        if len(left) and len(left) > (1 - _DROPPED_SHARE) * len(self._rows):
            return
        self._rows, self._norms, self._tolerance, self._ceilings, self._phi = (
            part[left] for part in (self._rows, self._norms, self._tolerance, self._ceilings, self._phi)
        )
        self._frame.keep(left)
