"""A prior per index for one fixed codebook (model, seed, N), range-coded.

A codebook's candidates are not equally useful: after entropy-constrained reassignment on training blocks each
index has its own length. The model stores it as a byte, in eighths of a bit, and both sides turn it into a
frequency with one look-up and one shift:

    frequency(level) = max(1, EIGHTHS[level mod 8] >> (level div 8)),   EIGHTHS[i] = round(2^(31 - i/8))
    length(index) = log2(total / frequency(level[index]))        bits

Cumulative frequencies are kept for blocks of 64 indices only; inside a block they are summed when an index
of it is met. With the blocks' sums given (a bundle stores them), nothing here takes time proportional to N.
"""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import ModelError
from rcccodec.index_code.protocol import CODEBOOK_PRIOR, MAX_CANDIDATES, check_indices
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

EIGHTHS = (2147483648, 1969251188, 1805811301, 1655936265, 1518500250, 1392470869, 1276901417, 1170923762)
BLOCK = 64

_FREQUENCIES = np.array([max(1, EIGHTHS[q & 7] >> (q >> 3)) for q in range(256)], dtype=np.int64)
_SUMMED_AT_ONCE, _PUT_AT_ONCE = 1 << 16, 1 << 12  # levels, indices: memory stays small


@dataclass(frozen=True, eq=False)
class CodebookPrior:
    """The code of one stored level per index.

    Args:
        levels: uint8 (N,), code lengths in eighths of a bit, N >= 1, as ``quantise`` returns them.
        sums: int64 (ceil(N / 64),), ``block_sums`` of the levels; None to have them computed, in O(N).
    Raises: ModelError for levels or sums of any other form, or lengths so short on average that they describe
        no code; from ``put`` and ``get`` for a sum that is not that of its block.
    Invariants: 2^-length sums to 1; tables are built with integers alone; k indices take O(k log N) time.
    """

    levels: NDArray[np.uint8]
    sums: InitVar[NDArray[np.int64] | None] = None
    _below: NDArray[np.int64] = field(init=False, repr=False)  # cumulative over blocks, one longer

    def __post_init__(self, sums: NDArray[np.int64] | None) -> None:
        levels = self.levels
        if levels.dtype != np.uint8 or levels.ndim != 1 or levels.size == 0:
            raise ModelError(f"codebook prior needs a row of uint8 levels, not {levels.dtype} {levels.shape}")
        sums = block_sums(levels) if sums is None else sums
        if sums.dtype != np.int64 or sums.shape != (-(-levels.size // BLOCK),):
            raise ModelError(f"codebook prior of {levels.size} levels with sums {sums.dtype} {sums.shape}")
        if int(sums.min()) < 1 or int(sums.max()) > MAX_CANDIDATES or int(sums.sum()) > MAX_CANDIDATES:
            raise ModelError("codebook prior describes no code: lengths too short for so many indices")
        object.__setattr__(self, "_below", np.concatenate(([0], np.cumsum(sums))))

    @property
    def kind(self) -> int:
        return CODEBOOK_PRIOR

    @property
    def num_candidates(self) -> int:
        return int(self.levels.size)

    def lengths_bits(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ideal length of each index's code in bits, same shape as ``indices``."""
        checked = check_indices(indices, self.num_candidates)
        frequencies = _FREQUENCIES[self.levels[checked]].astype(np.float64)
        return np.asarray(np.log2(int(self._below[-1]) / frequencies), dtype=np.float64)

    def put(self, encoder: RangeEncoder, indices: NDArray[np.int64]) -> None:
        """Append each index of ``indices`` (count,)."""
        checked = check_indices(indices, self.num_candidates)
        total = int(self._below[-1])
        for first in range(0, checked.size, _PUT_AT_ONCE):
            part = checked[first : first + _PUT_AT_ONCE]
            frequencies = _FREQUENCIES[self.levels[part]]
            starts = self._ends(part) - frequencies
            for start, frequency in zip(starts.tolist(), frequencies.tolist(), strict=True):
                encoder.encode(start, frequency, total)

    def get(self, decoder: RangeDecoder, count: int) -> NDArray[np.int64]:
        """Read ``count`` indices, int64 (count,)."""
        return np.fromiter(self._read(decoder, count), dtype=np.int64, count=count)

    def _read(self, decoder: RangeDecoder, count: int) -> Iterator[int]:
        total, frequencies = int(self._below[-1]), _FREQUENCIES.tolist()
        met: dict[int, NDArray[np.int64]] = {}
        for _ in range(count):
            slot = decoder.peek(total)
            block = int(self._below.searchsorted(slot, side="right")) - 1
            ends = met.get(block)
            if ends is None:
                ends = _FREQUENCIES.take(self.levels[block * BLOCK : (block + 1) * BLOCK]).cumsum()
                ends += self._below.item(block)
                self._check(ends.item(-1) == self._below.item(block + 1))
                met[block] = ends
            place = int(ends.searchsorted(slot, side="right"))
            index = block * BLOCK + place
            frequency = frequencies[self.levels.item(index)]
            decoder.consume(ends.item(place) - frequency, frequency)
            yield index

    def _ends(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the intervals of ``indices`` (n,) end."""
        blocks, which = np.unique(indices // BLOCK, return_inverse=True)
        members = blocks[:, None] * BLOCK + np.arange(BLOCK)
        frequencies = _FREQUENCIES[self.levels.take(members, mode="clip")]
        frequencies[members >= self.num_candidates] = 0
        ends = self._below[blocks][:, None] + frequencies.cumsum(axis=1)
        self._check(np.array_equal(ends[:, -1], self._below[blocks + 1]))
        return np.asarray(ends[which.reshape(-1), indices % BLOCK], dtype=np.int64)

    @staticmethod
    def _check(sums_agree: bool) -> None:
        if not sums_agree:
            raise ModelError("codebook prior: a stored sum is not that of its levels")


def block_sums(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Summed frequencies of each ``BLOCK`` indices, the last of what is left, int64 (ceil(N / 64),)."""
    parts = (levels[a : a + _SUMMED_AT_ONCE] for a in range(0, levels.size, _SUMMED_AT_ONCE))
    return np.concatenate(
        [np.add.reduceat(_FREQUENCIES[part], np.arange(0, part.size, BLOCK)) for part in parts]
    )


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
    levels: NDArray[np.uint8] = np.clip(np.rint(8.0 * normalised), 0, 255).astype(np.uint8)
    return levels
