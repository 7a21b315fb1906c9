"""The pictures shipped inside the package; they always load. Their origin and licences: samples/README.md."""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from rcccodec.images import read_image
from rcccodec.sources.source import Source

NAMES = ("sample-digits", "sample-photos")
PHOTOS = ("coffee.png", "rocket.png")
_SIDE = 32
_TRAIN_DIGITS = 192


def sample_bytes(file_name: str) -> bytes:
    """The content of one shipped file: digit.png, digits.png, coffee.png or rocket.png."""
    return files("rcccodec").joinpath("samples", file_name).read_bytes()


def load_samples(name: str, split: str, limit: int | None = None) -> Source:
    """``sample-digits``: 192 digits to train, 64 to test. ``sample-photos``: two photographs for both.

    Args:
        name: one of the two.
        split: "train" or "test".
        limit: how many; None for all.

    Returns:
        Source of images (n, 32, 32, 1), or of photographs (256, 384, 3).
    """
    if name == "sample-photos":
        photos = [_read(file_name) for file_name in PHOTOS]
        return Source(name, photos[:limit], notes=("the same two photographs serve train and test",))
    sheet = _read("digits.png")
    rows = sheet.shape[0] // _SIDE
    tiles = sheet.reshape(rows, _SIDE, -1, _SIDE).transpose(0, 2, 1, 3).reshape(-1, _SIDE, _SIDE, 1)
    chosen = tiles[:_TRAIN_DIGITS] if split == "train" else tiles[_TRAIN_DIGITS:]
    return Source(name, chosen[:limit].copy(), (_SIDE, _SIDE, 1))


def _read(file_name: str) -> NDArray[np.uint8]:
    return read_image(sample_bytes(file_name), name=file_name)[0]
