"""The file a baseline writes: a small header, the coded strings, a checksum.

    magic        4  D7 4E 54 43
    version      1  1
    baseline     4  first bytes of the baseline's SHA-256
    slope        1  number of the slope
    strings      1  0: one string for everything; 1: one for each code
    groups       varint, then for each: count, height, width, channels (varints; a vector of m is m, 1, 0)
    [strings     varint, then the length in words of each (varints); only with a string for each code]
    payload
    CRC-32       4  of everything before it, little endian

It says what a fair file costs and is read back in the same measurement. The checksum finds damage;
CompressAI's decoder checks nothing itself, so files from strangers are not for it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from rcccodec.errors import FormatError

MAGIC = b"\xd7NTC"
VERSION = 1
ID_BYTES = 4
_FIXED = struct.Struct(f"<4sB{ID_BYTES}sBB")
_CHECKSUM_BYTES = 4
_WORD_BYTES = 4  # CompressAI's strings are whole words
MAX_IMAGES = 1 << 24
MAX_SIDE = 1 << 16
MAX_VALUES = 1 << 31


@dataclass(frozen=True)
class Group:
    """``count`` images or vectors in a row with the same (height, width, channels)."""

    count: int
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class NtcFile:
    """What a file holds; ``strings`` has one entry unless ``each``."""

    baseline_id: bytes
    slope: int
    each: bool
    groups: tuple[Group, ...]
    strings: tuple[bytes, ...]

    @property
    def payload_bits(self) -> int:
        """Bits of the coded strings."""
        return 8 * sum(map(len, self.strings))


def pack(file: NtcFile) -> bytes:
    """The bytes of a file."""
    data = _FIXED.pack(MAGIC, VERSION, file.baseline_id, file.slope, file.each)
    data += _varint(len(file.groups))
    for group in file.groups:
        data += b"".join(map(_varint, (group.count, *group.shape)))
    if file.each:
        data += _varint(len(file.strings))
        data += b"".join(_varint(len(string) // _WORD_BYTES) for string in file.strings)
    data += b"".join(file.strings)
    return data + struct.pack("<I", zlib.crc32(data))


def unpack(data: bytes) -> NtcFile:
    """Inverse of ``pack``.

    Raises:
        FormatError: foreign, damaged, truncated, of another version or beyond the limits.
    """
    if not data.startswith(MAGIC) or len(data) < _FIXED.size + _CHECKSUM_BYTES:
        raise FormatError("not a file of a learned transform code")
    body, (checksum,) = data[:-_CHECKSUM_BYTES], struct.unpack("<I", data[-_CHECKSUM_BYTES:])
    if zlib.crc32(body) != checksum:
        raise FormatError("damaged: its checksum does not match")
    _, version, baseline_id, slope, each = _FIXED.unpack_from(body)
    if version != VERSION or each > 1:
        raise FormatError(f"version {version}, not {VERSION}, or unknown flags")
    at = _FIXED.size
    num_groups, at = _read_varint(body, at, MAX_IMAGES)
    groups, images, values = [], 0, 0
    for _ in range(num_groups):
        count, at = _read_varint(body, at, MAX_IMAGES)
        sides = []
        for _ in range(3):
            side, at = _read_varint(body, at, MAX_SIDE)
            sides.append(side)
        height, width, channels = sides
        images += count
        values += count * height * width * max(1, channels)
        if not (count and height and width) or images > MAX_IMAGES or values > MAX_VALUES:
            raise FormatError("an image count or size is out of bounds")
        groups.append(Group(count, (height, width, channels)))
    lengths = [len(body) - at]
    if each:
        num_strings, at = _read_varint(body, at, MAX_IMAGES)
        lengths = []
        for _ in range(num_strings):
            words, at = _read_varint(body, at, len(body))
            lengths.append(words * _WORD_BYTES)
    if at + sum(lengths) != len(body):
        raise FormatError("its strings are not as long as it says")
    strings = []
    for length in lengths:
        strings.append(body[at : at + length])
        at += length
    return NtcFile(baseline_id, slope, bool(each), tuple(groups), tuple(strings))


def _varint(value: int) -> bytes:
    """Seven bits a byte, low ones first."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _read_varint(data: bytes, at: int, limit: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise FormatError("truncated")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > limit:
                raise FormatError(f"a number {value} is out of bounds")
            return value, at
    raise FormatError("a number is too long")
