"""Small random affine maps of training images, against overfitting a data set of few images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

ROTATION_DEGREES, LOG_SCALE, SHEAR, SHIFT_PIXELS = 4.0, 0.03, 0.05, 0.25  # standard deviations at strength 1


def jitter(x: Tensor, shape: tuple[int, ...], strength: float) -> Tensor:
    """Rotate, scale, shear and shift each image of ``x`` (n, h*w*c) a little (bicubic, black outside).

    Args:
        x: float32 pixels in [0, 1], of blocks ``shape`` = (h, w, c).
        strength: multiplies the standard deviations above; 0 leaves ``x`` as it is.
    """
    if strength == 0:
        return x
    height, width, channels = shape
    n = len(x)
    noise = strength * torch.randn((n, 6), device=x.device)
    angle = noise[:, 0] * math.radians(ROTATION_DEGREES)
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale_x, scale_y = torch.exp(LOG_SCALE * noise[:, 1]), torch.exp(LOG_SCALE * noise[:, 2])
    shear = SHEAR * noise[:, 3]
    rows = [
        torch.stack(
            [cos * scale_x, (shear * cos - sin) * scale_y, 2 * SHIFT_PIXELS / width * noise[:, 4]], 1
        ),
        torch.stack(
            [sin * scale_x, (shear * sin + cos) * scale_y, 2 * SHIFT_PIXELS / height * noise[:, 5]], 1
        ),
    ]
    images = x.view(n, height, width, channels).permute(0, 3, 1, 2)
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    return moved.permute(0, 2, 3, 1).flatten(1)
