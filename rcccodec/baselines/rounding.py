"""How a latent is quantised while its transforms are trained, and when it is coded.

    noise   v = y + u, x_hat from v: Ballé et al. 2017
    soft    v = s(y) + u, x_hat from r(v): s rounds softly, r is its inverse on average; sharper as alpha
            grows (Agustsson and Theis 2020, eq. 14 and 19)
    hard    v = round(y); the analysis stands still, synthesis and entropy model learn what they will meet

u is uniform on [-1/2, 1/2]; v is what the entropy model is charged for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_ALPHA = 0.1


@dataclass(frozen=True)
class Rounding:
    """``mode``: noise, soft or hard. ``alpha``: sharpness of soft rounding, > 0."""

    mode: str
    alpha: float = 1.0

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the entropy model is charged for and what the synthesis sees, both shaped as ``y``."""
        if self.mode == "hard":
            rounded = torch.round(y).detach()
            return rounded, rounded
        noise = torch.rand_like(y) - 0.5
        if self.mode == "noise":
            return y + noise, y + noise
        v = soft_round(y, self.alpha) + noise
        return v, expected(v, self.alpha)


def soft_round(y: Tensor, alpha: float) -> Tensor:
    """s(y) = floor(y) + 1/2 + tanh(alpha (y - floor(y) - 1/2)) / (2 tanh(alpha / 2))."""
    floor = torch.floor(y.detach())
    return floor + 0.5 + torch.tanh(alpha * (y - floor - 0.5)) / (2 * math.tanh(alpha / 2))


def expected(v: Tensor, alpha: float) -> Tensor:
    """r(v) = s^-1(v - 1/2) + 1/2: the mean of y given v = s(y) + u under a flat density."""
    w = v - 0.5
    floor = torch.floor(w.detach())
    inside = (2 * math.tanh(alpha / 2) * (w - floor - 0.5)).clamp(-1 + 1e-6, 1 - 1e-6)
    return floor + 1.0 + torch.atanh(inside) / alpha


def schedule(fraction: float, soft_from: float, hard_from: float, sharpest: float) -> Rounding:
    """The rounding at a ``fraction`` of training: noise, soft with alpha growing to ``sharpest``, hard."""
    if fraction >= hard_from:
        return Rounding("hard")
    if fraction < soft_from:
        return Rounding("noise")
    done = (fraction - soft_from) / max(1e-9, hard_from - soft_from)
    return Rounding("soft", LEAST_ALPHA + (sharpest - LEAST_ALPHA) * done)
