"""Numbers, range coder and index codes of rcccodec/FORMAT.md (1, 6, 7, 8), from that document alone."""

import math
from bisect import bisect_right
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import accumulate


class Rejected(Exception):
    """The document says that a reader must reject this file, or the model cannot read it."""


def need(true, cause):
    if not true:
        raise Rejected(cause)


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, low=0, high=2**64 - 1):  # section 1
        value = 0
        for position in range(10):
            (byte,) = self.take(1)
            value |= (byte & 127) << 7 * position
            if byte < 128:
                need(byte or not position, "a number not in its shortest form")
                need(low <= value <= high, "a number outside its limits")
                return value
        raise Rejected("a number too long")


class Range:
    """Section 8. Keeps the symbols it decoded; `canonical` is what an encoder makes of them."""

    def __init__(self, data):
        self.data, self.at, self.width, self.symbols = data, 8, 2**64, []
        self.offset = int.from_bytes(data[:8].ljust(8, b"\0"), "big")

    def slot(self, total):
        slot = self.offset // (self.width // total)
        need(slot < total, "outside the code's interval")
        return slot

    def narrow(self, start, frequency, total):
        share = self.width // total
        self.offset, self.width = self.offset - share * start, share * frequency
        self.symbols.append((start, frequency, total))
        while self.width <= 2**56:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.offset, self.width, self.at = self.offset * 256 + byte, self.width * 256, self.at + 1

    def symbol(self, ends):
        """One of len(ends) symbols whose running sums are `ends`."""
        total = int(ends[-1])
        i = bisect_right(ends, self.slot(total))
        start = int(ends[i - 1]) if i else 0
        self.narrow(start, int(ends[i]) - start, total)
        return i

    def place(self, total):
        place = self.slot(total)
        self.narrow(place, 1, total)
        return place

    def canonical(self, at_least=0):
        low, width, digits = 0, 2**64, 8  # one integer with all bytes: low / 256^digits
        for start, frequency, total in self.symbols:
            share = width // total
            low, width = low + share * start, share * frequency
            while width <= 2**56:
                low, width, digits = low << 8, width << 8, digits + 1
        best = b""
        for length in range(digits, -1, -1):
            unit = 256 ** (digits - length)
            value = -(-low // unit)
            if value * unit >= low + width:
                break
            best = value.to_bytes(length, "big")
        return best.ljust(at_least, b"\0")


@lru_cache(maxsize=64)
def zipf_words(n, rate):
    """Section 6: code word, as text -> (K0, raw bits)."""
    c = Context(prec=40, rounding=ROUND_HALF_EVEN)
    one = Decimal(1)
    ell = c.divide(one, c.multiply(c.exp(one), c.ln(Decimal(2))))
    s = c.add(one, c.divide(one, c.add(c.add(c.divide(Decimal(rate), Decimal(1000)), ell), one)))
    classes, k = [], 1
    while k <= n:
        bits = min(max(0, k.bit_length() - 1 - 6), (n - k + 1).bit_length() - 1)
        classes.append((k, bits))
        k += 2**bits
    heap = []
    for name, (k, bits) in enumerate(classes):
        middle = c.add(Decimal(k), c.divide(Decimal(2**bits - 1), Decimal(2)))
        weight = c.multiply(Decimal(2 ** (bits + 40)), c.exp(c.multiply(-s, c.ln(middle))))
        heap.append((max(1, int(weight.to_integral_value(ROUND_HALF_EVEN))), name, [name]))
    heapify(heap)
    lengths = [0] * len(classes)
    while len(heap) > 1:
        light, heavy = heappop(heap), heappop(heap)
        leaves = light[2] + heavy[2]
        for leaf in leaves:
            lengths[leaf] += 1
        heappush(heap, (light[0] + heavy[0], light[1], leaves))
    words, code, before = {}, 0, 0
    for length, name in sorted((length, name) for name, length in enumerate(lengths)):
        code = (code + 1) << (length - before) if words else 0
        words[f"{code:0{length}b}" if length else ""] = classes[name]
        before = length
    return words


def zipf_indices(payload, segments, n, blocks):
    bits, at, out = "".join(f"{byte:08b}" for byte in payload), 0, []
    for rate, count in segments:
        words, indices = zipf_words(n, rate), []
        for _ in range(count):
            end = at
            while bits[at:end] not in words:
                need(end < len(bits), "truncated payload")
                end += 1
            k, raw = words[bits[at:end]]
            at = end + raw
            need(at <= len(bits), "truncated payload")
            indices.append(k - 1 + int(bits[end:at] or "0", 2))
        out.append(indices)
    need(
        len(payload) == max(-(-at // 8), blocks // 32) and "1" not in bits[at:], "not the code of its indices"
    )
    return out


@lru_cache(maxsize=64)
def fitted_classes(frequencies, n):
    """Section 7: running sums of the frequencies, and the first index of each class and the end."""
    starts = sorted({0, *((math.isqrt(4 * 2**j) + 1) // 2 for j in range(80))})
    ends = [*starts[1:], 2**40]
    kept = [(start, end, f) for start, end, f in zip(starts, ends, frequencies, strict=True) if start < n]
    start, end, f = kept[-1]
    kept[-1] = (start, min(end, n), -(-f * (min(end, n) - start) // (end - start)))
    return list(accumulate(f for *_, f in kept)), [start for start, *_ in kept] + [kept[-1][1]]


def fitted_index(stream, frequencies, n):
    ends, starts = fitted_classes(tuple(frequencies), n)
    i = stream.symbol(ends)
    size = starts[i + 1] - starts[i]
    return starts[i] + (stream.place(size) if size > 1 else 0)
