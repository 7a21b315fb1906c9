"""A histogram of log-spaced classes of the index, learnt on training blocks, stored as integers.

The classes of the 0-based index begin at 0 and at round(2^(j/2)): 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ...,
a fixed half-octave grid that no power-of-two N cuts. The class is range-coded with its stored frequency, then
the place inside it uniformly:

    length(index) = log2(total / frequency[class]) + log2(size of the class)        bits

For a smaller N the classes beyond it are dropped, and the one that N cuts keeps its share of the frequency.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import ModelError
from rcccodec.index_code.protocol import FITTED, MAX_CANDIDATES, check_indices, check_num_candidates
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

FREQUENCY_TOTAL = 1 << 16

_STARTS = sorted({0, *((isqrt(4 << j) + 1) // 2 for j in range(80))})  # round(2^(j/2)) in integers
NUM_CLASSES = len(_STARTS)
_FULL_SIZES = [b - a for a, b in zip(_STARTS, [*_STARTS[1:], MAX_CANDIDATES], strict=True)]
_MAX_WINDOW_SCALE = 4.0


def class_starts(num_candidates: int) -> NDArray[np.int64]:
    """First index (0-based) of each class of 0 .. N - 1, ascending, int64 (C,); C <= 80."""
    check_num_candidates(num_candidates)
    return np.array([start for start in _STARTS if start < num_candidates], dtype=np.int64)


def class_sizes(num_candidates: int) -> NDArray[np.int64]:
    """Number of indices in each class of 0 .. N - 1, int64 (C,), summing to N; N can cut the last short."""
    return np.diff(class_starts(num_candidates), append=num_candidates)


@dataclass(frozen=True)
class FittedCode:
    """The code of ``frequencies`` (one per class up to 2^40), restricted to ``num_candidates`` indices.

    Args:
        frequencies: 80 integers >= 1 with sum 2^16, as ``fit`` returns them.
        num_candidates: N in [1, 2^40].
    Raises: ModelError for frequencies of any other form; ValueError for N out of range.
    Invariants: sum over indices of 2^-length is 1; all indices of a class have the same length.
    """

    frequencies: Sequence[int]
    num_candidates: int
    _starts: list[int] = field(init=False, repr=False, compare=False)
    _sizes: list[int] = field(init=False, repr=False, compare=False)
    _cut: list[int] = field(init=False, repr=False, compare=False)
    _below: list[int] = field(init=False, repr=False, compare=False)  # cumulative, one longer than _cut

    def __post_init__(self) -> None:
        frequencies = [int(f) for f in self.frequencies]
        if len(frequencies) != NUM_CLASSES or min(frequencies) < 1 or sum(frequencies) != FREQUENCY_TOTAL:
            raise ModelError(f"fitted code needs {NUM_CLASSES} frequencies >= 1 with sum {FREQUENCY_TOTAL}")
        starts = class_starts(self.num_candidates).tolist()
        sizes = class_sizes(self.num_candidates).tolist()
        cut = frequencies[: len(starts)]
        cut[-1] = -(-cut[-1] * sizes[-1] // _FULL_SIZES[len(starts) - 1])  # rounded up, so never 0
        below = [0]
        for frequency in cut:
            below.append(below[-1] + frequency)
        for name, value in {"_starts": starts, "_sizes": sizes, "_cut": cut, "_below": below}.items():
            object.__setattr__(self, name, value)

    @property
    def kind(self) -> int:
        return FITTED

    def lengths_bits(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ideal length of each index's code in bits, same shape as ``indices``."""
        frequencies = np.array(self._cut, dtype=np.float64)
        per_class = np.log2(self._below[-1] / frequencies) + np.log2(np.array(self._sizes, dtype=np.float64))
        checked = check_indices(indices, self.num_candidates)
        return np.asarray(per_class[self._classes(checked)], dtype=np.float64)

    def put(self, encoder: RangeEncoder, indices: NDArray[np.int64]) -> None:
        """Append each index of ``indices`` (count,): its class, then its place in the class."""
        indices = check_indices(indices, self.num_candidates)
        total = self._below[-1]
        for cls, index in zip(self._classes(indices).tolist(), indices.tolist(), strict=True):
            encoder.encode(self._below[cls], self._cut[cls], total)
            if self._sizes[cls] > 1:
                encoder.encode(index - self._starts[cls], 1, self._sizes[cls])

    def get(self, decoder: RangeDecoder, count: int) -> NDArray[np.int64]:
        """Read ``count`` indices, int64 (count,)."""
        return np.fromiter(self._read(decoder, count), dtype=np.int64, count=count)

    def _read(self, decoder: RangeDecoder, count: int) -> Iterator[int]:
        total = self._below[-1]
        for _ in range(count):
            cls = bisect_right(self._below, decoder.peek(total)) - 1
            decoder.consume(self._below[cls], self._cut[cls])
            offset = 0
            if self._sizes[cls] > 1:
                offset = decoder.peek(self._sizes[cls])
                decoder.consume(offset, 1)
            yield self._starts[cls] + offset

    def _classes(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(np.array(self._starts), indices, side="right").astype(np.int64) - 1


def fit(indices: NDArray[np.int64], *, num_candidates: int) -> list[int]:
    """Learn frequencies from the indices that an encoder chose among ``num_candidates``.

    Every class up to the last one seen gets half a count more (Krichevsky and Trofimov's estimator); after
    it the half count halves class by class, so what was never seen stays possible at about one count in all.

    Args:
        indices: integers (count,), at least one.
        num_candidates: N of the search that chose them.
    Returns: 80 integers >= 1 with sum 2^16, good for any N.
    Raises: ValueError for no indices, or one outside [0, N).
    """
    checked = check_indices(indices, num_candidates)
    if checked.size == 0:
        raise ValueError("no indices to fit a code to")
    starts = class_starts(num_candidates)
    counts = np.bincount(np.searchsorted(starts, checked.ravel(), side="right") - 1, minlength=NUM_CLASSES)
    past_last = np.maximum(np.arange(NUM_CLASSES) - int(np.flatnonzero(counts)[-1]), 0)
    smoothed = counts + 0.5 * np.exp2(-past_last.astype(np.float64))
    # The class that N cut was seen through a window, and a code for that N will cut it again. A sliver says
    # too little about its class to be scaled up in full.
    window_scale = _FULL_SIZES[len(starts) - 1] / int(class_sizes(num_candidates)[-1])
    smoothed[len(starts) - 1] *= min(window_scale, _MAX_WINDOW_SCALE)
    shares = smoothed / smoothed.sum() * (FREQUENCY_TOTAL - NUM_CLASSES)
    frequencies = np.floor(shares).astype(np.int64) + 1
    left_over = FREQUENCY_TOTAL - int(frequencies.sum())
    frequencies[np.argsort(np.floor(shares) - shares, kind="stable")[:left_over]] += 1
    return [int(f) for f in frequencies]
