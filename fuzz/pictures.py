"""Small image files of every kind that is read, and edits that keep a PNG's checksums right."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image

from fuzz.mutate import mutate, number

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture_files() -> list[bytes]:
    """One file of each format and mode, made here: 9x7 pixels or so."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    grey, rgba = rgb.convert("L"), rgb.convert("RGBA")
    deep = Image.fromarray(rng.integers(0, 1 << 16, (7, 9), np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    several = {"save_all": True, "append_images": [rgb.rotate(180)]}
    kept = {
        "PNG": [(rgb, {}), (grey, {}), (rgba, {"pnginfo": _text()}), (rgb.quantize(8), {"transparency": 1}),
                (grey.convert("1"), {}), (deep, {}), (grey.convert("LA"), {}),
                (rgb, {"icc_profile": b"x" * 200}), (rgb, several)],
        "JPEG": [(rgb, {"exif": turned}), (grey, {"progressive": True}), (rgb.convert("CMYK"), {})],
        "WEBP": [(rgb, {"lossless": True}), (rgba, {"quality": 50}), (rgb, several)],
        "GIF": [(rgb.quantize(8), {"transparency": 0}), (rgb.quantize(8), several)],
        "BMP": [(rgb, {}), (grey, {})],
        "TIFF": [(rgb, {"compression": "tiff_lzw"}), (grey, {"compression": "tiff_deflate"}), (deep, {}),
                 (rgb, {"compression": "jpeg"}), (grey.convert("1"), {"compression": "group4"}), (rgba, {})],
        "PPM": [(rgb, {}), (grey, {}), (deep, {}), (grey.convert("1"), {})],
        "TGA": [(rgb, {"compression": "tga_rle"}), (grey, {})],
        "JPEG2000": [(rgb, {}), (grey, {"no_jp2": True})],
        "AVIF": [(rgb.resize((16, 16)), {"quality": 30})],
        "MPO": [(rgb, several)],
    }  # fmt: skip
    Image.init()
    files = []
    for kind, pictures in kept.items():
        for picture, options in pictures if kind in Image.SAVE else ():
            buffer = io.BytesIO()
            picture.save(buffer, kind, **options)
            files.append(buffer.getvalue())
    return files


def edit(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A PNG with a chunk changed and its checksum right; of another format any mutation."""
    chunks = _chunks(data)
    if not chunks:
        return mutate(random, data, seeds)
    at = random.randrange(len(chunks))
    kind, content = chunks[at]
    what = random.randrange(8)
    if what == 0:
        chunks.insert(at, random.choice(chunks))
    elif what == 1:
        del chunks[at]
    elif what == 2:
        chunks.insert(1, random.choice(_CHUNKS))
    elif kind == b"IHDR" and len(content) == 13 and what < 6:
        width, height, *rest = struct.unpack(">II5B", content)
        rest[random.randrange(5)] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        if random.randrange(2):
            width, height = number(random, width, 17), number(random, height, 17)
        chunks[at] = (kind, struct.pack(">II5B", width, height, *rest))
    elif kind == b"IDAT" and what < 6:
        try:
            pixels = zlib.decompressobj().decompress(content, 1 << 16)
        except zlib.error:
            pixels = b""
        chunks[at] = (kind, zlib.compress(mutate(random, pixels, ())))
    else:
        chunks[at] = (kind, mutate(random, content, [c for _, c in chunks]))
    return _SIGNATURE + b"".join(map(_chunk, chunks))


def _text() -> object:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "x" * 300, zip=True)
    info.add_itxt("Title", "ä", "de", "ä")
    return info


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    if not data.startswith(_SIGNATURE):
        return []
    found, at = [], len(_SIGNATURE)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, content = chunk
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


_BOMB = zlib.compress(bytes(1 << 22))
_CHUNKS = (
    (b"zTXt", b"k\0\0" + _BOMB), (b"iCCP", b"k\0\0" + _BOMB), (b"iTXt", b"k\0\1\0\0\0" + _BOMB),
    (b"tEXt", b"k\0" + bytes(100_000)), (b"tRNS", b"\0\1\0\2\0\3"), (b"PLTE", bytes(range(255))),
    (b"acTL", b"\0\0\0\2\0\0\0\0"), (b"acTL", b"\xff" * 8), (b"eXIf", b"II*\0\x08\0\0\0" + b"\xff" * 30),
    (b"IEND", b""), (b"fcTL", bytes(26)),
)  # fmt: skip
