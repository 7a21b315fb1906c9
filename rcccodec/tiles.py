"""Arrays cut into blocks of one size and put together again; `rcccodec.images` offers these too."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pad_to_multiple(image: NDArray[Any], block_height: int, block_width: int) -> NDArray[Any]:
    """Repeat the last row and column until height and width are multiples of the block's.

    Args:
        image: (H, W) or (H, W, C), any dtype, H and W at least 1.

    Returns:
        the same array if nothing was to be added, else a new one; ``result[:H, :W]`` equals ``image``.
    """
    below, right = -image.shape[0] % block_height, -image.shape[1] % block_width
    if not (below or right):
        return image
    return np.pad(image, [(0, below), (0, right)] + [(0, 0)] * (image.ndim - 2), mode="edge")


def to_blocks(image: NDArray[Any], block: tuple[int, int]) -> NDArray[Any]:
    """Cut into blocks, row by row of blocks, each flattened in the order (h, w, c).

    Args:
        image: (H, W, C) with H and W multiples of the block's sides (see `pad_to_multiple`).
        block: (h, w).

    Returns:
        (H/h * W/w, h*w*C), same dtype, a copy.

    Raises:
        ValueError: a side is not a multiple.

    Invariant: `from_blocks` gives the image back.
    """
    (height, width, channels), (h, w) = image.shape, block
    if height % h or width % w:
        raise ValueError(f"{width}x{height} is not a whole number of {w}x{h} blocks")
    tiles = image.reshape(height // h, h, width // w, w, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, h * w * channels).copy()


def from_blocks(
    blocks: NDArray[Any], block: tuple[int, int], size: tuple[int, int], channels: int
) -> NDArray[Any]:
    """Undo `to_blocks`.

    Args:
        blocks: (B, h*w*channels).
        block: (h, w).
        size: (H, W) of the padded image, multiples of the block's sides.

    Returns:
        (H, W, channels), same dtype, a copy.

    Raises:
        ValueError: B or the length of a block does not fit.
    """
    (height, width), (h, w) = size, block
    if height % h or width % w or blocks.shape != (height // h * (width // w), h * w * channels):
        raise ValueError(f"{blocks.shape} is not a {width}x{height} image of {w}x{h} blocks")
    tiles = blocks.reshape(height // h, width // w, h, w, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(height, width, channels).copy()
