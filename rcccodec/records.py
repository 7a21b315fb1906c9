"""Archives that damage cannot take whole: versions 4 to 6 of the ``.rcc`` file.

::

    head = header | number of images | crc32
    file = head | record ... record | head again | crc32 of the records' checksums
    record = fields | check of them | payload | crc32
    fields = mode | number of its first image | [count] | width | height | payload length

A record says where it belongs, its fields have a check of their own and all its sums begin with the head's:
where bytes are damaged, lost or put in, a reader finds the next record by looking for it.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from rcccodec.cursor import Cursor, varint
from rcccodec.errors import FormatError
from rcccodec.fields import (
    CHECKSUM_BYTES,
    MAGIC,
    MAX_IMAGES,
    MODE_MASK,
    SINGLE_IMAGE,
    Group,
    Header,
    check_group,
    read_count,
    read_header,
)

_CHECK_BYTES = 2
_TAIL_BYTES = 4096  # of a file, in which the second head is looked for

# What may begin a record: a mode, its first image, a count of two or more, sides that are not 0, a length.
_ANY = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_SIDE = rb"[\x80-\xff]{0,2}[\x01-\x7f]"
_START = re.compile(
    rb"(?:[\x40\x41]%(any)b|[\x00\x01]%(any)b[\x80-\xff]{0,3}[\x01-\x7f])%(side)b%(side)b%(any)b"
    % {b"any": _ANY, b"side": _SIDE}
)
MOST_STARTS = 1 << 24  # looked at in one file; hostile ones have them everywhere
SUMMED_TIMES = 16  # how often, on average, a byte may be summed in looking for records


@dataclass(frozen=True)
class _Head:
    header: Header
    num_images: int
    check: int
    content: bytes


@dataclass(frozen=True, slots=True)
class _Record:
    start: int
    end: int
    first: int
    group: Group
    checksum: int


def pack(header: bytes, groups: Sequence[Group]) -> bytes:
    """A file of these groups, each within its limits, a record each; ``header``: its bytes."""
    num_images = sum(group.count for group in groups)
    head = header + varint(num_images)
    check = zlib.crc32(head)
    head += check.to_bytes(CHECKSUM_BYTES, "little")
    parts, first, sums = [head], 0, check
    for group in groups:
        single = SINGLE_IMAGE if group.count == 1 else 0
        fields = bytes([group.mode | single]) + varint(first)
        if group.count > 1:
            fields += varint(group.count)
        fields += varint(group.width) + varint(group.height) + varint(len(group.payload))
        fields += (zlib.crc32(fields, check) & 0xFFFF).to_bytes(_CHECK_BYTES, "little")
        checksum = zlib.crc32(group.payload, zlib.crc32(fields, check)).to_bytes(CHECKSUM_BYTES, "little")
        sums = zlib.crc32(checksum, sums)
        parts += [fields, group.payload, checksum]
        first += group.count
    return b"".join([*parts, head, sums.to_bytes(CHECKSUM_BYTES, "little")])


def unpack(cursor: Cursor, header: Header) -> list[Group]:
    """The groups of a whole file whose ``header``, from its first byte, the cursor has just passed.

    Raises:
        FormatError: it is damaged, incomplete, or has bytes after its end.
    """
    head = _read_head_end(cursor, header)
    groups: list[Group] = []
    first, sums = 0, head.check
    while first < head.num_images:
        record = _read_record(cursor, head.check)
        if record.first != first:
            raise FormatError(f"image {record.first} where image {first} should be")
        first += record.group.count
        if first > head.num_images:
            raise FormatError(f"{first} images, more than the {head.num_images} that the head says")
        groups.append(record.group)
        sums = zlib.crc32(record.checksum.to_bytes(CHECKSUM_BYTES, "little"), sums)
    if cursor.take(len(head.content), "second head") != head.content:
        raise FormatError("the two heads differ: the file is damaged")
    if int.from_bytes(cursor.take(CHECKSUM_BYTES, "file checksum"), "little") != sums:
        raise FormatError("file checksum mismatch: a record is not this file's")
    if cursor.left():
        raise FormatError(f"{cursor.left()} bytes after the end of the file")
    return groups


def has_second_head(data: bytes) -> bool:
    """Whether ``data`` ends with a head and a checksum, whatever it begins with."""
    return _second_head(data) is not None


def salvage(data: bytes) -> tuple[Header, list[tuple[int, Group]], int, list[str]]:
    """Header, intact groups by the number of their first image, number of images, and what is wrong.

    Raises:
        FormatError: neither head is intact.
    """
    faults: list[str] = []
    try:
        head = _read_head(Cursor(data))
        position = len(head.content)
    except FormatError as error:
        second = _second_head(data)
        if second is None:
            raise
        head, position = second, 0
        faults.append(f"the beginning is damaged ({error}), the head at the end is intact")
    found: list[tuple[int, Group]] = []
    expected = 0
    records, is_searched = _intact(data, position, head)
    if not is_searched:
        faults.append("too much in it looks like the beginning of an image: not all of it was searched")
    for record in sorted(records, key=lambda record: (record.first, record.start)):
        if record.first < expected:
            continue  # doubled
        if record.first > expected:
            faults.append(_lost(expected, record.first))
        found.append((record.first, record.group))
        expected = record.first + record.group.count
    if expected < head.num_images:
        faults.append(_lost(expected, head.num_images))
    if not faults:
        try:
            cursor = Cursor(data)
            unpack(cursor, read_header(cursor))
        except FormatError as error:
            faults.append(f"{error}; all images are intact")
    return head.header, found, head.num_images, faults


def _lost(first: int, end: int) -> str:
    return f"image {first} is lost" if end == first + 1 else f"images {first} to {end - 1} are lost"


def _intact(data: bytes, position: int, head: _Head) -> tuple[list[_Record], bool]:
    """Every intact record from ``position`` on, and whether all of the file was searched for them."""
    found: list[_Record] = []
    looked, summed = 0, 0
    before: _Record | None = None
    while True:
        match = _START.search(data, position)
        if before is not None and (match is None or match.start() > before.end):
            position, before = before.start + 1, None  # the next may begin with bytes that this one ends with
            continue
        if match is None:
            return found, True
        looked += 1
        if looked > MOST_STARTS or summed > SUMMED_TIMES * len(data):
            return found, False
        position = match.start() + 1
        check = data[match.end() : match.end() + _CHECK_BYTES]
        if zlib.crc32(match.group(), head.check) & 0xFFFF != int.from_bytes(check, "little"):
            continue
        cursor = Cursor(data, match.start())
        try:
            record = _read_record(cursor, head.check)
        except FormatError:
            summed += cursor.position - match.start()
            continue
        position, before = record.end, record
        if record.first + record.group.count <= head.num_images:
            found.append(record)


def _read_head(cursor: Cursor) -> _Head:
    """The head at the cursor."""
    header = read_header(cursor)
    if not header.records:
        raise FormatError("not an archive of records")
    return _read_head_end(cursor, header)


def _read_head_end(cursor: Cursor, header: Header) -> _Head:
    num_images = cursor.varint("number of images")
    check = zlib.crc32(cursor.since(cursor.first))
    if int.from_bytes(cursor.take(CHECKSUM_BYTES, "checksum of the head"), "little") != check:
        raise FormatError("checksum mismatch in the head: the file is damaged")
    if not 1 <= num_images <= MAX_IMAGES:
        raise FormatError(f"{num_images} images outside 1..2^24")
    return _Head(header, num_images, check, bytes(cursor.since(cursor.first)))


def _second_head(data: bytes) -> _Head | None:
    """The head at the end of the file, or None; some bytes after it may be lost."""
    start = len(data)
    while (start := data.rfind(MAGIC, max(0, len(data) - _TAIL_BYTES), start)) > 0:
        try:
            return _read_head(Cursor(data, start))
        except FormatError:
            continue
    return None


def _read_record(cursor: Cursor, check: int) -> _Record:
    start = cursor.position
    flags = cursor.byte("record")
    if flags & ~(SINGLE_IMAGE | MODE_MASK):
        raise FormatError(f"reserved bits set in mode byte 0x{flags:02x} of a record")
    first = cursor.varint("number of the first image")
    count = read_count(cursor, flags, "record")
    width, height = cursor.varint("width"), cursor.varint("height")
    payload_bytes = cursor.varint("payload length")
    fields_check = zlib.crc32(cursor.since(start), check) & 0xFFFF
    if int.from_bytes(cursor.take(_CHECK_BYTES, "check"), "little") != fields_check:
        raise FormatError(f"check mismatch in the record at byte {start}: the file is damaged")
    payload = cursor.take(payload_bytes, "payload")
    checksum = zlib.crc32(cursor.since(start), check)
    if int.from_bytes(cursor.take(CHECKSUM_BYTES, "checksum"), "little") != checksum:
        raise FormatError(f"checksum mismatch in image {first}: the file is damaged")
    group = Group(flags & MODE_MASK, count, width, height, payload)
    check_group(group, first + count, FormatError)
    return _Record(start, cursor.position, first, group, checksum)
