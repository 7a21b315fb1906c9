"""The ``.rcc`` file: bytes <-> header and groups of images. ``FORMAT.md`` is the specification.

::

    "RCC" version | model id | method | N | seed | group ... group flagged last
    group = mode | [count] | width | height | [payload length, not in the last] | payload | crc32

Nothing here knows what a payload means. Every size is held against its limit, and against what is left of
the input, before anything is allocated for it.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from rcccodec.errors import FormatError, LimitError

MAGIC = b"RCC"
FORMAT_VERSION, JOINT_VERSION, LATENT_VERSION = 1, 2, 3

CODERS = ("pfr", "orc", "mincost", "trellis")  # the position is the wire id
ONE_SHOT_CODERS = CODERS[:3]  # of versions 1 and 2
INDEX_CODES = ("zipf", "fitted", "prior")
MODES = ("grey", "rgb")

MODEL_ID_BYTES = 6
MAX_RUNG = 15
MAX_SIDE = 65535
MAX_LOG2_CANDIDATES = 40
LEAST_LOG2_LATENT, MAX_LOG2_STATES = 6, 20  # of latents' candidates, of a trellis's states
MAX_IMAGES = 1 << 24
MAX_SEED = (1 << 64) - 1

_EXPLICIT_CANDIDATES = 0xFF
_SINGLE_IMAGE = 0x40
_LAST_GROUP = 0x80
_MODE_MASK = 0x03
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first image.

    Args:
        model_id: first 6 bytes of the model's SHA-256.
        rung: 0..15, position in the model's ladder.
        coder, index_code: positions in CODERS and INDEX_CODES.
        num_candidates: N in [1, 2^40].
        seed: in [0, 2^64).
        joint: neighbouring blocks share indices, as far as N allows; version 2 of the format.
        latent: payloads are those of `rcccodec.latent`; version 3. Its index code is 0.
    """

    model_id: bytes
    rung: int
    coder: int
    index_code: int
    num_candidates: int
    seed: int
    joint: bool = False
    latent: bool = False

    @property
    def version(self) -> int:
        """Of the format, in the file's fourth byte."""
        if self.latent:
            return LATENT_VERSION
        return JOINT_VERSION if self.joint else FORMAT_VERSION


@dataclass(frozen=True)
class Group:
    """Images of one size and mode that share a payload.

    Args:
        mode: position in MODES.
        count: number of images, >= 1.
        width, height: pixels, 1..65535.
        payload: the coded indices of all its images.
    """

    mode: int
    count: int
    width: int
    height: int
    payload: bytes


def pack(header: Header, groups: Sequence[Group]) -> bytes:
    """Write a header and at least one group as the bytes of a ``.rcc`` file.

    Returns: the file; the same bytes for the same input, always, and ``unpack`` gives the input back.
    Raises: LimitError when a field is outside its limits or there is no group.
    """
    _check_header(header, LimitError)
    if not groups:
        raise LimitError("a file needs at least one image")
    head = bytearray(MAGIC)
    head.append(header.version)
    head += header.model_id
    head.append(header.rung << 4 | header.index_code << 2 | header.coder)
    log2_candidates = header.num_candidates.bit_length() - 1
    if header.num_candidates == 1 << log2_candidates:
        head.append(log2_candidates)
    else:
        head.append(_EXPLICIT_CANDIDATES)
        head += varint(header.num_candidates)
    head += varint(header.seed)

    parts = [bytes(head)]
    checksum = zlib.crc32(head)
    num_images = 0
    for place, group in enumerate(groups):
        num_images += group.count
        _check_group(group, num_images, LimitError)
        single = _SINGLE_IMAGE if group.count == 1 else 0
        last = _LAST_GROUP if place == len(groups) - 1 else 0
        body = bytearray([group.mode | single | last])
        if group.count > 1:
            body += varint(group.count)
        body += varint(group.width) + varint(group.height)
        if not last:
            body += varint(len(group.payload))
        body += group.payload
        checksum = zlib.crc32(body, checksum)
        parts += [bytes(body), checksum.to_bytes(_CHECKSUM_BYTES, "little")]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[Header, list[Group]]:
    """Read the bytes of a ``.rcc`` file.

    Returns: the header and its groups, in order; ``pack`` of them gives ``data`` back.
    Raises: FormatError, with the cause in one line, for anything but a whole and undamaged file.
    """
    cursor = _Cursor(data)
    header = _read_header(cursor)
    checksum = zlib.crc32(cursor.since(0))
    groups: list[Group] = []
    num_images = 0
    last = False
    while not last:
        start = cursor.position
        flags, count, width, height = _read_group(cursor, len(groups))
        last = bool(flags & _LAST_GROUP)
        payload_bytes = cursor.left() - _CHECKSUM_BYTES if last else cursor.varint("payload length")
        payload = cursor.take(max(0, payload_bytes), "payload")
        checksum = zlib.crc32(cursor.since(start), checksum)
        if int.from_bytes(cursor.take(_CHECKSUM_BYTES, "checksum"), "little") != checksum:
            raise FormatError(
                f"checksum mismatch in group {len(groups) + 1}: the file is damaged or incomplete"
            )
        groups.append(Group(flags & _MODE_MASK, count, width, height, payload))
        num_images += count
        _check_group(groups[-1], num_images, FormatError)
    return header, groups


