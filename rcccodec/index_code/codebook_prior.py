"""A prior per index for one fixed codebook (model, seed, N), range-coded.

A codebook's candidates are not equally useful: after entropy-constrained reassignment on training blocks each
index has its own length. The model stores it as a byte, in eighths of a bit, and both sides turn it into a
frequency with one look-up and one shift:

    frequency(level) = max(1, EIGHTHS[level mod 8] >> (level div 8)),   EIGHTHS[i] = round(2^(31 - i/8))
    length(index) = log2(total / frequency(level[index]))        bits
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import ModelError
from rcccodec.index_code.protocol import CODEBOOK_PRIOR, MAX_CANDIDATES, check_indices
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

EIGHTHS = (2147483648, 1969251188, 1805811301, 1655936265, 1518500250, 1392470869, 1276901417, 1170923762)


@dataclass(frozen=True, eq=False)
class CodebookPrior:
    """The code of one stored level per index.

    Args: levels: uint8 (N,), code lengths in eighths of a bit, N >= 1, as ``quantise`` returns them.
    Raises: ModelError for levels of any other form, or so short on average that they describe no code.
    Invariants: 2^-length sums to 1; the table is built with integers alone, in O(N).
    """

    levels: NDArray[np.uint8]
    _frequencies: NDArray[np.int64] = field(init=False, repr=False)
    _below: NDArray[np.int64] = field(init=False, repr=False)  # cumulative, (N + 1,)

    def __post_init__(self) -> None:
        levels = self.levels
        if levels.dtype != np.uint8 or levels.ndim != 1 or levels.size == 0:
            raise ModelError(f"codebook prior needs a row of uint8 levels, not {levels.dtype} {levels.shape}")
        table = np.array([max(1, EIGHTHS[q & 7] >> (q >> 3)) for q in range(256)], dtype=np.int64)
        frequencies = table[levels]
        below = np.concatenate(([0], np.cumsum(frequencies)))
        if int(below[-1]) > MAX_CANDIDATES:
            raise ModelError("codebook prior describes no code: lengths too short for so many indices")
        object.__setattr__(self, "_frequencies", frequencies)
        object.__setattr__(self, "_below", below)

    @property
    def kind(self) -> int:
        return CODEBOOK_PRIOR

    @property
    def num_candidates(self) -> int:
        return int(self.levels.size)

    def lengths_bits(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ideal length of each index's code in bits, same shape as ``indices``."""
        checked = check_indices(indices, self.num_candidates)
        return np.log2(int(self._below[-1]) / self._frequencies[checked].astype(np.float64))

    def put(self, encoder: RangeEncoder, indices: NDArray[np.int64]) -> None:
        """Append each index of ``indices`` (count,)."""
        checked = check_indices(indices, self.num_candidates)
        total = int(self._below[-1])
        for start, frequency in zip(
            self._below[checked].tolist(), self._frequencies[checked].tolist(), strict=True
        ):
            encoder.encode(start, frequency, total)

    def get(self, decoder: RangeDecoder, count: int) -> NDArray[np.int64]:
        """Read ``count`` indices, int64 (count,)."""
        return np.fromiter(self._read(decoder, count), dtype=np.int64, count=count)

    def _read(self, decoder: RangeDecoder, count: int) -> Iterator[int]:
        total = int(self._below[-1])
        for _ in range(count):
            index = int(self._below.searchsorted(decoder.peek(total), side="right")) - 1
            decoder.consume(int(self._below[index]), int(self._frequencies[index]))
            yield index


def quantise(lengths_bits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turn wanted code lengths into levels, after shifting them so that 2^-length sums to 1.

    Args: lengths_bits: float (N,), bits; infinity for an index never wanted. At least one must be finite.
    Returns: uint8 (N,), eighths of a bit, rounded to nearest and capped at 255 (31.9 bits).
    Raises: ValueError for NaN, minus infinity or no finite length.
    """
    lengths = np.asarray(lengths_bits, dtype=np.float64)
    if lengths.ndim != 1 or not (lengths > -np.inf).all() or not np.isfinite(lengths).any():
        raise ValueError("code lengths must be one row of numbers, at least one of them finite")
    shortest = float(lengths.min())
    normalised = lengths - shortest + float(np.log2(np.exp2(shortest - lengths).sum()))
    return np.clip(np.rint(8.0 * normalised), 0, 255).astype(np.uint8)
