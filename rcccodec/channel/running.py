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
_FINE = 4 * ROUNDING  # and to a distance of its own, whatever the offsets
TIES_KEPT = 8  # nominees a block may have from one piece before they are told apart more closely
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

    Nominees are told apart before they are many: by distances without their offsets, which float32 adds
    poorly at a low slope, and then by ``winners``, the best nominee of every block made again exactly.
    """

    def __init__(
        self, target: Target, device: torch.device, winners: Callable[[Nominees, Target], Nominees]
    ) -> None:
        self._winners, self._start = winners, 0
        self.target, self.device, self.error = target, device, EXACT
        self.nominees = Nominees.none(len(target.x))
        self.scored = self.seen = 0  # pairs
        self._frame = CentredBlocks(target.x, device)
        self._rows = torch.arange(len(target.x), device=device)  # blocks that are not done
        self._exact_norms = target.beta * self._frame.square_norms.cpu()
        self._spread = float(self._frame.mean.double().square().sum())
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
        self.error, self._start = error, start
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
        self._all_ceilings = ceilings.clone()
        self._thin(settled.pruned())

    def _thin(self, nominees: Nominees) -> None:
        """Take over these nominees, of blocks with too many only the best."""
        counts = torch.bincount(nominees.rows, minlength=len(self.target.x))
        crowded = counts[nominees.rows] > 4 * TIES_KEPT
        if bool(crowded.any()):
            best = self._winners(nominees.taken(crowded), self.target)
            errors = ROUNDING * (1.0 + 4.0 * self._exact_norms[best.rows] + best.scores.abs())
            self._all_ceilings.scatter_reduce_(0, best.rows, best.scores + errors, "amin")
            best = replace(best, errors=errors)
            others = nominees.taken(~crowded)
            nominees = replace(merge([others, best]), ceilings=self._all_ceilings.clone())
        self.nominees = nominees

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
            self._take(tile, first, scores, y, square_norms, offsets, floor)

    def _take(
        self,
        tile: slice,
        first: int,
        scores: Tensor,
        y: Tensor,
        square_norms: Tensor,
        offsets: Tensor,
        floor: float,
    ) -> None:
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
            crowded = close.sum(dim=1) > TIES_KEPT
            if bool(crowded.any()):
                self._tell_apart(rows[crowded], close[crowded], first, y, square_norms, offsets)
                close &= ~crowded[:, None]
        which, column = close.nonzero(as_tuple=True)
        self._keep(rows[which], column, first, scores[which, column], offsets)

    def _tell_apart(
        self, rows: Tensor, close: Tensor, first: int, y: Tensor, square_norms: Tensor, offsets: Tensor
    ) -> None:
        """Keep the nominees among ``close`` (rows, candidates of the piece): near ties of float32 scores."""
        beta = self.target.beta
        far = torch.addmm(square_norms, self._frame.x[rows], y.T, alpha=-2.0)
        which, column = close.nonzero(as_tuple=True)
        far = far[which, column].double()
        scores = beta * far + offsets[column]
        norms = self._frame.square_norms[rows][which]
        errors = _FINE * beta * (4.0 * (norms + self._spread) + far.abs()) + 2.0**-48 * scores.abs()
        least = scores.new_full((len(rows),), torch.inf)
        least.scatter_reduce_(0, which, scores + errors, "amin")
        near = scores - errors <= least[which]
        which, column, scores, errors = (part[near] for part in (which, column, scores, errors))
        crowded = torch.bincount(which, minlength=len(rows))[which] > TIES_KEPT
        few = ~crowded
        self._fresh.append(
            tuple(part[few].cpu() for part in (rows[which], column + first, scores, errors))  # type: ignore[arg-type]
        )
        if bool(crowded.any()):
            self._keep_winners(
                rows[which[crowded]].cpu(), (column + first)[crowded].cpu(), offsets[column][crowded].cpu()
            )

    def _keep_winners(self, rows: Tensor, columns: Tensor, offsets: Tensor) -> None:
        names, empty = self._rows.cpu(), torch.zeros(len(rows), dtype=torch.float64)
        ties = Nominees(
            names[rows], columns + self._start, empty, empty, offsets, self._all_ceilings, -torch.inf
        )
        best = self._winners(ties, self.target)
        errors = ROUNDING * (1.0 + 4.0 * self._exact_norms[best.rows] + best.scores.abs())
        scores = best.scores - self._exact_norms[best.rows]
        place = torch.searchsorted(names, best.rows)
        self._fresh.append((place, best.columns - self._start, scores, errors))

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
                self._width = 0  # ties: the full product tells them apart
                grid = torch.zeros(bounds.shape, dtype=torch.bool)
                grid[rows[close] - tile.start, columns[close]] = True
                every = torch.arange(tile.start, tile.start + len(bounds))
                self._tell_apart(every, grid, first, y, square_norms, offsets)
                continue
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
        scores, errors = scores.double() + exact_norms[rows], errors.double()
        self._all_ceilings.scatter_reduce_(0, names[rows], scores + errors, "amin")
        fresh = Nominees(
            names[rows],
            columns + start,
            scores,
            errors,
            offsets[columns],
            self._all_ceilings.clone(),
            self.nominees.last,
        )
        self.nominees = merge([self.nominees, fresh])
        if not self.error.reach:
            self._thin(self.nominees)

    def _drop_done(self, last: float) -> None:
        """Leave out blocks whose best no later candidate can beat: d >= 0, and offsets only rise."""
        left = (self._ceilings + self._norms > last - ROUNDING * abs(last)).nonzero()[:, 0]
        if len(left) and len(left) > (1 - _DROPPED_SHARE) * len(self._rows):
            return
        self._rows, self._norms, self._tolerance, self._ceilings, self._phi = (
            part[left] for part in (self._rows, self._norms, self._tolerance, self._ceilings, self._phi)
        )
        self._frame.keep(left)
