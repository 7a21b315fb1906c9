"""The bytes of one picture: its tiles in order, each the classes of its positions, then its dimensions.

    picture = tile ... tile                   tiles of 16x16 positions, row by row
    tile    = measure (1 byte) | length of classes (varint) | classes (`class_code`) | dimensions
    dimensions of a trellis: the path's bits, the first highest, zeros to fill the last byte
    dimensions of chunks:    length (varint) | indices (`chunks`)

How many dimensions there are, and of what rates, follows from the classes; so a tile can be read, or passed
over, without any other and without a floating-point number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rcccodec.container import varint
from rcccodec.errors import FormatError
from rcccodec.latent import chunk_codes, chunks, trellis
from rcccodec.latent.prior import SlopePrior

CHUNK_STREAM = 0  # of common randomness
LEAST_TILE_BYTES = 2  # measure and a length of 0
MAX_LENGTH_BYTES = 3  # of a varint here: a tile has at most 256 classes and 2^16 dimensions


@dataclass(frozen=True)
class Channel:
    """How dimensions are sent: what the file's header says.

    Args:
        coder: trellis, pfr, orc or mincost.
        num_candidates: of a chunk; 2^L states of a trellis.
        codes: the model's index codes of chunks for this coder.
    """

    coder: str
    num_candidates: int
    seed: int
    codes: chunk_codes.Fitted = field(default_factory=dict)

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
            raise FormatError(
                f"truncated payload: {size} bytes wanted, {len(self._data) - self._position} left"
            )
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


def sent_rates(prior: SlopePrior, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expected rates of what is sent of a tile, in order, int64 (n,)."""
    rates = rates_of(prior, classes)
    return rates[rates > 0]


def chunks_of(rates: NDArray[np.int64], measure: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where chunks of dimensions of these rates start, n at the end; and the bits of each."""
    starts = chunks.cut(rates, 250 * measure)
    return starts, chunk_codes.chunk_bits(rates, starts)


def tile_values(prior: SlopePrior, channel: Channel, tile: Tile) -> NDArray[np.float32]:
    """z (n,) of what is sent of a tile, in order."""
    rates = sent_rates(prior, tile.classes)
    if channel.coder == "trellis":
        when = trellis.schedule(rates, tile.measure)
        z = trellis.values(tile.symbols, when, log2_states=channel.log2_states, seed=channel.seed)
        return z * trellis.shrinkage(rates, tile.measure)
    starts, _ = chunks_of(rates, tile.measure)
    return chunks.values(tile.symbols, starts, seed=channel.seed, stream=CHUNK_STREAM)


def write_tile(prior: SlopePrior, channel: Channel, tile: Tile) -> tuple[bytes, int, int]:
    """The bytes of a tile; and how many of them are classes and dimensions, without lengths."""
    classes = prior.code.encode(tile.classes)
    if channel.coder == "trellis":
        body = np.packbits(tile.symbols.astype(np.uint8)).tobytes()
        return bytes([tile.measure]) + varint(len(classes)) + classes + body, len(classes), len(body)
    _, bits = chunks_of(sent_rates(prior, tile.classes), tile.measure)
    body = chunk_codes.encode_indices(tile.symbols, bits, channel.codes, channel.num_candidates)
    head = bytes([tile.measure]) + varint(len(classes)) + classes
    return head + varint(len(body)) + body, len(classes), len(body)


def read_tile(prior: SlopePrior, channel: Channel, reader: Reader, height: int, width: int) -> Tile:
    """The next tile of a payload.

    Raises:
        FormatError: bytes that no encoder writes.
    """
    measure = reader.take(1)[0]
    if measure == 0:
        raise FormatError("corrupt payload: a tile of measure 0")
    classes = prior.code.decode(reader.take(reader.length()), height, width)
    sent = sent_rates(prior, classes)
    if channel.coder == "trellis":
        num_bits = trellis.schedule(sent, measure).num_bits
        bits = np.unpackbits(np.frombuffer(reader.take(-(-num_bits // 8)), np.uint8))
        if bits[num_bits:].any():
            raise FormatError("corrupt payload: bits after the end of a tile")
        return Tile(measure, classes, bits[:num_bits])
    _, bits = chunks_of(sent, measure)
    body = reader.take(reader.length())
    return Tile(
        measure, classes, chunk_codes.decode_indices(body, bits, channel.codes, channel.num_candidates)
    )
