"""Distortions between blocks: summed squared, absolute, Hamming, squared l^p (nerd-rcc IV-F)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rcccodec.errors import InputError

Distortion = Callable[[Tensor, Tensor], Tensor]
LP_FLOOR = 1e-12  # the gradient of the square root at zero is infinite


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """d(x, y) = sum_i (x_i - y_i)^2 between rows of x (n, dim) and y (m, dim), as (n, m); zero at the least.

    ||x||^2 - 2 x.y + ||y||^2, one matrix product; both are centred on the mean of y first, which keeps the
    cancellation small.
    """
    centre = y.mean(0, keepdim=True)
    x, y = x - centre, y - centre
    return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.T).clamp_min(0)


def absolute_error(x: Tensor, y: Tensor) -> Tensor:
    """d(x, y) = sum_i |x_i - y_i| between rows of x (n, dim) and y (m, dim), as (n, m)."""
    return torch.cdist(x, y, p=1)


def hamming(x: Tensor, y: Tensor) -> Tensor:
    """Components in which rows of x (n, dim) and y (m, dim) differ, as (n, m); both of zeros and ones."""
    return x @ (1 - y).T + (1 - x) @ y.T


def squared_lp(x: Tensor, y: Tensor, p: float) -> Tensor:
    """d_p(x, y) = ||x - y||_p^2 between rows of x (n, dim) and y (m, dim), as (n, m); 1e-24 at the least."""
    return torch.cdist(x, y, p=p).clamp_min(LP_FLOOR).square()


def parse_distortion(text: str) -> Distortion:
    """The function that ``mse`` (summed squared error), ``l1`` or ``lp:P`` with P in [1, inf] names.

    ``lp:1`` is the square of ``l1``.

    Raises:
        InputError: anything else.
    """
    if text == "mse":
        return squared_error
    if text == "l1":
        return absolute_error
    if text.startswith("lp:"):
        try:
            p = float(text[3:])
        except ValueError:
            p = 0.0
        if p >= 1:
            return squared_error if p == 2 else partial(squared_lp, p=p)
    raise InputError(f"distortion {text!r}: expected 'mse', 'l1' or 'lp:P' with P >= 1")


def paired(text: str) -> Distortion:
    """d(x, y) of rows that belong together, (..., dim) and (..., dim), which broadcast, as (...).

    The diagonal of what `parse_distortion` names, or of `hamming`; the latter has no gradient.

    Raises:
        InputError: no such distortion.
    """
    if text == "hamming":
        return lambda x, y: (x != y).to(x.dtype).sum(-1)
    if text == "l1":
        return lambda x, y: (x - y).abs().sum(-1)
    if parse_distortion(text) is squared_error:
        return lambda x, y: (x - y).square().sum(-1)
    p = float(text.removeprefix("lp:"))
    return lambda x, y: torch.linalg.vector_norm(x - y, p, dim=-1).clamp_min(LP_FLOOR).square()
