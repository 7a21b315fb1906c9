"""What a model of latents expects of pictures: draws from its prior, made visible.

    class of a position | those on the left and above ~ class code;   y = centre + scale z,  z ~ N(0, 1)

Channels that are not sent are at their centre, as a decoder puts them, so this is the law of decoded tiles.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rcccodec.latent.class_code import ClassCode
from rcccodec.latent.model import LatentModel
from rcccodec.latent.spec import LATENT_STRIDE, TILE
from rcccodec.latent.windows import synthesise
from rcccodec.randomness import philox4x32, standard_normals

SAMPLE_STREAM, CLASS_STREAM = 1 << 18, (1 << 18) + 1  # beside those of a trellis


def draw_tiles(model: LatentModel, slope: int, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """``count`` tiles uint8 (256, 256, 3); the first ones do not depend on how many there are."""
    prior, side = model.priors[slope], TILE * LATENT_STRIDE
    classes = draw_classes(prior.code, count, seed)
    tiles = []
    for number, grid in enumerate(classes):
        c = torch.from_numpy(grid.reshape(-1))
        sent = torch.from_numpy(prior.rates_millibits > 0)[c]
        z = standard_normals(seed, torch.tensor([number]), sent.numel(), SAMPLE_STREAM).view(sent.shape)
        y = prior.centre[c] + torch.where(sent, prior.scale[c] * z, 0.0)
        y = y.T.reshape(-1, TILE, TILE)
        tiles.append(synthesise(model.network, y, slope, (side, side)).numpy())
    return tiles


def draw_classes(code: ClassCode, count: int, seed: int) -> NDArray[np.int64]:
    """Classes (count, 16, 16) of tiles, drawn position by position from what the code expects."""
    counters = torch.zeros(count, TILE * TILE // 4, 4, dtype=torch.int64)  # a counter has four words
    counters[..., 0] = torch.arange(count)[:, None]
    counters[..., 2] = torch.arange(counters.shape[1])
    counters[..., 3] = CLASS_STREAM
    uniforms = (philox4x32(counters, seed).double() / (1 << 32)).numpy().reshape(count, TILE, TILE)
    classes = np.full((count, TILE + 1, TILE + 1), code.classes)  # a margin on the left and above: none
    for row in range(TILE):
        for column in range(TILE):
            upto = code.shares(classes[:, row + 1, column], classes[:, row, column + 1]).cumsum(1)
            drawn = (upto <= uniforms[:, row, column, None] * upto[:, -1:]).sum(1)
            classes[:, row + 1, column + 1] = drawn
    return classes[:, 1:, 1:]
