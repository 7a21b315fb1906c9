"""Pictures read off a payload a band at a time: memory beside the pixels does not grow with the picture.

payload --tiles--> latents of a band, and of a row of tiles above and below it --synthesis--> its pixels
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.errors import FormatError
from rcccodec.latent.codec import put_tile, tile_latents
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Channel, Reader, read_tile
from rcccodec.latent.spec import LATENT_STRIDE, TILE
from rcccodec.latent.windows import grid_of, needed, synthesise, tiles_of
from rcccodec.threads import one_thread

BAND_POSITIONS = 1 << 14  # of latents at a time, and a row of tiles at the least: 4 megapixels

Region = tuple[int, int, int, int]  # top, left, height, width in pixels


def read_picture(
    model: LatentModel,
    slope: int,
    channel: Channel,
    reader: Reader,
    size: tuple[int, int],
    region: Region | None = None,
    *,
    partial: bool = False,
) -> tuple[NDArray[np.uint8], int]:
    """The next picture of a payload, or a region of it, and how many of its tiles are whole.

    Args:
        size: (height, width) of the picture, pixels.
        region: tiles that its pixels do not depend on are read but not made.
        partial: the payload may end early; where there are no tiles, each latent is its prior's mean.

    Returns:
        uint8 (h, w, 3); and all tiles unless ``partial``.

    Raises:
        FormatError: the payload is damaged; if ``partial``, not one tile is whole.

    Invariant: the same pixels, to the bit, as if all was made at once.
    """
    tiles = _Tiles(model, slope, channel, reader, region, partial)
    rows, columns = grid_of(*size)
    top, left, height, width = region or (0, 0, *size)
    pixels = np.empty((height, width, 3), np.uint8)  # no memory before it is written to
    step = TILE * max(1, BAND_POSITIONS // (TILE * columns))
    y = torch.empty(model.spec.latent_dim, 0, columns, dtype=torch.float32)
    start = 0  # y has the latents of rows from here on
    for first in range(0, rows, step):
        last = min(first + step, rows)
        begin, end = max(0, first - TILE), min(last + TILE, rows)
        y = torch.cat([y[:, begin - start :], tiles.read_rows(start + y.shape[1], end, columns)], 1)
        start = begin
        a, b = max(top, first * LATENT_STRIDE), min(top + height, last * LATENT_STRIDE)
        if a < b:
            made = synthesise(model.network, y, slope, (b - a, width), (a - start * LATENT_STRIDE, left))
            pixels[a - top : b - top] = made.numpy()
    return pixels, tiles.whole


def read_latents(
    model: LatentModel, slope: int, channel: Channel, reader: Reader, size: tuple[int, int]
) -> Tensor:
    """The latents (M, rows, columns) of the next picture of a payload, of ``size`` (height, width) in pixels.

    Raises:
        FormatError: the payload is damaged.
    """
    rows, columns = grid_of(*size)
    return _Tiles(model, slope, channel, reader, region=None, partial=False).read_rows(0, rows, columns)


@dataclass
class _Tiles:
    """The tiles of a payload in order, as latents; ``whole``: how many were there."""

    model: LatentModel
    slope: int
    channel: Channel
    reader: Reader
    region: Region | None
    partial: bool
    whole: int = 0
    _has_ended: bool = field(default=False)

    def read_rows(self, first: int, last: int, columns: int) -> Tensor:
        """The latents (M, last - first, columns) of rows of tiles; zeros where nobody needs them."""
        prior = self.model.priors[self.slope]
        if self.partial:
            with one_thread():
                y = prior.mean()[:, None, None].repeat(1, last - first, columns)
        else:
            y = torch.zeros(self.model.spec.latent_dim, last - first, columns, dtype=torch.float32)
        for top, left, height, width in tiles_of(last - first, columns):
            if self._has_ended:
                break
            try:
                tile = read_tile(prior, self.channel, self.reader, height, width)
            except FormatError as error:
                if not self.partial:
                    raise
                if not self.whole:
                    raise FormatError("cut too short: not one tile of the image is whole") from error
                self._has_ended = True
                break
            self.whole += 1
            place = (first + top, left, first + top + height, left + width)
            if self.region is None or needed(place, self.region):
                put_tile(y, (top, left, height, width), tile_latents(prior, self.channel, tile))
        return y
