"""The papers' code: Huffman for a Zipf law over K = index + 1, in canonical form, with no table of size N.

    q(k) ~ k^-s,   s = 1 + 1 / (R + log2(e)/e + 1),   k = 1..N         (NERD-RCC, after eq. 27; R in bits)

Indices are grouped into classes of K: each k < 64 alone, then 64 classes an octave. A class has a Huffman
code word, and b raw bits tell its 2^b members apart, so there are at most some 2,300 symbols instead of N;
against a Huffman code over all of 1..N that costs less than 0.02 bit (tested). Where N cuts a class, what is
left of it splits into power-of-two pieces, largest first, and the Kraft sum over all indices stays exactly 1.

Weights come from ``decimal``, whose exp and ln are correctly rounded, so every machine builds the same table.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

import numpy as np
from dahuffman import HuffmanCodec
from numpy.typing import NDArray

from rcccodec.index_code.protocol import ZIPF_HUFFMAN, check_indices, check_num_candidates
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

MAX_RATE_MILLIBITS = 1_000_000

_WORD_BITS = 56  # of a left-justified class code word; the longest for N <= 2^40 has 35 bits
_WEIGHT_OF_ONE = 1 << 40  # the integer weight of k = 1
_CLASSES_PER_OCTAVE_LOG2 = 6


@dataclass(frozen=True)
class _Table:
    """Classes in order of K: first index, log2 size, code length; and the same sorted by canonical code."""

    starts: NDArray[np.int64]  # (C,) first index of the class, 0-based
    raw_bits: NDArray[np.int64]  # (C,) log2 of the class size
    lengths: NDArray[np.int64]  # (C,) length of the class code word
    words: list[int]  # C left-justified code words, 56 bits
    sorted_words: list[int]  # the same, ascending
    sorted_classes: list[int]  # the class of each


@dataclass(frozen=True)
class ZipfHuffman:
    """Canonical Huffman code of the Zipf law for ``num_candidates`` indices at a rate of ``rate_millibits``.

    Args:
        num_candidates: N in [1, 2^40].
        rate_millibits: R in thousandths of a bit, in [0, 10^6].
    Raises: ValueError outside those ranges.
    Invariants: Kraft sum exactly 1; a class never has a shorter code word than a heavier one; the empty code
    for N = 1.
    """

    num_candidates: int
    rate_millibits: int

    def __post_init__(self) -> None:
        check_num_candidates(self.num_candidates)
        if not 0 <= self.rate_millibits <= MAX_RATE_MILLIBITS:
            raise ValueError(f"rate of {self.rate_millibits} millibits outside [0, {MAX_RATE_MILLIBITS}]")

    @property
    def kind(self) -> int:
        return ZIPF_HUFFMAN

    def lengths_bits(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Length of each index's code word, a whole number of bits, same shape as ``indices``."""
        table = _build_table(self.num_candidates, self.rate_millibits)
        classes = _classes(table, check_indices(indices, self.num_candidates))
        return (table.lengths + table.raw_bits)[classes].astype(np.float64)

    def put(self, encoder: RangeEncoder, indices: NDArray[np.int64]) -> None:
        """Append the code word of each index of ``indices`` (count,)."""
        table = _build_table(self.num_candidates, self.rate_millibits)
        indices = check_indices(indices, self.num_candidates)
        classes = _classes(table, indices)
        lengths, offsets = table.lengths[classes].tolist(), (indices - table.starts[classes]).tolist()
        raw_bits = table.raw_bits[classes].tolist()
        for cls, length, offset, raw in zip(classes.tolist(), lengths, offsets, raw_bits, strict=True):
            encoder.encode(table.words[cls] >> (_WORD_BITS - length), 1, 1 << length)
            if raw:
                encoder.encode(offset, 1, 1 << raw)

    def get(self, decoder: RangeDecoder, count: int) -> NDArray[np.int64]:
        """Read ``count`` indices, int64 (count,)."""
        table = _build_table(self.num_candidates, self.rate_millibits)
        return np.fromiter(self._read(table, decoder, count), dtype=np.int64, count=count)

    @staticmethod
    def _read(table: _Table, decoder: RangeDecoder, count: int) -> Iterator[int]:
        starts, lengths, raws = table.starts.tolist(), table.lengths.tolist(), table.raw_bits.tolist()
        for _ in range(count):
            place = bisect_right(table.sorted_words, decoder.peek(1 << _WORD_BITS)) - 1
            cls = table.sorted_classes[place]
            decoder.consume(table.sorted_words[place], 1 << (_WORD_BITS - lengths[cls]))
            offset = 0
            if raws[cls]:
                offset = decoder.peek(1 << raws[cls])
                decoder.consume(offset, 1)
            yield starts[cls] + offset


def _classes(table: _Table, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(table.starts, indices, side="right").astype(np.int64) - 1


def _split_into_classes(num_candidates: int) -> tuple[list[int], list[int]]:
    """First K and log2 size of every class of 1..N, in order."""
    firsts, raw_bits = [], []
    k = 1
    while k <= num_candidates:
        raw = max(0, k.bit_length() - 1 - _CLASSES_PER_OCTAVE_LOG2)
        # A class that N cuts gives way to smaller ones, largest first.
        raw = min(raw, (num_candidates - k + 1).bit_length() - 1)
        firsts.append(k)
        raw_bits.append(raw)
        k += 1 << raw
    return firsts, raw_bits


def _class_weights(firsts: list[int], raw_bits: list[int], rate_millibits: int) -> list[int]:
    """Integer weight of each class: size * (middle k)^-s in units of 2^-40, at least 1."""
    context = Context(prec=40, rounding=ROUND_HALF_EVEN)
    one = Decimal(1)
    log2_e_over_e = context.divide(one, context.multiply(context.exp(one), context.ln(Decimal(2))))
    rate_bits = context.divide(Decimal(rate_millibits), Decimal(1000))
    inverse = context.divide(one, context.add(context.add(rate_bits, log2_e_over_e), one))
    minus_s = context.minus(context.add(one, inverse))
    weights = []
    for first, raw in zip(firsts, raw_bits, strict=True):
        size = 1 << raw
        twice_middle = 2 * first + size - 1
        middle = context.divide(Decimal(twice_middle), Decimal(2))
        density = context.exp(context.multiply(minus_s, context.ln(middle)))
        scaled = context.multiply(Decimal(size * _WEIGHT_OF_ONE), density)
        weights.append(max(1, int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN, context=context))))
    return weights


@lru_cache(maxsize=32)
def _build_table(num_candidates: int, rate_millibits: int) -> _Table:
    """Build the canonical table: code words ascend with (length, class)."""
    firsts, raw_bits = _split_into_classes(num_candidates)
    weights = dict(enumerate(_class_weights(firsts, raw_bits, rate_millibits)))
    # Naming one of our own symbols as end-of-file keeps dahuffman from adding its own.
    codes = HuffmanCodec.from_frequencies(weights, eof=0).get_code_table()
    lengths = [int(codes[cls][0]) for cls in range(len(firsts))]
    order = sorted(range(len(firsts)), key=lambda cls: (lengths[cls], cls))
    words = [0] * len(firsts)
    word = 0
    for cls in order:
        words[cls] = word
        word += 1 << (_WORD_BITS - lengths[cls])
    return _Table(
        starts=np.array(firsts, dtype=np.int64) - 1,
        raw_bits=np.array(raw_bits, dtype=np.int64),
        lengths=np.array(lengths, dtype=np.int64),
        words=words,
        sorted_words=[words[cls] for cls in order],
        sorted_classes=order,
    )
