"""The rate-distortion curve of a linear decoder in closed form, to check annealing against.

f(z) = W z + b, z ~ N(0, I_k), d(x, y) = ||x - y||^2. With W = U diag(s) V^T the optimal channel at slope beta
is N(z; V diag(r) U^T (x - b), V diag(c) V^T), c = 1 / (1 + 2 beta s^2), r = 2 beta s c (lossy-rates, eqs. 57
to 60 with 2 beta for their beta, since their distortion is half of this one). Its covariance in the image is
U diag(s^2 c) U^T: the preprint's eq. 61 has its R in the place of c; eq. 68 of the appendix is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rcccodec.errors import InputError


class LinearDecoder(nn.Module):
    """f(z) = W z + b.

    Args:
        weight: (dim, k). bias: (dim,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, z: Tensor) -> Tensor:
        """(..., k) to (..., dim)."""
        return z @ self.weight.T + self.bias


@dataclass(frozen=True)
class LinearCurve:
    """Per source vector, float64 (n,), natural logarithms: ``lagrangian_nats`` = R + beta D = -log Z."""

    lagrangian_nats: Tensor
    rate_nats: Tensor
    distortion: Tensor


def fit_linear_decoder(x: Tensor, latents: int) -> LinearDecoder:
    """The optimum of a linear VAE: probabilistic PCA's W = U (L - sigma^2 I)^(1/2), b the mean.

    Args:
        x: float32 (n, dim), dim > latents.

    Raises:
        InputError: not fewer latents than dimensions or vectors.
    """
    if not 0 < latents < min(x.shape):
        raise InputError(f"a linear decoder of {latents} latents needs more dimensions and vectors than that")
    values, vectors = torch.linalg.eigh(torch.cov(x.double().T).reshape(x.shape[1], x.shape[1]))
    noise = values[:-latents].mean()
    weight = vectors[:, -latents:] * (values[-latents:] - noise).clamp_min(0).sqrt()
    return LinearDecoder(weight.float(), x.double().mean(0).float())


def linear_curve(decoder: LinearDecoder, x: Tensor, beta: float) -> LinearCurve:
    """The point of R_p(D) of slope beta (lossy-rates, eqs. 57 to 69; units above).

    Args:
        x: (n, dim). beta: nats per unit of summed squared error, positive.

    Invariants: ``lagrangian_nats`` = -log E_z exp(-beta d(x, f(z))), ``rate_nats`` is KL(channel || prior).
    """
    u, s, _ = torch.linalg.svd(decoder.weight.double(), full_matrices=False)
    residual = x.double() - decoder.bias.double()
    along = residual @ u
    c = 1 / (1 + 2 * beta * s.square())
    mean = along * (2 * beta * s * c)
    k = decoder.weight.shape[1]
    unused = k - len(s)  # more latents than dimensions: these keep their prior
    rate = (c.sum() + unused + mean.square().sum(1) - k - c.log().sum()) / 2
    outside = residual.square().sum(1) - along.square().sum(1)
    distortion = outside.clamp_min(0) + (along - mean * s).square().sum(1) + (s.square() * c).sum()
    return LinearCurve(rate + beta * distortion, rate, distortion)
