"""Analysis and synthesis of Ballé et al. 2018, with CompressAI's parameters under CompressAI's names.

Written out so that decoding a photograph does not need CompressAI; a state dict of its FactorizedPrior fits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PEDESTAL = 2.0**-36  # of the squared parameters, which keeps their gradient alive at zero
LEAST_BETA = 1e-6


class _AtLeast(torch.autograd.Function):
    """max(x, bound), whose gradient below the bound passes where it would raise x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ((x >= ctx.bound) | (grad < 0)) * grad, None


class Gdn(nn.Module):
    """Generalised divisive normalisation: x_i (beta_i + sum_j gamma_ij x_j^2)^(-1/2); inverse: ^(1/2)."""

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma = nn.Parameter((0.1 * torch.eye(channels) + PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """x (n, channels, h, w), normalised."""
        beta = _AtLeast.apply(self.beta, (LEAST_BETA + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
        gamma = _AtLeast.apply(self.gamma, PEDESTAL**0.5) ** 2 - PEDESTAL
        norm = functional.conv2d(x * x, gamma[:, :, None, None], beta)
        return x * (torch.sqrt(norm) if self.inverse else torch.rsqrt(norm))


def analysis_transform(width: int, outputs: int) -> nn.Sequential:
    """Pixels (n, 3, h, w) -> (n, outputs, h/16, w/16)."""
    return nn.Sequential(
        _down(3, width), Gdn(width), _down(width, width), Gdn(width), _down(width, width), Gdn(width),
        _down(width, outputs),
    )  # fmt: skip


def synthesis_transform(width: int, inputs: int) -> nn.Sequential:
    """Latents (n, inputs, h, w) -> pixels (n, 3, 16 h, 16 w)."""
    return nn.Sequential(
        _up(inputs, width), Gdn(width, inverse=True), _up(width, width), Gdn(width, inverse=True),
        _up(width, width), Gdn(width, inverse=True), _up(width, 3),
    )  # fmt: skip


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
