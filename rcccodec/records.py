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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rcccodec.cursor import Cursor, varint
from rcccodec.errors import FormatError
from rcccodec.fields import MAGIC, MAX_IMAGES, Group, Header, check_group, read_header

_SINGLE_IMAGE = 0x40
_MODE_MASK = 0x03
_CHECKSUM_BYTES, _CHECK_BYTES = 4, 2
_MOST_HEAD_BYTES = 3 + 1 + 6 + 1 + 1 + 6 + 10 + 4 + _CHECKSUM_BYTES
_TAIL_BYTES = _MOST_HEAD_BYTES + _CHECKSUM_BYTES

# What may begin a record: a mode, its first image, a count of two or more, sides that are not 0, a length.
_ANY = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_SIDE = rb"[\x80-\xff]{0,2}[\x01-\x7f]"
_START = re.compile(
    rb"(?:[\x40\x41]%(any)b|[\x00\x01]%(any)b[\x80-\xff]{0,3}[\x01-\x7f])%(side)b%(side)b%(any)b"
    % {b"any": _ANY, b"side": _SIDE}
)
_MOST_STARTS = 1 << 22  # looked at in one file; hostile ones have them everywhere
_SUMMED_TIMES = 16  # how often, on average, a byte may be summed in looking for records


@dataclass(frozen=True)
class _Head:
    header: Header
    num_images: int
    check: int
    content: bytes


@dataclass(frozen=True)
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
    head += check.to_bytes(_CHECKSUM_BYTES, "little")
    parts, first, sums = [head], 0, check
    for group in groups:
        single = _SINGLE_IMAGE if group.count == 1 else 0
        fields = bytes([group.mode | single]) + varint(first)
        if group.count > 1:
            fields += varint(group.count)
        fields += varint(group.width) + varint(group.height) + varint(len(group.payload))
        fields += (zlib.crc32(fields, check) & 0xFFFF).to_bytes(_CHECK_BYTES, "little")
        checksum = zlib.crc32(group.payload, zlib.crc32(fields, check)).to_bytes(_CHECKSUM_BYTES, "little")
        sums = zlib.crc32(checksum, sums)
        parts += [fields, group.payload, checksum]
        first += group.count
    return b"".join([*parts, head, sums.to_bytes(_CHECKSUM_BYTES, "little")])


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
        sums = zlib.crc32(record.checksum.to_bytes(_CHECKSUM_BYTES, "little"), sums)
    if cursor.take(len(head.content), "second head") != head.content:
        raise FormatError("the two heads differ: the file is damaged")
    if int.from_bytes(cursor.take(_CHECKSUM_BYTES, "file checksum"), "little") != sums:
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
    for record in sorted(_intact(data, position, head), key=lambda record: (record.first, record.start)):
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


def _intact(data: bytes, position: int, head: _Head) -> Iterator[_Record]:
    """Every intact record from ``position`` on."""
    looked, summed = 0, 0
    before: _Record | None = None
    while match := _START.search(data, position):
        if before is not None and match.start() > before.end:
            position, before = before.start + 1, None  # the next may begin with bytes that this one ends with
            continue
        looked += 1
        if looked > _MOST_STARTS or summed > _SUMMED_TIMES * len(data):
            return
        cursor = Cursor(data, match.start())
        try:
            record = _read_record(cursor, head.check)
        except FormatError:
            summed += cursor.position - match.start()
            position = match.start() + 1
            continue
        position, before = record.end, record
        if record.first + record.group.count <= head.num_images:
            yield record


def _read_head(cursor: Cursor) -> _Head:
    """The head at the cursor."""
    header = read_header(cursor)
    if not header.records:
        raise FormatError("not an archive of records")
    return _read_head_end(cursor, header)


def _read_head_end(cursor: Cursor, header: Header) -> _Head:
    num_images = cursor.varint("number of images")
    check = zlib.crc32(cursor.since(cursor.first))
    if int.from_bytes(cursor.take(_CHECKSUM_BYTES, "checksum of the head"), "little") != check:
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
    if flags & ~(_SINGLE_IMAGE | _MODE_MASK):
        raise FormatError(f"reserved bits set in mode byte 0x{flags:02x} of a record")
    first = cursor.varint("number of the first image")
    count = 1 if flags & _SINGLE_IMAGE else cursor.varint("number of images")
    if count < 2 and not flags & _SINGLE_IMAGE:
        raise FormatError(f"a record of {count} images is not written in its short form")
    width, height = cursor.varint("width"), cursor.varint("height")
    payload_bytes = cursor.varint("payload length")
    fields_check = zlib.crc32(cursor.since(start), check) & 0xFFFF
    if int.from_bytes(cursor.take(_CHECK_BYTES, "check"), "little") != fields_check:
        raise FormatError(f"check mismatch in the record at byte {start}: the file is damaged")
    payload = cursor.take(payload_bytes, "payload")
    checksum = zlib.crc32(cursor.since(start), check)
    if int.from_bytes(cursor.take(_CHECKSUM_BYTES, "checksum"), "little") != checksum:
        raise FormatError(f"checksum mismatch in image {first}: the file is damaged")
    group = Group(flags & _MODE_MASK, count, width, height, payload)
    check_group(group, first + count, FormatError)
    return _Record(start, cursor.position, first, group, checksum)
