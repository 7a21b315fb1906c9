"""The classes of a tile's positions, range-coded one by one given those on the left and above; all integers.

    frequency(c | left, up) = 2^((l + u - max) / 32),  l = left table, u = up table, in 1/32 bits

Outside the tile the neighbour is the class K, so that every tile can be read alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import FormatError
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

UNITS_A_BIT = 32
TOP_BITS = 30  # of the likeliest class's frequency
MOST_ROWS = 1 << 13  # of cumulated frequencies that are kept, 8 bytes a class each; pictures ask for more
MOST_UNITS = 32 * 40  # of a table's entry, above and below 0


@dataclass(frozen=True)
class ClassCode:
    """The code of one slope.

    Args:
        left, up: int16 (K + 1, K), log-odds in 1/32 bits; row c for a neighbour of class c, row K for none.

    Raises: ValueError for tables of another form.
    Invariant: what ``decode`` reads, ``encode`` writes as the same bytes.
    """

    left: NDArray[np.int16]
    up: NDArray[np.int16]
    _rows: dict[int, array[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for table in (self.left, self.up):
            if table.dtype != np.int16 or table.ndim != 2 or table.shape[0] != table.shape[1] + 1:
                raise ValueError("tables of classes must be int16 (K + 1, K)")
            if table.shape != self.left.shape or not 1 <= table.shape[1] <= 256:
                raise ValueError(f"tables of classes {table.shape}")
            if np.abs(table.astype(np.int32)).max() > MOST_UNITS:
                raise ValueError("log-odds of classes out of bounds")

    @property
    def classes(self) -> int:
        """K."""
        return int(self.left.shape[1])

    @cached_property
    def log2_totals(self) -> NDArray[np.float64]:
        """log2 of the sum of 2^(log-odds), (K + 1, K + 1), by neighbours on the left and above."""
        left, up = (np.exp2(table / UNITS_A_BIT) for table in (self.left, self.up))
        return np.asarray(np.log2(left @ up.T))

    def shares(self, left: NDArray[np.int64] | int, up: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """Probabilities (..., K) of the classes given their neighbours (...), K for none."""
        units = self.left[left].astype(np.int32) + self.up[up]
        return np.asarray(np.exp2(units / UNITS_A_BIT - self.log2_totals[left, up][..., None]))

    def lengths_bits_of(
        self, left: NDArray[np.int64], up: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Ideal code lengths of classes given their neighbours, K for none; all of one shape."""
        units = self.left[left, classes].astype(np.int32) + self.up[up, classes]
        return np.asarray(self.log2_totals[left, up] - units / UNITS_A_BIT)

    def encode(self, classes: NDArray[np.int64]) -> bytes:
        """The shortest bytes of a tile's classes (h, w)."""
        encoder = RangeEncoder()
        for place, c in enumerate(classes.ravel().tolist()):
            starts = self._row(*self._neighbours(classes, *divmod(place, classes.shape[1])))
            encoder.encode(starts[c], starts[c + 1] - starts[c], starts[-1])
        return encoder.finish()

    def decode(self, data: bytes, height: int, width: int) -> NDArray[np.int64]:
        """The classes (h, w) of a tile.

        Raises: FormatError unless ``data`` is what ``encode`` writes.
        """
        decoder = RangeDecoder(data)
        classes = np.zeros((height, width), np.int64)
        for place in range(height * width):
            row, column = divmod(place, width)
            starts = self._row(*self._neighbours(classes, row, column))
            c = bisect_right(starts, decoder.peek(starts[-1])) - 1
            decoder.consume(starts[c], starts[c + 1] - starts[c])
            classes[row, column] = c
        if self.encode(classes) != data:
            raise FormatError("corrupt payload: classes that no encoder writes so")
        return classes

    def _neighbours(self, classes: NDArray[np.int64], row: int, column: int) -> tuple[int, int]:
        left = int(classes[row, column - 1]) if column else self.classes
        return left, int(classes[row - 1, column]) if row else self.classes

    def _row(self, left: int, up: int) -> array[int]:
        """Where each class starts, K + 1 integers with the total at the end; the latest are kept."""
        key = left * (self.classes + 1) + up
        if key not in self._rows:
            if len(self._rows) == MOST_ROWS:
                self._rows.clear()
            units = self.left[left].astype(np.int64) + self.up[up]
            whole, part = np.divmod(units.max() - units, UNITS_A_BIT)
            frequencies = np.maximum(1, _powers()[part] >> np.minimum(whole, TOP_BITS + 1))
            self._rows[key] = array("q", np.cumsum([0, *frequencies]).tobytes())
        return self._rows[key]


def neighbours(classes: NDArray[np.int64], none: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes on the left of and above each of tiles (..., h, w), ``none`` where there is none."""
    left, up = np.full_like(classes, none), np.full_like(classes, none)
    left[..., :, 1:], up[..., 1:, :] = classes[..., :, :-1], classes[..., :-1, :]
    return left, up


@lru_cache(maxsize=1)
def _powers() -> NDArray[np.int64]:
    """floor(2^(30 - j/32)) for j = 0..31, by integer square roots."""
    precision = 1 << 10  # bits; far more than the 30 that are kept
    root = isqrt(1 << (2 * precision - 1))  # 2^(precision - 1/2)
    for _ in range(4):  # each halves the 1/2
        root = isqrt(root << precision)
    powers = [1 << precision]
    for _ in range(UNITS_A_BIT - 1):
        powers.append(powers[-1] * root >> precision)
    return np.array([p >> (precision - TOP_BITS) for p in powers])
