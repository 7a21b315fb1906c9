"""Blocks cut from photographs: what a block codec is trained on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rcccodec.errors import InputError
from rcccodec.images import pad_to_multiple, to_channels


def grid_blocks(
    images: Sequence[NDArray[np.uint8]], block: tuple[int, int], *, channels: int = 3, downscale: float = 1.0
) -> NDArray[np.uint8]:
    """All blocks the codec would cut: image by image, row by row, edges padded.

    Args:
        images: uint8 (h, w) or (h, w, 3).
        block: (h, w).
        channels: 1 or 3; colours are converted as `images.to_channels` does.
        downscale: factor of at least 1 by which images are shrunk first (Pillow's BICUBIC).

    Returns:
        uint8 (B, h, w, channels).

    Raises:
        InputError: no images, or ``downscale`` below 1.
    """
    h, w = block
    parts = []
    for image in _prepared(images, channels, downscale):
        padded = pad_to_multiple(image, h, w)
        rows, columns = padded.shape[0] // h, padded.shape[1] // w
        tiles = padded.reshape(rows, h, columns, w, channels).transpose(0, 2, 1, 3, 4)
        parts.append(tiles.reshape(-1, h, w, channels))
    return np.concatenate(parts)


def random_blocks(
    images: Sequence[NDArray[np.uint8]],
    block: tuple[int, int],
    count: int,
    *,
    channels: int = 3,
    downscale: float = 1.0,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Blocks at random places, every place of every image equally likely, in random order.

    An image smaller than a block is padded at its edges to one block and offers that one place.

    Args:
        images, block, channels, downscale: as for `grid_blocks`.
        count: how many.
        seed: of NumPy's PCG64; the same seed gives the same blocks.

    Returns:
        uint8 (count, h, w, channels).

    Raises:
        InputError: as for `grid_blocks`.
    """
    h, w = block
    prepared = [
        np.pad(
            image,
            [(0, max(0, h - image.shape[0])), (0, max(0, w - image.shape[1])), (0, 0)],
            mode="edge",
        )
        for image in _prepared(images, channels, downscale)
    ]
    places = np.array([(i.shape[0] - h + 1) * (i.shape[1] - w + 1) for i in prepared], dtype=np.int64)
    ends = np.cumsum(places)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = generator.integers(0, ends[-1], size=count)
    owners = np.searchsorted(ends, draws, side="right")
    result = np.empty((count, h, w, channels), np.uint8)
    for owner in np.unique(owners):
        image, mine = prepared[owner], np.flatnonzero(owners == owner)
        top, left = np.divmod(draws[mine] - (ends[owner] - places[owner]), image.shape[1] - w + 1)
        windows = np.lib.stride_tricks.sliding_window_view(image, (h, w), axis=(0, 1))
        result[mine] = windows[top, left].transpose(0, 2, 3, 1)
    return result


def _prepared(
    images: Sequence[NDArray[np.uint8]], channels: int, downscale: float
) -> list[NDArray[np.uint8]]:
    if not len(images):
        raise InputError("no images to cut blocks from")
    if not downscale >= 1:
        raise InputError(f"downscale is a factor of at least 1, not {downscale}")
    return [to_channels(_shrunk(image, downscale), channels)[0] for image in images]


def _shrunk(image: NDArray[np.uint8], downscale: float) -> NDArray[np.uint8]:
    if downscale == 1:
        return image
    size = tuple(max(1, round(side / downscale)) for side in (image.shape[1], image.shape[0]))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
