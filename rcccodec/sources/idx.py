"""MNIST and Fashion-MNIST from their idx files."""

import gzip
import math
import sys
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rcccodec.errors import InputError
from rcccodec.plain_file import open_plain
from rcccodec.sources.source import Source

SIDE = 32
_LEAST_PIXELS = 64  # of an image in the file: a resized one must not cost many times as much
_MAX_BYTES = 1 << 28  # far above the 47 MB of the largest standard file


def file_name(split: str) -> str:
    """The standard name of a split's image file."""
    return f"{'train' if split == 'train' else 't10k'}-images-idx3-ubyte"


def load_idx_images(path: Path, name: str, limit: int | None) -> Source:
    """Digits or garments, resized from 28x28 to 32x32 with Pillow's BILINEAR.

    Args:
        path: an idx file of unsigned bytes with three dimensions, gzipped or not.
        name: of the source.
        limit: how many images to keep from the start of the file; None for all.

    Returns:
        Source of images (n, 32, 32, 1).

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    images = parse_idx(read_maybe_gzip(path), str(path))
    if images.ndim != 3 or 0 in images.shape:
        raise InputError(f"{path}: an idx file of shape {images.shape}, not one of images")
    images = images[:limit]
    if images[0].size < _LEAST_PIXELS:
        raise InputError(f"{path}: images of {images.shape[2]}x{images.shape[1]} pixels are too small")
    x = np.empty((len(images), SIDE, SIDE, 1), np.uint8)
    for image, resized in zip(images, x, strict=True):
        resized[:, :, 0] = _resize(image)
    return Source(name, x, (SIDE, SIDE, 1))


def parse_idx(data: bytes, name: str) -> NDArray[np.uint8]:
    """The array an idx file holds.

    Layout: 0, 0, element type (8 = unsigned byte), number of dimensions d; d big-endian 32-bit sizes; data.

    Args:
        data: the whole file, not compressed.
        name: of the file, for messages.

    Returns:
        uint8 of the shape in the header, read-only.

    Raises:
        InputError: another element type, a header cut short, or a length that the header does not state.

    Invariant: nothing is allocated for sizes that a header merely claims.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise InputError(f"{name}: not an idx file")
    if data[2] != 8:
        raise InputError(f"{name}: idx element type 0x{data[2]:02x}; only unsigned bytes (0x08) are read")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise InputError(f"{name}: idx header cut short")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    # NumPy holds no array whose sides other than 0 multiply to more than this
    fits = math.prod(max(1, side) for side in shape) <= sys.maxsize
    if data[3] > 8 or not fits or math.prod(shape) != len(data) - start:
        sizes = "x".join(map(str, shape[:8]))
        raise InputError(
            f"{name}: damaged idx file: {len(data) - start} bytes of data, its header says {sizes}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_maybe_gzip(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzipped; at most 256 MiB.

    Raises:
        InputError: unreadable, damaged or larger.
    """
    try:
        with open_plain(path, _MAX_BYTES) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.open(file) as unpacked:
                    data = unpacked.read(_MAX_BYTES + 1)
            else:
                data = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: more than {_MAX_BYTES} bytes, not one of the standard files")
    return data


def _resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
