"""An all-integer range coder: byte-oriented, with carry, exact for power-of-two totals.

The encoder holds an interval of [0, 1). A symbol that owns ``[start, start + frequency)`` out of ``total``
narrows it to its share (G. N. N. Martin, "Range encoding", 1979); its leading bytes leave on the left::

    out bytes . low            the lower end, low a 64-bit fraction of the last byte's place
    out bytes . (low + width)  the upper end, 2^56 < width <= 2^64 between two symbols

With power-of-two totals nothing is ever rounded, and the bytes are those of a plain prefix code, most
significant bit first: that is how the Huffman code shares this file. Otherwise a symbol loses at most
``total / 2^56`` of its share.
"""

from rcccodec.errors import FormatError

MAX_TOTAL = 1 << 56  # width never falls below it, so every frequency keeps a non-empty share

_TOP = 1 << 64
_BOTTOM = 1 << 56
_MASK = _TOP - 1


class RangeEncoder:
    """Narrows an interval symbol by symbol and names it with as few bytes as can be.

    Invariants: the bytes decode to the symbols given, in order; no shorter byte string does.
    """

    def __init__(self) -> None:
        self._out = bytearray()
        self._low = 0
        self._width = _TOP

    def encode(self, start: int, frequency: int, total: int) -> None:
        """Narrow the interval to ``[start, start + frequency)`` of ``total``.

        Args: 0 <= start, 1 <= frequency, start + frequency <= total <= 2^56, as Python integers, unchecked.
        """
        share = self._width // total
        low = self._low + share * start
        width = share * frequency
        if low >= _TOP:
            low -= _TOP
            self._carry()
        if width <= _BOTTOM:
            num_bytes = (64 - (width - 1).bit_length()) >> 3
            bits = num_bytes << 3
            self._out += (low >> (64 - bits)).to_bytes(num_bytes, "big")
            low = (low << bits) & _MASK
            width <<= bits
        self._low = low
        self._width = width

    def whole_bytes(self) -> int:
        """Bytes that hold what was encoded so far: ceil(bits / 8) for power-of-two totals."""
        return len(self._out) + ((64 - (self._width - 1).bit_length()) + 7 >> 3)

    def finish(self, min_bytes: int = 0) -> bytes:
        """Return the shortest byte string, zero-extended, inside the interval, zero-padded to ``min_bytes``.

        Among strings of that length the smallest value is taken, so the answer is unique. The encoder is
        spent.
        """
        if self._low == 0 or self._low + self._width > _TOP:
            # The only multiple of the last byte's place in the interval: less its zeros, it is the shortest.
            if self._low:
                self._carry()
            tail = b""
        else:
            tail = bytes([-(-self._low // _BOTTOM)])
        return bytes(self._out + tail).rstrip(b"\0").ljust(min_bytes, b"\0")

    def _carry(self) -> None:
        place = len(self._out) - 1
        while self._out[place] == 0xFF:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1


class RangeDecoder:
    """Reads back what a ``RangeEncoder`` wrote; bytes past the end count as zeros.

    Use ``peek(total)`` to learn which slot the next symbol fell in, then ``consume`` that symbol's interval.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 8
        self._offset = int.from_bytes(payload[:8].ljust(8, b"\0"), "big")  # value minus the encoder's low
        self._width = _TOP
        self._share = 0

    def peek(self, total: int) -> int:
        """Return the slot in [0, total) that the next symbol's interval contains.

        Raises: FormatError when the value lies in no slot, which no encoder writes.
        """
        self._share = self._width // total
        slot = self._offset // self._share
        if slot >= total:
            raise FormatError("corrupt payload: a value outside every symbol's interval")
        return slot

    def consume(self, start: int, frequency: int) -> None:
        """Step past the symbol that owns ``[start, start + frequency)`` of the total last peeked."""
        offset = self._offset - self._share * start
        width = self._share * frequency
        if width <= _BOTTOM:
            num_bytes = (64 - (width - 1).bit_length()) >> 3
            bits = num_bytes << 3
            fresh = self._payload[self._position : self._position + num_bytes]
            self._position += num_bytes
            offset = (offset << bits) | (int.from_bytes(fresh, "big") << (bits - 8 * len(fresh)))
            width <<= bits
        self._offset = offset
        self._width = width
