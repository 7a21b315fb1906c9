"""The bytes of tiles: round trips with every coder, refusals, and no more bytes than are said."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rcccodec.container import varint
from rcccodec.errors import FormatError, ModelError
from rcccodec.index_code.fitted import fit
from rcccodec.latent import trellis
from rcccodec.latent.class_code import ClassCode
from rcccodec.latent.payload import (
    Channel,
    Reader,
    Tile,
    chunks_of,
    rates_of,
    read_tile,
    sent_rates,
    tile_values,
    write_tile,
)
from rcccodec.latent.prior import SlopePrior

CLASSES, CHANNELS = 6, 5


@pytest.fixture(scope="module")
def prior() -> SlopePrior:
    random = np.random.default_rng(0)
    left, up = (random.integers(-90, 90, (CLASSES + 1, CLASSES)).astype(np.int16) for _ in range(2))
    rates = random.integers(0, 3000, (CLASSES, CHANNELS))
    rates[random.random(rates.shape) < 0.3] = 0
    rates[2] = 0  # a class that sends nothing
    shape = (CLASSES, CHANNELS)
    return SlopePrior(torch.zeros(shape), torch.ones(shape), rates.astype(np.int64), ClassCode(left, up))


def channel_of(coder: str) -> Channel:
    if coder == "trellis":
        return Channel(coder, 1 << 7, 3)
    indices = np.exp2(np.random.default_rng(1).uniform(0, 10, 300)).astype(np.int64) - 1
    return Channel(coder, 1 << 10, 3, {8: fit(indices, num_candidates=1 << 10)})


def some_tile(prior: SlopePrior, channel: Channel, height: int, width: int, seed: int) -> Tile:
    random = np.random.default_rng(seed)
    classes = random.integers(0, CLASSES, (height, width))
    sent = sent_rates(prior, classes)
    if channel.coder == "trellis":
        num_bits = trellis.schedule(sent, 50).num_bits
        return Tile(50, classes, random.integers(0, 2, num_bits).astype(np.uint8))
    starts, _ = chunks_of(sent, 24)
    return Tile(24, classes, random.integers(0, channel.num_candidates, len(starts) - 1))


@pytest.mark.parametrize("coder", ["trellis", "pfr", "orc", "mincost"])
@pytest.mark.parametrize("size", [(1, 1), (1, 16), (16, 16), (3, 2)])
def test_tiles_come_back_one_after_another(prior, coder, size) -> None:
    channel = channel_of(coder)
    tiles = [some_tile(prior, channel, *size, seed) for seed in range(3)]
    written = [write_tile(prior, channel, tile) for tile in tiles]
    reader = Reader(b"".join(data for data, _, _ in written))
    for tile, (data, of_classes, of_dimensions) in zip(tiles, written, strict=True):
        found = read_tile(prior, channel, reader, *size)
        assert found.measure == tile.measure
        assert np.array_equal(found.classes, tile.classes)
        assert np.array_equal(found.symbols, tile.symbols)
        assert np.array_equal(tile_values(prior, channel, found), tile_values(prior, channel, tile))
        lengths = len(varint(of_classes)) + (0 if coder == "trellis" else len(varint(of_dimensions)))
        assert len(data) == 1 + lengths + of_classes + of_dimensions
    reader.finish()


@pytest.mark.parametrize("coder", ["trellis", "pfr"])
def test_a_tile_that_sends_nothing_is_classes_alone(prior, coder) -> None:
    channel, classes = channel_of(coder), np.full((4, 4), 2)
    tile = Tile(64, classes, np.zeros(0, np.uint8 if coder == "trellis" else np.int64))
    data, _, of_dimensions = write_tile(prior, channel, tile)
    assert of_dimensions == 0
    found = read_tile(prior, channel, Reader(data), 4, 4)
    assert np.array_equal(found.classes, classes)
    assert tile_values(prior, channel, found).shape == (0,)


def test_values_are_float32_and_one_for_each_rate_above_zero(prior) -> None:
    for coder in ("trellis", "orc"):
        channel = channel_of(coder)
        tile = some_tile(prior, channel, 5, 5, 1)
        z = tile_values(prior, channel, tile)
        assert z.dtype == np.float32
        assert z.shape == ((rates_of(prior, tile.classes) > 0).sum(),)
        assert rates_of(prior, tile.classes).shape == (25, CHANNELS)


@pytest.mark.parametrize("coder", ["trellis", "mincost"])
def test_damage_is_refused_or_is_another_tile_written_so(prior, coder) -> None:
    channel = channel_of(coder)
    data, _, _ = write_tile(prior, channel, some_tile(prior, channel, 3, 3, 4))
    refused = 0
    for place in range(len(data)):
        for change in (0x01, 0x10, 0x80, data[place]):
            damaged = bytes([*data[:place], data[place] ^ change, *data[place + 1 :]])
            reader = Reader(damaged)
            try:
                found = read_tile(prior, channel, reader, 3, 3)
                again = write_tile(prior, channel, found)[0]
                assert damaged.startswith(again)
                reader.finish()
            except FormatError:
                refused += 1
    assert refused > len(data) / 2 if coder == "mincost" else refused > 8
    for end in range(len(data)):
        with pytest.raises(FormatError):
            _read_whole(prior, channel, data[:end])


def _read_whole(prior: SlopePrior, channel: Channel, data: bytes) -> None:
    reader = Reader(data)
    read_tile(prior, channel, reader, 3, 3)
    reader.finish()


def test_bits_after_the_end_of_a_path_and_a_measure_of_zero_are_refused(prior) -> None:
    channel = channel_of("trellis")
    tile = next(t for s in range(99) if len((t := some_tile(prior, channel, 3, 3, s)).symbols) % 8)
    data, _, _ = write_tile(prior, channel, tile)
    with pytest.raises(FormatError, match="after the end"):
        _read_whole(prior, channel, data[:-1] + bytes([data[-1] | 1]))
    with pytest.raises(FormatError, match="measure 0"):
        _read_whole(prior, channel, b"\0" + data[1:])


def test_a_model_without_codes_of_chunks_is_refused(prior) -> None:
    data, _, _ = write_tile(prior, channel_of("pfr"), some_tile(prior, channel_of("pfr"), 2, 2, 1))
    with pytest.raises(ModelError):
        read_tile(prior, Channel("pfr", 1 << 10, 3), Reader(data), 2, 2)


@given(st.integers(0, (1 << 21) - 1), st.binary(max_size=3))
def test_lengths_come_back(value: int, rest: bytes) -> None:
    reader = Reader(varint(value) + rest)
    assert reader.length() == value
    assert reader.take(len(rest)) == rest
    reader.finish()


@pytest.mark.parametrize(
    "data", [b"\x80\x00", b"\x85\x80\x00", b"\xff\xff\xff\x01", b"\xff\xff\xff", b"", b"\x80"]
)
def test_lengths_too_long_or_not_in_their_shortest_form_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Reader(data).length()


def test_a_reader_knows_what_is_left() -> None:
    reader = Reader(b"abc")
    assert reader.take(2) == b"ab"
    with pytest.raises(FormatError, match="1 bytes too many"):
        reader.finish()
    with pytest.raises(FormatError, match="2 bytes wanted, 1 left"):
        reader.take(2)
