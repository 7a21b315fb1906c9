"""Sums over exp(-beta d(x_i, y_j)) for Blahut-Arimoto: of a matrix, in tiles, or of all binary words.

    ln c_i = ln sum_j q_j exp(-beta d_ij)        ln f_j = ln sum_i p_i exp(-beta d_ij) / c_i

Every kernel takes and gives logarithms, so that no mass vanishes at any slope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rcccodec.distortion import Distortion

BYTES = 1 << 30  # of tiles that are kept from pass to pass
TILE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}  # large ones are mapped and cleared anew for every tile
_TINY = {torch.float32: 1e-25, torch.float64: 1e-250}  # a row's sum below this is taken again, in logarithms


_LOG_TINY = -700.0


class Kernel(Protocol):
    """n source vectors against m candidates at one slope."""

    shape: tuple[int, int]
    beta: float
    device: torch.device

    def sweep(self, log_mass: Tensor, log_source: Tensor) -> tuple[Tensor, Tensor]:
        """ln c (n,) and ln f (m,), float64, of ln q (m,) and ln p (n,).

        ln f below -700 may be given as -700: the candidate is out, but not for good.
        """
        ...

    def evaluate(self, log_mass: Tensor) -> tuple[Tensor, Tensor]:
        """ln c and the posterior mean of d, float64 (n,)."""
        ...


class _Tile(NamedTuple):
    rows: slice
    distances: Tensor  # (t, m)
    weights: Tensor  # exp(-beta (d - the row's least d)), same type: no row vanishes
    shift: Tensor  # beta times that least d, float64 (t,)


class MatrixKernel:
    """Distances held, or made again in every pass if they are more than a budget of bytes.

    Products are in the distances' own precision within a tile (all terms are positive, nothing cancels) and
    float64 across tiles.
    """

    def __init__(
        self,
        distances: Callable[[slice], Tensor],
        shape: tuple[int, int],
        beta: float,
        like: Tensor,
        budget: int,
    ) -> None:
        self.shape, self.beta, self._distances, self.device = shape, beta, distances, like.device
        item = like.element_size()
        n, m = shape
        step = max(1, min(n, TILE_BYTES[like.device.type] // (item * m)))
        self._slices = [slice(a, min(n, a + step)) for a in range(0, n, step)]
        self.streams = 2 * n * m * item > budget
        self._kept: list[_Tile] | None = None if self.streams else [self._tile(s) for s in self._slices]

    @staticmethod
    def of(distances: Tensor, beta: float) -> MatrixKernel:
        """Of a matrix d (n, m) that is there already."""
        n, m = distances.shape
        return MatrixKernel(lambda rows: distances[rows], (n, m), beta, distances, 2**62)

    @staticmethod
    def between(x: Tensor, y: Tensor, distance: Distortion, beta: float, budget: int = BYTES) -> MatrixKernel:
        """Of vectors x (n, dim) and y (m, dim); equal rows are taken to be at distance 0 if x is y."""

        def tile(rows: slice) -> Tensor:
            d = distance(x[rows], y)
            if x is y:
                d.diagonal(rows.start).zero_()  # rounding leaves a little
            return d

        return MatrixKernel(tile, (len(x), len(y)), beta, x, budget)

    def sweep(self, log_mass: Tensor, log_source: Tensor) -> tuple[Tensor, Tensor]:
        log_c, f = log_source.new_empty(self.shape[0]), log_source.new_zeros(self.shape[1])
        log_rest = torch.full_like(f, _LOG_TINY)
        for tile in self._tiles():
            c, lost = self._partition(tile, log_mass)
            log_c[tile.rows] = c
            # p_i exp(-beta d_ij) / c_i = weights_ij exp(ln p_i - shift_i - ln c_i)
            row = log_source[tile.rows] - c
            f += _product(tile.weights.T, torch.exp(row - tile.shift).masked_fill(lost, 0.0))
            if lost.any():
                logs = row[lost][:, None] - self.beta * tile.distances[lost].double()
                log_rest = torch.logaddexp(log_rest, torch.logsumexp(logs, 0))
        return log_c, torch.logaddexp(f.log(), log_rest)

    def evaluate(self, log_mass: Tensor) -> tuple[Tensor, Tensor]:
        log_c, d = log_mass.new_empty(self.shape[0]), log_mass.new_empty(self.shape[0])
        for tile in self._tiles():
            c, lost = self._partition(tile, log_mass)
            mean = _product(tile.weights * tile.distances, log_mass.exp()) * torch.exp(-tile.shift - c)
            if lost.any():
                exact = tile.distances[lost].double()
                mean[lost] = (torch.softmax(log_mass - self.beta * exact, 1) * exact).sum(1)
            log_c[tile.rows], d[tile.rows] = c, mean
        return log_c, d

    def _partition(self, tile: _Tile, log_mass: Tensor) -> tuple[Tensor, Tensor]:
        """ln c (t,), and which rows had to be taken in logarithms."""
        c = _product(tile.weights, log_mass.exp())
        log_c, lost = c.log() - tile.shift, c < _TINY[tile.weights.dtype]
        if lost.any():
            log_c[lost] = torch.logsumexp(log_mass - self.beta * tile.distances[lost].double(), 1)
        return log_c, lost

    def _tiles(self) -> Iterator[_Tile]:
        return iter(self._kept) if self._kept is not None else (self._tile(s) for s in self._slices)

    def _tile(self, rows: slice) -> _Tile:
        d = self._distances(rows)
        nearest = d.amin(1)
        weights = (d - nearest[:, None]).mul_(-self.beta).exp_()
        return _Tile(rows, d, weights, self.beta * nearest.double())


class HammingKernel:
    """All 2^k binary words against all, under Hamming distortion: k butterflies instead of a matrix.

    Word number i has its first symbol in the highest bit.
    """

    def __init__(self, k: int, beta: float) -> None:
        self.shape, self.beta, self._k = (1 << k, 1 << k), beta, k
        self.device = torch.device("cpu")

    def sweep(self, log_mass: Tensor, log_source: Tensor) -> tuple[Tensor, Tensor]:
        log_c = self.apply(log_mass)
        return log_c, self.apply(log_source - log_c)

    def apply(self, logs: Tensor) -> Tensor:
        """ln sum_j exp(logs_j - beta d_ij), float64 (2^k,)."""
        for axis in range(self._k):
            same, other = logs, self._flipped(logs, axis)
            logs = torch.logaddexp(same, other - self.beta)
        return logs

    def evaluate(self, log_mass: Tensor) -> tuple[Tensor, Tensor]:
        logs, mean = log_mass, torch.zeros_like(log_mass)
        for axis in range(self._k):
            both = torch.logaddexp(logs, self._flipped(logs, axis) - self.beta)
            flipped = torch.exp(self._flipped(logs, axis) - self.beta - both).nan_to_num()
            mean = mean + flipped * (self._flipped(mean, axis) + 1 - mean)
            logs = both
        return logs, mean

    def _flipped(self, values: Tensor, axis: int) -> Tensor:
        return values.reshape(1 << axis, 2, -1).flip(1).reshape(-1)


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.to(matrix.dtype)).double()
