"""The ``.rcc`` file: bytes <-> header and groups of images. ``FORMAT.md`` is the specification.

::

    "RCC" version | model id | method | N | seed | group ... group flagged last
    group = mode | [count] | width | height | [payload length, not in the last] | payload | crc32

An archive of several groups has records (`rcccodec.records`) instead. Nothing here knows what a payload
means. Every size is held against its limit, and against what is left of the input, before anything is
allocated for it.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rcccodec import records
from rcccodec.cursor import Cursor, varint
from rcccodec.errors import FormatError, LimitError
from rcccodec.fields import (
    CHECKSUM_BYTES,
    CODERS,
    FORMAT_VERSION,
    INDEX_CODES,
    JOINT_VERSION,
    LATENT_VERSION,
    LEAST_LOG2_LATENT,
    MAX_IMAGES,
    MAX_LOG2_CANDIDATES,
    MAX_LOG2_STATES,
    MAX_SEED,
    MAX_SIDE,
    MODE_MASK,
    MODEL_ID_BYTES,
    MODES,
    ONE_SHOT_CODERS,
    SINGLE_IMAGE,
    Group,
    Header,
    check_group,
    header_bytes,
    read_count,
    read_header,
)

__all__ = [
    "CODERS", "FORMAT_VERSION", "INDEX_CODES", "JOINT_VERSION", "LATENT_VERSION", "LEAST_LOG2_LATENT",
    "MAX_IMAGES", "MAX_LOG2_CANDIDATES", "MAX_LOG2_STATES", "MAX_SEED", "MAX_SIDE", "MODEL_ID_BYTES", "MODES",
    "ONE_SHOT_CODERS", "Group", "Header", "Salvaged", "lost_runs", "pack", "salvage", "unpack",
    "unpack_prefix", "varint",
]  # fmt: skip

_LAST_GROUP = 0x80


def pack(header: Header, groups: Sequence[Group]) -> bytes:
    """Write a header and at least one group as the bytes of a ``.rcc`` file.

    Returns: the file; the same bytes for the same input, always, and ``unpack`` gives the input back.
    Raises: LimitError when a field is outside its limits or there is no group.
    """
    head = header_bytes(header)
    if not groups:
        raise LimitError("a file needs at least one image")
    num_images = 0
    for group in groups:
        num_images += group.count
        check_group(group, num_images, LimitError)
    if header.records:
        return records.pack(head, groups)
    parts, checksum = [head], zlib.crc32(head)
    for place, group in enumerate(groups):
        single = SINGLE_IMAGE if group.count == 1 else 0
        last = _LAST_GROUP if place == len(groups) - 1 else 0
        body = bytearray([group.mode | single | last])
        if group.count > 1:
            body += varint(group.count)
        body += varint(group.width) + varint(group.height)
        if not last:
            body += varint(len(group.payload))
        body += group.payload
        checksum = zlib.crc32(body, checksum)
        parts += [bytes(body), checksum.to_bytes(CHECKSUM_BYTES, "little")]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[Header, list[Group]]:
    """Read the bytes of a ``.rcc`` file.

    Returns: the header and its groups, in order; ``pack`` of them gives ``data`` back.
    Raises: FormatError, with the cause in one line, for anything but a whole and undamaged file.
    """
    cursor = Cursor(data)
    header = read_header(cursor)
    if header.records:
        return header, records.unpack(cursor, header)
    checksum = zlib.crc32(cursor.since(0))
    groups: list[Group] = []
    num_images = 0
    last = False
    while not last:
        last, group, computed, stored = _read_group(cursor, len(groups), checksum)
        if computed != stored:
            raise FormatError(
                f"checksum mismatch in group {len(groups) + 1}: the file is damaged or incomplete"
            )
        checksum = computed
        num_images += group.count
        check_group(group, num_images, FormatError)
        groups.append(group)
    return header, groups


@dataclass(frozen=True)
class Salvaged:
    """What a damaged file still holds.

    groups: (number of its first image, from 0; group), each under a checksum that is right.
    num_images: in the file; None where that is not known.
    faults: a line for each thing that is wrong; none in an undamaged file.
    """

    header: Header
    groups: list[tuple[int, Group]]
    num_images: int | None
    faults: list[str]


def lost_runs(intact: Iterable[tuple[int, int]], num_images: int | None) -> list[tuple[int, int]]:
    """Runs of images, first and last, that are in none of the ``intact`` ones (first, end), in order."""
    lost, expected = [], 0
    for first, end in intact:
        if first > expected:
            lost.append((expected, first - 1))
        expected = end
    if num_images is not None and expected < num_images:
        lost.append((expected, num_images - 1))
    return lost


def salvage(data: bytes) -> Salvaged:
    """Read what is intact of a damaged ``.rcc`` file; of records all that are, wherever the damage is.

    Groups of versions 1 to 3 stand on the ones before them: a header is trusted once the first group's
    checksum is right, and what follows a damaged group is lost, for it has no number.

    Raises: FormatError: the header cannot be relied on, or the data is no such file.
    """
    cursor = Cursor(data)
    try:
        header = read_header(cursor)
    except FormatError:
        return Salvaged(*records.salvage(data))  # which have a second header
    if header.records or records.has_second_head(data):
        return Salvaged(*records.salvage(data))
    found: list[tuple[int, Group]] = []
    checksum = zlib.crc32(cursor.since(0))
    last, num_images = False, 0
    while not last:
        try:
            last, group, computed, stored = _read_group(cursor, len(found), checksum)
            if computed != stored:
                raise FormatError(f"checksum mismatch in group {len(found) + 1}")
            check_group(group, num_images + group.count, FormatError)
        except FormatError as error:
            if not found:
                raise FormatError(f"{error}: nothing of the file can be relied on") from None
            fault = f"{error}: all from image {num_images} on are lost"
            return Salvaged(header, found, None, [fault])
        found.append((num_images, group))
        checksum = computed
        num_images += group.count
    return Salvaged(header, found, num_images, [])


def unpack_prefix(data: bytes) -> tuple[Header, Group]:
    """Read the only image of a file that may be cut short or damaged, without its checksums.

    Returns: the header, and the image's group with as much of its payload as there is; what is left of the
    checksum may follow it.
    Raises: FormatError when not even the image's size is there. LimitError: a file of several images.
    """
    cursor = Cursor(data)
    header = read_header(cursor)
    if header.records:
        raise LimitError("a part of a file of several images: --keep-going gives those that are whole")
    flags, count, width, height = _read_size(cursor, 0)
    if count != 1 or not flags & _LAST_GROUP:
        raise LimitError("a part of a file of several images: only one image can be read in part")
    group = Group(flags & MODE_MASK, count, width, height, cursor.take(cursor.left(), "payload"))
    check_group(group, 1, FormatError)
    return header, group


def _read_group(cursor: Cursor, place: int, checksum: int) -> tuple[bool, Group, int, int]:
    """Whether the group is the last, the group, its checksum as it is and as the file says.

    ``place``: groups before it. ``checksum``: of the group before it.
    """
    start = cursor.position
    flags, count, width, height = _read_size(cursor, place)
    last = bool(flags & _LAST_GROUP)
    payload_bytes = cursor.left() - CHECKSUM_BYTES if last else cursor.varint("payload length")
    payload = cursor.take(max(0, payload_bytes), "payload")
    computed = zlib.crc32(cursor.since(start), checksum)
    stored = int.from_bytes(cursor.take(CHECKSUM_BYTES, "checksum"), "little")
    return last, Group(flags & MODE_MASK, count, width, height, payload), computed, stored


def _read_size(cursor: Cursor, place: int) -> tuple[int, int, int, int]:
    """Flags, count, width and height of the group that begins here."""
    flags = cursor.byte("group")
    if flags & ~(_LAST_GROUP | SINGLE_IMAGE | MODE_MASK):
        raise FormatError(f"reserved bits set in mode byte 0x{flags:02x} of group {place + 1}")
    count = read_count(cursor, flags, "group")
    return flags, count, cursor.varint("width"), cursor.varint("height")
