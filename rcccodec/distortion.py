"""Distortions between blocks: summed squared error and the general squared l^p distance (nerd-rcc IV-F)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rcccodec.errors import InputError

Distortion = Callable[[Tensor, Tensor], Tensor]
LP_CHUNK_ELEMENTS = 1 << 24


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """d(x, y) = sum_i (x_i - y_i)^2 between rows of x (n, dim) and y (m, dim), as (n, m); zero at the least.

    Both are centred on the mean of y first, which keeps the cancellation in ||x||^2 - 2 x.y + ||y||^2 small.
    """
    centre = y.mean(0, keepdim=True)
    x, y = x - centre, y - centre
    return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.T).clamp_min(0)


def squared_lp(x: Tensor, y: Tensor, p: float) -> Tensor:
    """d_p(x, y) = ||x - y||_p^2 between rows of x (n, dim) and y (m, dim), as (n, m)."""
    rows = max(1, LP_CHUNK_ELEMENTS // max(1, y.numel()))
    # cdist has the gradient of the norm itself; its square needs a floor, for the gradient at zero is infinite
    return torch.cat([torch.cdist(part, y, p=p).clamp_min(1e-12).square() for part in x.split(rows)])


def parse_distortion(text: str) -> Distortion:
    """``mse`` (summed squared error) or ``lp:P`` with P >= 1.

    Raises:
        InputError: anything else.
    """
    if text == "mse":
        return squared_error
    if text.startswith("lp:"):
        try:
            p = float(text[3:])
        except ValueError:
            p = 0.0
        if p >= 1:
            return squared_error if p == 2 else partial(squared_lp, p=p)
    raise InputError(f"distortion {text!r}: expected 'mse' or 'lp:P' with P >= 1")
