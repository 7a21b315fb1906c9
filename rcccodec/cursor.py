"""Reading bytes forward, never past their end; and varints both ways."""

from rcccodec.errors import FormatError

MAX_VARINT = (1 << 64) - 1


def varint(value: int) -> bytes:
    """Little-endian base 128, low seven bits first, top bit set on all bytes but the last; shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """A place in the input that only moves forward and never past the end."""

    def __init__(self, data: bytes, first: int = 0) -> None:
        self._data = data
        self.first = self.position = first

    def begins_with(self, start: bytes) -> bool:
        """Whether the bytes at the cursor are these."""
        return self._data.startswith(start, self.position)

    def left(self) -> int:
        """Bytes from the cursor to the end."""
        return len(self._data) - self.position

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes; a FormatError that names ``what`` if there are fewer."""
        if size > self.left():
            raise FormatError(f"truncated: {what} needs {size} bytes, {self.left()} are left")
        self.position += size
        return self._data[self.position - size : self.position]

    def byte(self, what: str) -> int:
        """The next byte."""
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        """The number that comes next, below 2^64 and in its shortest form."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > MAX_VARINT or (byte == 0 and shift):
                    raise FormatError(f"{what} is not a 64-bit number in its shortest form")
                return value
        raise FormatError(f"{what} is not a 64-bit number in its shortest form")

    def since(self, start: int) -> memoryview:
        """The bytes from place ``start`` to the cursor."""
        return memoryview(self._data)[start : self.position]
