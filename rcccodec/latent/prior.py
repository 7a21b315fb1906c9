"""What a slope's classes say of a latent: a Gaussian for every channel, and in integers what it is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.latent.class_code import UNITS_A_BIT, ClassCode

SWEEPS = 3  # of the choice of classes, after which hardly one changes


@dataclass(frozen=True)
class SlopePrior:
    """The classes of one slope.

    Args:
        centre, scale: float32 (K, M), of the Gaussian prior of each channel; scale > 0.
        rates_millibits: int64 (K, M), expected divergence; 0: the channel is not sent, y is its centre.
        code: of the classes themselves.
    """

    centre: Tensor
    scale: Tensor
    rates_millibits: NDArray[np.int64]
    code: ClassCode

    @cached_property
    def _code_nats(self) -> tuple[Tensor, Tensor, Tensor]:
        """ln of the totals (K + 1, K + 1), and log-odds of left and up (K + 1, K): float32."""
        units = math.log(2) / UNITS_A_BIT
        totals = torch.from_numpy((math.log(2) * self.code.log2_totals).astype(np.float32))
        return (
            totals,
            units * torch.from_numpy(self.code.left).float(),
            units * torch.from_numpy(self.code.up).float(),
        )

    def mean(self) -> Tensor:
        """The mean (M,) of a latent of which nothing is known, not even what is beside it."""
        none = self.code.classes
        share = torch.from_numpy(self.code.shares(none, none)).float()
        return share @ self.centre

    def choose_classes(self, mean: Tensor, log_noise: Tensor, height: int, width: int) -> NDArray[np.int64]:
        """The cheapest classes (height, width) of a tile whose rows (P, M) are its positions, row by row.

        A class costs its code length, the divergence d of the posterior from it and, since its expected
        rate r is spent whatever d is, (d - r)^2 / n: half the second derivative of a Gaussian's
        n-dimensional D(R), in units of its slope. Positions of one colour of a chessboard choose together,
        then the others.
        """
        spent = torch.from_numpy(self.rates_millibits * (math.log(2) / 1000)).float()
        dims = (1 - (-2 * spent).exp()).sum(1).clamp_min(1.0)
        nats = divergences(mean, log_noise, self.centre, self.scale.log())
        own = nats + (nats - spent.sum(1)).square() / dims
        own = own.view(height, width, -1)
        classes = own.argmin(2)
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        for sweep in range(2 * SWEEPS):
            mine = (row + column) % 2 == sweep % 2
            classes = torch.where(mine, (own + self._context_nats(classes)).argmin(2), classes)
        return classes.numpy()

    def _context_nats(self, classes: Tensor) -> Tensor:
        """What choosing each class costs at every position given all the others, (h, w, K)."""
        none = self.code.classes
        totals, left_odds, up_odds = self._code_nats
        around = torch.nn.functional.pad(classes, (1, 1, 1, 1), value=none)
        left, up = around[1:-1, :-2], around[:-2, 1:-1]
        cost = totals[left, up][..., None] - left_odds[left] - up_odds[up]
        # the neighbours on the right and below have this class for their left and upper one
        right, up_of_right = around[1:-1, 2:][:, :-1], around[:-2, 2:][:, :-1]
        cost[:, :-1] += totals.T[up_of_right][..., :none] - left_odds.T[right][..., :none]
        below, left_of_below = around[2:, 1:-1][:-1], around[2:, :-2][:-1]
        cost[:-1] += totals[left_of_below][..., :none] - up_odds.T[below][..., :none]
        return cost


def divergences(mean: Tensor, log_noise: Tensor, centre: Tensor, log_scale: Tensor) -> Tensor:
    """D(N(mean, noise^2) || class), nats (P, K), of rows (P, M) from classes (K, M), as two products.

    Half of the sum of [(mean - centre)^2 + noise^2] / scale^2 - 1 - ln noise^2 + ln scale^2.
    """
    precision = (-2 * log_scale).exp()
    square = (mean.square() + (2 * log_noise).exp()) @ precision.T
    linear = mean @ (centre * precision).T
    constant = (centre.square() * precision + 2 * log_scale).sum(1)
    return 0.5 * (square + constant - (1 + 2 * log_noise).sum(1, keepdim=True)) - linear
