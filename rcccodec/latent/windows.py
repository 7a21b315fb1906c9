"""Pictures of any size through the transforms, a window at a time: the same latents and pixels as at once.

A window is read with a margin wider than what an output sees (30 pixels for the analysis, 2 positions for the
synthesis), which is cut off again; at the picture's own edges the transforms pad as they do in training.
Windows are those of the picture, whatever part of it is wanted, and each is one thread's: the same input
gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.spec import LATENT_STRIDE, TILE
from rcccodec.threads import Tell, each_alone

WINDOW, SYNTHESIS_WINDOW = 2 * TILE, TILE
MARGIN = 2  # positions
_MARGINS = (2, 2, 1, 0)  # of it, in pixels of its own, that is still of use after each layer of the synthesis

Window = tuple[int, int, int, int]  # top, left, bottom, right


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


def analyse(network: LatentNetwork, x: Tensor, slope: int) -> tuple[Tensor, Tensor]:
    """Mean and log noise, float32 (M, rows, columns), of a picture x uint8 (h, w, 3)."""
    rows, columns = grid_of(*x.shape[:2])
    mean = torch.empty(network.spec.latent_dim, rows, columns, dtype=torch.float32)
    log_noise = torch.empty_like(mean)

    @torch.inference_mode()
    def fill(window: Window, _tell: Tell) -> None:
        top, left, bottom, right = window
        y0, x0 = max(0, top - MARGIN), max(0, left - MARGIN)
        y1, x1 = min(rows, bottom + MARGIN), min(columns, right + MARGIN)
        part = _cut(x, y0, x0, y1, x1).to(next(network.parameters()).device)
        found = network.analysis(part, torch.tensor([slope], device=part.device))
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        mean[:, top:bottom, left:right] = found[0][0, :, *inside].cpu()
        log_noise[:, top:bottom, left:right] = found[1][0, :, *inside].cpu()

    each_alone(fill, windows_of(rows, columns, WINDOW))
    return mean, log_noise


def synthesise(
    network: LatentNetwork, y: Tensor, slope: int, size: tuple[int, int], at: tuple[int, int] = (0, 0)
) -> Tensor:
    """Pixels uint8 (height, width, 3) of latents y (M, rows, columns), from the pixel ``at`` (top, left) on.

    Latents of a region may be had without the others, if those that `needed` names are there.

    Invariant: a region is the same part of the whole picture, to the bit.
    """
    rows, columns = y.shape[1:]
    out = torch.empty(*size, 3, dtype=torch.uint8)
    (top_px, left_px), stride = at, LATENT_STRIDE
    end_px, right_px = top_px + size[0], left_px + size[1]

    @torch.inference_mode()
    def fill(window: Window, _tell: Tell) -> None:
        made = _synthesise_window(network, y, slope, window)
        made = (255 * made.clamp(0, 1)).round_().to(torch.uint8).permute(1, 2, 0)
        top, left, bottom, right = (side * stride for side in window)
        # pixels [a, b) x [c, d) of the picture are this window's
        a, b, c, d = max(top, top_px), min(bottom, end_px), max(left, left_px), min(right, right_px)
        out[a - top_px : b - top_px, c - left_px : d - left_px] = made[a - top : b - top, c - left : d - left]

    wanted = _covered(top_px, end_px), _covered(left_px, right_px)
    windows = windows_of(rows, columns, SYNTHESIS_WINDOW)
    each_alone(fill, [window for window in windows if _meets(window, wanted)])
    return out


def needed(place: Window, region: tuple[int, int, int, int]) -> bool:
    """Whether the pixels of a region (top, left, height, width) are made of any latents at ``place``.

    Args:
        place: positions (top, left, bottom, right).
    """
    top, left, height, width = region
    covered = _covered(top, top + height), _covered(left, left + width)
    return _meets(place, [(start - MARGIN, end + MARGIN) for start, end in covered])


def _covered(first_px: int, end_px: int) -> tuple[int, int]:
    """Positions [start, end) of the windows that pixels [first, end) are in."""
    step = SYNTHESIS_WINDOW * LATENT_STRIDE
    return first_px // step * SYNTHESIS_WINDOW, -(-end_px // step) * SYNTHESIS_WINDOW


def _meets(window: Window, wanted: Sequence[tuple[int, int]]) -> bool:
    (top, left, bottom, right), (rows, columns) = window, wanted
    return top < rows[1] and bottom > rows[0] and left < columns[1] and right > columns[0]


def _synthesise_window(network: LatentNetwork, y: Tensor, slope: int, window: Window) -> Tensor:
    """Pixels (3, h, w) of a window, not yet clipped; of a margin no more than the next layers see."""
    (top, left, bottom, right), (rows, columns) = window, y.shape[1:]
    # pixels beyond the window on each side: left, right, above, below; none at the picture's edges
    over = [min(MARGIN, left), min(MARGIN, columns - right), min(MARGIN, top), min(MARGIN, rows - bottom)]
    made = y[None, :, top - over[2] : bottom + over[3], left - over[0] : right + over[1]]
    made = network.latents_of(made, torch.tensor([slope]))
    kept = iter(_MARGINS)
    for layer in network.g_s:
        made = layer(made)
        if isinstance(layer, nn.ConvTranspose2d):
            enough = next(kept)
            cut = [max(0, 2 * n - enough) for n in over]
            over = [2 * n - less for n, less in zip(over, cut, strict=True)]
            made = functional.pad(made, [-less for less in cut]) if any(cut) else made
    return made[0]


def windows_of(rows: int, columns: int, side: int) -> list[Window]:
    """Windows of a grid, row by row."""
    return [
        (top, left, min(top + side, rows), min(left + side, columns))
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]


def _cut(x: Tensor, y0: int, x0: int, y1: int, x1: int) -> Tensor:
    """Positions [y0, y1) x [x0, x1) as pixels (1, 3, h, w) in [0, 1], the last row and column repeated."""
    stride = LATENT_STRIDE
    part = x[y0 * stride : y1 * stride, x0 * stride : x1 * stride].permute(2, 0, 1)[None].float() / 255
    below, right = (y1 - y0) * stride - part.shape[2], (x1 - x0) * stride - part.shape[3]
    return functional.pad(part, (0, right, 0, below), mode="replicate")
