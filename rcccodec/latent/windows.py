"""Pictures of any size through the transforms, a window at a time: the same latents and pixels as at once.

A window is read with a margin wider than what an output sees (30 pixels for the analysis, 2 positions for the
synthesis), which is cut off again; at the picture's own edges the transforms pad as they do in training.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.spec import LATENT_STRIDE, TILE

WINDOW = 2 * TILE
MARGIN = 2  # positions


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Positions down and across of an image."""
    return -(-height // LATENT_STRIDE), -(-width // LATENT_STRIDE)


def tiles_of(rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) in positions of every tile of a grid, row by row."""
    return [
        (top, left, min(TILE, rows - top), min(TILE, columns - left))
        for top in range(0, rows, TILE)
        for left in range(0, columns, TILE)
    ]


@torch.inference_mode()
def analyse(network: LatentNetwork, x: Tensor, slope: int) -> tuple[Tensor, Tensor]:
    """Mean and log noise, float32 (M, rows, columns), of a picture x uint8 (h, w, 3)."""
    rows, columns = grid_of(*x.shape[:2])
    mean = torch.empty(network.spec.latent_dim, rows, columns)
    log_noise = torch.empty_like(mean)
    for top, left, bottom, right in _windows(rows, columns):
        y0, x0 = max(0, top - MARGIN), max(0, left - MARGIN)
        y1, x1 = min(rows, bottom + MARGIN), min(columns, right + MARGIN)
        part = _cut(x, y0, x0, y1, x1).to(next(network.parameters()).device)
        found = network.analysis(part, torch.tensor([slope], device=part.device))
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        mean[:, top:bottom, left:right] = found[0][0, :, *inside].cpu()
        log_noise[:, top:bottom, left:right] = found[1][0, :, *inside].cpu()
    return mean, log_noise


@torch.inference_mode()
def synthesise(
    network: LatentNetwork, y: Tensor, slope: int, size: tuple[int, int], at: tuple[int, int] = (0, 0)
) -> Tensor:
    """Pixels uint8 (height, width, 3) of latents y (M, rows, columns), from the pixel ``at`` (top, left) on.

    Latents of a region may be had without the others, if MARGIN positions around it are there.
    """
    rows, columns = y.shape[1:]
    out = torch.empty(*size, 3, dtype=torch.uint8)
    (top_px, left_px), stride = at, LATENT_STRIDE
    first, last = top_px // stride, -(-(top_px + size[0]) // stride)
    start, end = left_px // stride, -(-(left_px + size[1]) // stride)
    for top, left, bottom, right in _windows(last - first, end - start):
        top, bottom, left, right = top + first, bottom + first, left + start, right + start
        y0, x0 = max(0, top - MARGIN), max(0, left - MARGIN)
        part = y[None, :, y0 : min(rows, bottom + MARGIN), x0 : min(columns, right + MARGIN)]
        made = network.synthesis(part, torch.tensor([slope]))[0]
        made = (255 * made.clamp(0, 1)).round_().to(torch.uint8).permute(1, 2, 0)
        # pixels [a, b) x [c, d) of the picture are this window's
        a, b = max(top * stride, top_px), min(bottom * stride, top_px + size[0])
        c, d = max(left * stride, left_px), min(right * stride, left_px + size[1])
        inside = made[a - y0 * stride : b - y0 * stride, c - x0 * stride : d - x0 * stride]
        out[a - top_px : b - top_px, c - left_px : d - left_px] = inside
    return out


def _windows(rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, rows, WINDOW):
        for left in range(0, columns, WINDOW):
            yield top, left, min(top + WINDOW, rows), min(left + WINDOW, columns)


def _cut(x: Tensor, y0: int, x0: int, y1: int, x1: int) -> Tensor:
    """Positions [y0, y1) x [x0, x1) as pixels (1, 3, h, w) in [0, 1], the last row and column repeated."""
    stride = LATENT_STRIDE
    part = x[y0 * stride : y1 * stride, x0 * stride : x1 * stride].permute(2, 0, 1)[None].float() / 255
    below, right = (y1 - y0) * stride - part.shape[2], (x1 - x0) * stride - part.shape[3]
    return functional.pad(part, (0, right, 0, below), mode="replicate")
