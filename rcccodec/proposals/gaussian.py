"""The exact Q_Y of a Gaussian source with independent components, at a slope of its R(D)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianProposal:
    """Independent ``N(0, sigma_k^2 - lambda)`` where positive, 0 elsewhere (reverse water-filling).

    With beta in nats per unit of summed squared error the water level is ``lambda = 1 / (2 beta)``: an active
    component has R = 1/2 ln(sigma^2 / D), so -dR/dD = 1 / (2 D) = beta at D = lambda. Tilting this marginal
    by exp(-beta (x - y)^2) = exp(-(x - y)^2 / (2 lambda)) then gives the optimal channel,
    y | x ~ N(x (1 - lambda / sigma^2), lambda (1 - lambda / sigma^2)). (The marginal is often misprinted with
    variance sigma^2 + lambda.)

    source_variances: float64 (m,), sigma_k^2 >= 0. beta: > 0.

    Latent i drives the i-th active component, in order.
    """

    source_variances: np.ndarray
    beta: float

    @property
    def water_level(self) -> float:
        """lambda, the squared error left in each active component."""
        return 1.0 / (2.0 * self.beta)

    @property
    def variances(self) -> np.ndarray:
        """Variances of the candidates, float64 (m,)."""
        return np.maximum(np.asarray(self.source_variances, dtype=np.float64) - self.water_level, 0.0)

    @property
    def dim(self) -> int:
        return len(self.source_variances)

    @property
    def latent_dim(self) -> int:
        return int(np.count_nonzero(self.variances))

    def candidates(self, z: Tensor) -> Tensor:
        """Latents (n, latent_dim) to candidates (n, dim), same dtype and device."""
        variances = self.variances
        active = np.flatnonzero(variances)
        y = torch.zeros(z.shape[0], self.dim, dtype=z.dtype, device=z.device)
        y[:, active] = z * torch.as_tensor(np.sqrt(variances[active]), dtype=z.dtype, device=z.device)
        return y
