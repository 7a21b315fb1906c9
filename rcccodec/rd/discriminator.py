"""A discriminator that bounds mutual information from samples (Nguyen, Wainwright and Jordan 2010).

    I(X; Y) >= E_joint T(x, y) - E_product exp(T(x, y) - 1)        nats (rd-ebm eq. 8)

with equality at T = 1 + ln p(y|x) / p(y), which is 1 - beta d(x, y) - ln Z(x) / Z at the optimum (lemma 1).
Its steep part is known, so T = 1 - beta d(x, y) + network(x, y) has a smooth function to learn. The second
mean is over rare events: its error grows like exp(I), and past ln(number of pairs) no sample shows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rcccodec.rd.energy import multilayer

CEILING = 5.0  # nats, in training


class Discriminator(nn.Module):
    """T: (B, dim), (B, dim) -> (B,).

    Invariants: before training T = 1 - beta d.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        centre: Tensor,
        scale: Tensor,
        width: int,
        beta: float,
        distance: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        """
        Args:
            centre, scale: float32 (dim,) of both arguments.
            distance: d(x_i, y_i) of rows, (B,).
        """
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.register_buffer("scale", scale.clone())
        self.beta, self.distance = beta, distance
        self.network = multilayer(2 * len(centre), width, 3, nn.LeakyReLU, generator)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([(x - self.centre) / self.scale, (y - self.centre) / self.scale], 1)
        return 1 - self.beta * self.distance(x, y) + self.network(both).squeeze(1)


def information_nats(
    discriminator: nn.Module, x: Tensor, y: Tensor, marginal: Tensor, shifts: int, ceiling: float = math.inf
) -> Tensor:
    """The bound for pairs (x_i, y_i) against x_i with the marginal's rows 1, ..., ``shifts`` further down.

    Args:
        x, y, marginal: (B, dim); ``marginal`` independent of x.
        ceiling: of T - 1 in nats, above which exp goes on as a line: one rare pair must not throw training.

    Returns:
        a scalar with gradients; infinite where exp overflows.
    """
    product = torch.stack(
        [discriminator(x, marginal.roll(s + 1, 0)) for s in range(min(shifts, len(x)))]
    ).double()
    over = (product - 1 - ceiling).clamp_min(0)
    rare = (product - 1).clamp_max(ceiling).exp() * (1 + over)
    return discriminator(x, y).double().mean() - rare.mean()
