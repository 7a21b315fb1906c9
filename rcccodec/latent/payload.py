"""The bytes of one picture: its tiles in order, each the classes of its positions, then its dimensions.

    picture = tile ... tile                   tiles of 16x16 positions, row by row
    tile    = measure (1 byte) | length of classes (varint) | classes (`class_code`) | dimensions
    dimensions of a trellis: the path's bits, the first highest, zeros to fill the last byte
    dimensions of chunks:    length (varint) | indices (`chunks`)

How many dimensions there are, and of what rates, follows from the classes; so a tile can be read, or passed over,
without any other and without a floating-point number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rcccodec.container import varint
from rcccodec.errors import FormatError
from rcccodec.latent import trellis
from rcccodec.latent.prior import SlopePrior

MAX_LENGTH_BYTES = 3  # of a varint here: a tile has at most 256 classes and 2^16 dimensions


@dataclass(frozen=True)
class Channel:
    """How dimensions are sent: what the file's header says.

    Args:
        coder: trellis, pfr, orc or mincost.
        num_candidates: of a chunk; 2^L states of a trellis.
    """

    coder: str
    num_candidates: int
    seed: int

    @property
    def log2_states(self) -> int:
        """L of a trellis."""
        return self.num_candidates.bit_length() - 1


@dataclass(frozen=True)
class Tile:
    """What a file says of a tile: classes (h, w), and bits of a path or indices of chunks.

    ``measure``: 1..255. Of a trellis, what the expected rates are multiplied with, in 64ths; of chunks, the
    expected rate of one, in quarters of a bit.
    """

    measure: int
    classes: NDArray[np.int64]
    symbols: NDArray[np.int64] | NDArray[np.uint8]


class Reader:
    """A place in a payload that only moves forward."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises: FormatError: there are fewer.
        """
        end = self._position + size
        if end > len(self._data):
            raise FormatError(f"truncated payload: {size} bytes wanted, {len(self._data) - self._position} left")
        self._position = end
        return self._data[end - size : end]

    def length(self) -> int:
        """A varint in its shortest form, of at most three bytes."""
        value = 0
        for place in range(MAX_LENGTH_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if byte == 0 and place:
                    break
                return value
        raise FormatError("a length in the payload is not in its shortest form, or too long")

    def finish(self) -> None:
        """Raises: FormatError: bytes are left."""
        if self._position != len(self._data):
            raise FormatError(f"{len(self._data) - self._position} bytes too many in the payload")


def rates_of(prior: SlopePrior, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expected rates (P, M) of a tile's dimensions, millibits; those of 0 are not sent."""
    return prior.rates_millibits[classes.reshape(-1)]


def write_tile(prior: SlopePrior, channel: Channel, tile: Tile) -> tuple[bytes, int, int]:
    """The bytes of a tile; and how many of them are classes and dimensions, without lengths."""
    classes = prior.code.encode(tile.classes)
    if channel.coder == "trellis":
        body = np.packbits(tile.symbols.astype(np.uint8)).tobytes()
        return bytes([tile.measure]) + varint(len(classes)) + classes + body, len(classes), len(body)
    raise NotImplementedError


def read_tile(prior: SlopePrior, channel: Channel, reader: Reader, height: int, width: int) -> Tile:
    """The next tile of a payload.

    Raises:
        FormatError: bytes that no encoder writes.
    """
    measure = reader.take(1)[0]
    if measure == 0:
        raise FormatError("corrupt payload: a tile of measure 0")
    classes = prior.code.decode(reader.take(reader.length()), height, width)
    rates = rates_of(prior, classes)
    sent = rates[rates > 0]
    if channel.coder == "trellis":
        num_bits = trellis.schedule(sent, measure).num_bits
        bits = np.unpackbits(np.frombuffer(reader.take(-(-num_bits // 8)), np.uint8))
        if bits[num_bits:].any():
            raise FormatError("corrupt payload: bits after the end of a tile")
        return Tile(measure, classes, bits[:num_bits])
    raise NotImplementedError