def unpack_prefix(data: bytes) -> tuple[Header, Group]:
    """Read the only image of a file that may be cut short or damaged, without its checksums.

    Returns: the header, and the image's group with as much of its payload as there is; what is left of the
    checksum may follow it.
    Raises: FormatError when not even the image's size is there. LimitError: a file of several images.
    """
    cursor = _Cursor(data)
    header = _read_header(cursor)
    flags, count, width, height = _read_group(cursor, 0)
    if count != 1 or not flags & _LAST_GROUP:
        raise LimitError("a part of a file of several images: only one image can be read in part")
    group = Group(flags & _MODE_MASK, count, width, height, cursor.take(cursor.left(), "payload"))
    _check_group(group, 1, FormatError)
    return header, group


def _read_header(cursor: "_Cursor") -> Header:
    if not cursor.begins_with(MAGIC):
        raise FormatError("not an .rcc file: it does not begin with the letters RCC")
    cursor.take(len(MAGIC), "signature")
    version = cursor.byte("format version")
    if not FORMAT_VERSION <= version <= LATENT_VERSION:
        raise FormatError(
            f"format version {version}; this program reads {FORMAT_VERSION} to {LATENT_VERSION}"
        )
    model_id = cursor.take(MODEL_ID_BYTES, "model id")
    method = cursor.byte("method byte")
    log2_candidates = cursor.byte("number of candidates")
    if log2_candidates == _EXPLICIT_CANDIDATES:
        num_candidates = cursor.varint("number of candidates")
        if num_candidates & (num_candidates - 1) == 0:  # 0 as well
            raise FormatError(f"number of candidates {num_candidates} is not written in its short form")
    elif log2_candidates <= MAX_LOG2_CANDIDATES:
        num_candidates = 1 << log2_candidates
    else:
        raise FormatError(f"number of candidates 2^{log2_candidates} above 2^{MAX_LOG2_CANDIDATES}")
    seed = cursor.varint("seed")
    coder, index_code = method & 3, method >> 2 & 3
    header = Header(
        model_id, method >> 4, coder, index_code, num_candidates, seed,
        joint=version == JOINT_VERSION, latent=version == LATENT_VERSION,
    )  # fmt: skip
    _check_header(header, FormatError)
    return header


def _read_group(cursor: "_Cursor", place: int) -> tuple[int, int, int, int]:
    """Flags, count, width and height of the group that begins here, ``place`` groups after the first."""
    flags = cursor.byte("group")
    if flags & ~(_LAST_GROUP | _SINGLE_IMAGE | _MODE_MASK):
        raise FormatError(f"reserved bits set in mode byte 0x{flags:02x} of group {place + 1}")
    count = 1 if flags & _SINGLE_IMAGE else cursor.varint("number of images")
    if count < 2 and not flags & _SINGLE_IMAGE:
        raise FormatError(f"a group of {count} images is not written in its short form")
    return flags, count, cursor.varint("width"), cursor.varint("height")


def _check_header(header: Header, error: type[FormatError] | type[LimitError]) -> None:
    if len(header.model_id) != MODEL_ID_BYTES:
        raise error(f"a model id has {MODEL_ID_BYTES} bytes, not {len(header.model_id)}")
    if not 0 <= header.rung <= MAX_RUNG:
        raise error(f"rung {header.rung} outside 0..{MAX_RUNG}")
    if not 0 <= header.coder < len(CODERS if header.latent else ONE_SHOT_CODERS):
        raise error(f"unknown coder {header.coder}")
    if not 0 <= header.index_code < (1 if header.latent else len(INDEX_CODES)):
        raise error(f"unknown index code {header.index_code}")
    if header.latent and not _latent_candidates(header):
        raise error(f"number of candidates {header.num_candidates} is none for latents")
    if not 1 <= header.num_candidates <= 1 << MAX_LOG2_CANDIDATES:
        raise error(f"number of candidates {header.num_candidates} outside 1..2^{MAX_LOG2_CANDIDATES}")
    if not 0 <= header.seed <= MAX_SEED:
        raise error(f"seed {header.seed} outside 0..2^64-1")


def _latent_candidates(header: Header) -> bool:
    """Whether N is a power of two, and that of a trellis within its bounds."""
    n = header.num_candidates
    few = CODERS[header.coder] != "trellis" or n.bit_length() - 1 <= MAX_LOG2_STATES
    return n & (n - 1) == 0 and n >= 1 << LEAST_LOG2_LATENT and few


def _check_group(group: Group, num_images: int, error: type[FormatError] | type[LimitError]) -> None:
    if not 0 <= group.mode < len(MODES):
        raise error(f"unknown image mode {group.mode}")
    if group.count < 1 or num_images > MAX_IMAGES:
        raise error(f"{num_images} images outside 1..2^24")
    if not (1 <= group.width <= MAX_SIDE and 1 <= group.height <= MAX_SIDE):
        raise error(f"image size {group.width}x{group.height} outside 1..{MAX_SIDE} a side")


def varint(value: int) -> bytes:
    """Little-endian base 128, low seven bits first, top bit set on all bytes but the last; shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Cursor:
    """A place in the input that only moves forward and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def begins_with(self, start: bytes) -> bool:
        return self._data.startswith(start)

    def left(self) -> int:
        return len(self._data) - self.position

    def take(self, size: int, what: str) -> bytes:
        if size > self.left():
            raise FormatError(f"truncated: {what} needs {size} bytes, {self.left()} are left")
        self.position += size
        return self._data[self.position - size : self.position]

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > MAX_SEED or (byte == 0 and shift):
                    raise FormatError(f"{what} is not a 64-bit number in its shortest form")
                return value
        raise FormatError(f"{what} is not a 64-bit number in its shortest form")

    def since(self, start: int) -> memoryview:
        return memoryview(self._data)[start : self.position]
