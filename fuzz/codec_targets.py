"""Targets of the file format: container, whole decode, index codes, tiles of latents; with tiny models."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz import rcc_files
from fuzz.mutate import number
from fuzz.target import Target, digest, expect
from rcccodec import codec, container
from rcccodec.bundle import AnyModel, load_model
from rcccodec.errors import FormatError, LimitError, RccError
from rcccodec.index_code import (
    CodebookPrior,
    FittedCode,
    IndexCode,
    ZipfHuffman,
    decode_segments,
    encode_segments,
)
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder
from rcccodec.latent import chunk_codes
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Channel, Reader, read_tile, tile_values, write_tile

TESTS = Path(__file__).resolve().parents[1] / "tests"
MAX_PIXELS = 1 << 14  # a hostile file may ask for these; more is refused
CHUNK_CODERS = ("pfr", "orc", "mincost")


def write_models(folder: Path) -> dict[str, Path]:
    """The tiny models of the tests, below ``folder``."""
    sys.path.insert(0, str(TESTS))
    from tiny_latent import tiny_latent_model
    from tiny_models import write_tiny_models

    if not (folder / "grey").is_dir():
        write_tiny_models(folder)
        tiny_latent_model(folder / "latent")
    return {name: folder / name for name in ("grey", "colour", "latent")}


def codec_targets(folder: Path) -> list[Target]:
    """Targets around ``.rcc`` files; models are written below ``folder``."""
    models = {name: load_model(path) for name, path in write_models(folder).items()}
    one_shot = _one_shot_files(models["grey"], models["colour"])
    latent = _latent_files(models["latent"])
    by_id = {bytes.fromhex(model.sha256)[:6]: model for model in models.values()}
    files = {"edit": rcc_files.edit, "is_guarded": True}
    return [
        Target("container", _unpack, (*one_shot, *latent), count_share=8, **files),
        Target("decode", partial(_decode, by_id, models["grey"]), one_shot, count_share=2, **files),
        Target("decode-latent", partial(_decode, by_id, models["latent"]), latent, count_share=2, **files),
        Target("salvage", partial(_intact, by_id, models["latent"]), (*one_shot, *latent, b"@" * 3000),
               agrees=_is_part, **files),
        Target("prefix", partial(_prefix, models["latent"]), latent, rcc_files.edit),
        *_index_targets(),
        Target("tile", partial(_tile, models["latent"]), _tile_files(latent), count_share=2),
        Target("chunk-code", partial(_chunk_code, models["latent"]), (bytes(8), bytes(range(200)))),
    ]  # fmt: skip


def _one_shot_files(grey: AnyModel, colour: AnyModel) -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    flat, ramp = (
        np.full((8, 8), 90, np.uint8),
        np.arange(24 * 20 * 3, dtype=np.uint32).reshape(24, 20, 3) % 251,
    )
    digits = [rng.integers(0, 256, (8, 8), np.uint8) for _ in range(6)]
    made = [
        codec.compress(x, model, **options).data
        for model, x, options in (
            (grey, flat, {"index_code": "zipf"}), (grey, digits, {"coder": "pfr", "index_code": "fitted"}),
            (grey, digits, {"index_code": "prior"}),
            (grey, [digits[0], np.zeros((3, 17), np.uint8)], {"rung": 1}),
            (grey, digits, {"num_candidates": 1000, "seed": 1 << 40, "index_code": "zipf"}),
            (colour, ramp.astype(np.uint8), {"index_code": "zipf", "joint": False}),
            (colour, ramp.astype(np.uint8), {"rung": 2, "coder": "orc", "num_candidates": 1 << 12}),
            (colour, digits, {"joint": True, "num_candidates": 1 << 14}),
            (colour, [*digits, ramp.astype(np.uint8)], {"apart": True, "num_candidates": 256}),
        )
    ]  # fmt: skip
    return tuple(made)


def _latent_files(model: AnyModel) -> tuple[bytes, ...]:
    rng = np.random.default_rng(1)
    small, grey = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 256, (17, 16), np.uint8)
    wide = np.broadcast_to(np.arange(290, dtype=np.uint8)[None, :, None], (20, 290, 3)).copy()
    options: list[tuple[Any, dict[str, Any]]] = [
        (small, {"num_candidates": 64}), (wide, {"num_candidates": 64, "rung": 0}),
        (grey, {"num_candidates": 64}),
        *((small, {"coder": coder, "num_candidates": 256, "rung": 0}) for coder in CHUNK_CODERS),
        ([small, grey, grey], {"num_candidates": 64, "rung": 0}),
    ]  # fmt: skip
    return tuple(codec.compress(x, model, **o).data for x, o in options)


def _unpack(data: bytes) -> Any:
    _swallow(container.unpack_prefix, data)
    found = container.unpack(data)
    expect(container.pack(*found) == data, "pack does not give back what unpack read")
    return found[0], tuple(found[1])


def _swallow(read: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(FormatError, LimitError):
        read(data)


def _decode(models: dict[bytes, AnyModel], other: AnyModel, data: bytes) -> str:
    model = models.get(data[4:10], other)
    return digest(codec.decompress(data, model, max_pixels=MAX_PIXELS))


def _intact(models: dict[bytes, AnyModel], other: AnyModel, data: bytes) -> frozenset[tuple[int, str]]:
    """The number and content of every image that is left."""
    model = next((model for name, model in models.items() if name in data), other)
    found = codec.decompress_intact(data, model, max_pixels=MAX_PIXELS)
    end = max(found.images, default=-1) + 1 if found.num_images is None else found.num_images
    expect(all(0 <= number < end for number in found.images), "an image of no number")
    whole = None
    with contextlib.suppress(RccError):
        whole = digest(codec.decompress(data, model, max_pixels=MAX_PIXELS))
    expect((whole is not None) == (not found.faults), "whole, and not, at once")
    expect(whole is None or whole == digest(found.images.values()), "other images than of a whole file")
    return frozenset((number, digest([image])) for number, image in found.images.items())


def _is_part(known: set[frozenset[tuple[int, str]]], value: frozenset[tuple[int, str]]) -> bool:
    return any(value <= one for one in known)


def _prefix(model: AnyModel, data: bytes) -> str:
    found = codec.decompress_prefix(data, model, max_pixels=MAX_PIXELS)
    expect(0 < found.whole_tiles <= found.tiles, "more tiles than there are")
    return digest([found.image])


def _index_targets() -> list[Target]:
    rng = np.random.default_rng(2)
    payloads = tuple(bytes([k]) + rng.bytes(size) for k in range(24) for size in (0, 3, 40))
    return [
        Target("index-code", _index_code, payloads, count_share=4),
        Target("range-coder", _range_coder, payloads[:12], count_share=4),
    ]


def index_codes() -> list[IndexCode]:
    """Codes of every kind; among them the largest, the smallest, and such as no encoder would choose."""
    rng = np.random.default_rng(3)
    flat = [65536 - 79, *[1] * 79]
    levels = rng.integers(0, 256, 300).astype(np.uint8)
    levels[7] = 0
    return [
        *(ZipfHuffman(n, r) for n, r in ((1, 0), (2, 9), (1000, 0), (1 << 16, 6000), (1 << 40, 10**6))),
        ZipfHuffman((1 << 40) - 1, 3000), *(FittedCode(flat, n) for n in (1, 3, 12345, 1 << 40)),
        FittedCode(flat[::-1], 1 << 20), CodebookPrior(np.zeros(1, np.uint8)), CodebookPrior(levels),
        CodebookPrior(np.full(100, 255, np.uint8)),
    ]  # fmt: skip


_CODES = index_codes()


def _index_code(data: bytes) -> str:
    """First byte: which code; second: how many indices, and of how many segments."""
    code, many, payload = _CODES[data[:1][0] % len(_CODES) if data else 0], data[1:2], data[2:]
    count = many[0] if many else 0
    counts = [count] if count % 2 else [count // 2, 0, count - count // 2]
    found = decode_segments(payload, [(code, n) for n in counts])
    expect(all(((k >= 0) & (k < code.num_candidates)).all() for k in found), "an index is out of range")
    again = encode_segments([(code, k) for k in found])
    expect(again == payload, "other bytes than were decoded")
    return digest(found)


def _range_coder(data: bytes) -> str:
    """Symbols of any totals are read back, whatever the bytes are; so is what they encode to."""
    random = Random(data[:4])
    totals = [number(random, 5, 56) % (1 << 56) + 1 for _ in range(random.randrange(1, 40))]
    cuts = []
    for total in totals:
        start = random.randrange(total)
        cuts.append((start, random.randint(1, total - start)))
    decoder, encoder, symbols = RangeDecoder(data[4:]), RangeEncoder(), []
    for total, (start, frequency) in zip(totals, cuts, strict=True):
        slot = decoder.peek(total)
        own = (0, start) if slot < start else (start, frequency)
        if slot >= start + frequency:
            own = (start + frequency, total - start - frequency)
        decoder.consume(*own)
        symbols.append(own)
        encoder.encode(*own, total)
    written = encoder.finish()
    again = RangeDecoder(written)
    for total, (start, frequency) in zip(totals, symbols, strict=True):
        expect(start <= again.peek(total) < start + frequency, "another symbol than was encoded")
        again.consume(start, frequency)
    return written.hex()


def _tile_files(files: Sequence[bytes]) -> tuple[bytes, ...]:
    """Payloads of the files, each after a byte for its coder and slope, and one for its size."""
    made = []
    for data in files:
        header, groups = container.unpack(data)
        kind = header.coder + 4 * header.rung
        made.append(bytes([kind, 0x23]) + groups[0].payload)
    return (*made, bytes((3, 0xFF, 1, 0)), bytes((0, 0xFF, 1, 0, 0)), bytes((6, 0xFF, 255, 0, 0)))


def _tile(model: LatentModel, data: bytes) -> str:
    if len(data) < 2:
        raise FormatError("nothing")
    coder = container.CODERS[data[0] % 4]
    prior = model.priors[data[0] // 4 % 2]
    channel = Channel(coder, 256, 5, model.chunk_codes.get(coder, {}))
    reader = Reader(data[2:])
    tile = read_tile(prior, channel, reader, 1 + data[1] // 16, 1 + data[1] % 16)
    written, _, _ = write_tile(prior, channel, tile)
    expect(data[2:].startswith(written), "other bytes than were read")
    values = tile_values(prior, channel, tile)
    expect(bool(np.isfinite(values).all()), "a latent is not finite")
    return digest([tile.classes, np.asarray(tile.symbols), values])


def _chunk_code(model: LatentModel, data: bytes) -> str:
    """First byte: the coder; then N, the number of chunks, and the bits of each."""
    if len(data) < 4:
        raise FormatError("nothing")
    count = data[2]
    codes, n = model.chunk_codes[CHUNK_CODERS[data[0] % 3]], 1 << 6 + data[1] % 35
    bits = np.frombuffer(data[3 : 3 + count], np.uint8).astype(np.int64) % 41
    payload = data[3 + len(bits) :]
    found = chunk_codes.decode_indices(payload, bits, codes, n)
    expect(chunk_codes.encode_indices(found, bits, codes, n) == payload, "other bytes than were decoded")
    return digest([found])
