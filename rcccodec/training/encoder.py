"""The amortised posterior q(z | x, slope) that training leans on; codecs never need it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Encoder(nn.Module):
    """Residual perceptron from whitened leading KLT coefficients to a diagonal Gaussian over latents.

    mean (dim,), basis (k, dim) with orthonormal rows, variances (k,), falling: those of ``principal_axes``::

    h = act(W_0 [whitened klt(x), log slope]);  h = h + act(W_l h);  (mean, log variance) = W_out h
    """

    def __init__(self, mean: Tensor, basis: Tensor, variances: Tensor, latent_dim: int, width: int) -> None:
        super().__init__()
        floor = variances[0].clamp_min(1e-12) * 1e-4  # data without any variance have no axes to whiten
        self.register_buffer("mean", mean.clone())
        self.register_buffer("whiten", (basis / (variances + floor).sqrt()[:, None]).T.contiguous())
        self.first = nn.Linear(len(basis) + 1, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last = nn.Linear(width, 2 * latent_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances, (n, latent_dim) each, given x (n, dim) and ``log_slope`` (n,) or (1,)."""
        features = (x - self.mean) @ self.whiten
        h = functional.silu(self.first(torch.cat([features, log_slope.expand(len(x))[:, None]], 1)))
        for layer in self.hidden:
            h = h + functional.silu(layer(h))
        mean, log_variance = self.last(h).chunk(2, dim=1)
        return mean, log_variance.clamp(-9, 2)


def gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z_j; mean_b, diag exp(log_variance_b)) in nats as (b, j), by three matrix products."""
    precision = torch.exp(-log_variance)
    quadratic = (
        precision @ (z * z).T - 2 * (mean * precision) @ z.T + (mean * mean * precision).sum(1, keepdim=True)
    )
    normaliser = log_variance.sum(1, keepdim=True) + z.shape[1] * math.log(2 * math.pi)
    return -0.5 * (quadratic + normaliser)
