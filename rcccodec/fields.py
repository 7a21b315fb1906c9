"""The fields of a ``.rcc`` file: header and groups of images, their limits, and the header's bytes."""

from dataclasses import dataclass

from rcccodec.cursor import MAX_VARINT, Cursor, varint
from rcccodec.errors import FormatError, LimitError

MAGIC = b"RCC"
FORMAT_VERSION, JOINT_VERSION, LATENT_VERSION = 1, 2, 3
RECORDS = 3  # what records add to the version
LAST_VERSION = LATENT_VERSION + RECORDS

CODERS = ("pfr", "orc", "mincost", "trellis")  # the position is the wire id
ONE_SHOT_CODERS = CODERS[:3]  # of all versions but those of latents
INDEX_CODES = ("zipf", "fitted", "prior")
MODES = ("grey", "rgb")

MODEL_ID_BYTES = 6
MAX_RUNG = 15
MAX_SIDE = 65535
MAX_LOG2_CANDIDATES = 40
LEAST_LOG2_LATENT, MAX_LOG2_STATES = 6, 20  # of latents' candidates, of a trellis's states
MAX_IMAGES = 1 << 24
MAX_SEED = MAX_VARINT

MODE_MASK, SINGLE_IMAGE = 0x03, 0x40  # of the byte that groups and records begin with
CHECKSUM_BYTES = 4

_EXPLICIT_CANDIDATES = 0xFF


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first image.

    Args:
        model_id: first 6 bytes of the model's SHA-256.
        rung: 0..15, position in the model's ladder.
        coder, index_code: positions in CODERS and INDEX_CODES.
        num_candidates: N in [1, 2^40].
        seed: in [0, 2^64).
        joint: neighbouring blocks share indices, as far as N allows.
        latent: payloads are those of `rcccodec.latent`. Its index code is 0.
        records: each group stands for itself (`rcccodec.records`), so that damage to one loses no other.
    """

    model_id: bytes
    rung: int
    coder: int
    index_code: int
    num_candidates: int
    seed: int
    joint: bool = False
    latent: bool = False
    records: bool = False

    @property
    def version(self) -> int:
        """Of the format, in the file's fourth byte."""
        kind = LATENT_VERSION if self.latent else JOINT_VERSION if self.joint else FORMAT_VERSION
        return kind + RECORDS if self.records else kind


@dataclass(frozen=True, slots=True)
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


def header_bytes(header: Header) -> bytes:
    """The header as it stands in a file.

    Raises:
        LimitError: a field is outside its limits.
    """
    _check_header(header, LimitError)
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
    return bytes(head + varint(header.seed))


def read_header(cursor: Cursor) -> Header:
    """The header at the cursor, which is then behind it.

    Raises:
        FormatError: there is none, or one of an unknown version, or a field is outside its limits.
    """
    if not cursor.left():
        raise FormatError("not an .rcc file: nothing is there")
    if not cursor.begins_with(MAGIC):
        raise FormatError("not an .rcc file: it does not begin with the letters RCC")
    cursor.take(len(MAGIC), "signature")
    version = cursor.byte("format version")
    if not FORMAT_VERSION <= version <= LAST_VERSION:
        raise FormatError(f"format version {version}; this program reads {FORMAT_VERSION} to {LAST_VERSION}")
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
    records = version > LATENT_VERSION
    kind = version - RECORDS if records else version
    header = Header(
        model_id, method >> 4, coder, index_code, num_candidates, seed,
        joint=kind == JOINT_VERSION, latent=kind == LATENT_VERSION, records=records,
    )  # fmt: skip
    _check_header(header, FormatError)
    return header


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


def read_count(cursor: Cursor, flags: int, what: str) -> int:
    """How many images a group or record holds, whose first byte is ``flags``.

    Raises:
        FormatError: not in its short form, or cut off.
    """
    if flags & SINGLE_IMAGE:
        return 1
    count = cursor.varint("number of images")
    if count < 2:
        raise FormatError(f"a {what} of {count} images is not written in its short form")
    return count


def check_group(group: Group, num_images: int, error: type[FormatError] | type[LimitError]) -> None:
    """Raises: ``error`` where a field is outside its limits; ``num_images``: up to the group's last."""
    if not 0 <= group.mode < len(MODES):
        raise error(f"unknown image mode {group.mode}")
    if group.count < 1 or num_images > MAX_IMAGES:
        raise error(f"{num_images} images outside 1..2^24")
    if not (1 <= group.width <= MAX_SIDE and 1 <= group.height <= MAX_SIDE):
        raise error(f"image size {group.width}x{group.height} outside 1..{MAX_SIDE} a side")
