"""Two ways to damage a generative model; rate-distortion curves tell them apart (lossy-rates, section 6.2).

A prior with garbage in it hurts at low rates and costs at most -log(1 - alpha) nats anywhere, because Z of a
mixture is a mixture. A blurred decoder cannot draw sharp images: distortion at high rates rises. At low rates
blur may even help, since an image that is drawn at random is best drawn near the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.errors import InputError


@dataclass(frozen=True)
class MixturePrior:
    """(1 - alpha) N(0, I) + alpha N(0, variance I): codes of the second part decode to garbage.

    Attributes:
        latents: k.
        alpha: part of garbage, in (0, 1).
        variance: of its codes (the paper's: 10).
    """

    latents: int
    alpha: float
    variance: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and self.variance > 0):
            raise InputError(f"mixture prior: alpha {self.alpha:g} in (0, 1), variance {self.variance:g} > 0")

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Codes float32 (*shape, k)."""
        garbage = torch.rand((*shape, 1), generator=generator) < self.alpha
        z = torch.randn((*shape, self.latents), generator=generator)
        return torch.where(garbage, z * math.sqrt(self.variance), z)

    def energy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """-log density up to a constant, (...), and its gradient, (..., k)."""
        half = z.square().sum(-1) / 2
        good = math.log1p(-self.alpha) - half
        bad = math.log(self.alpha) - self.latents / 2 * math.log(self.variance) - half / self.variance
        share = torch.sigmoid(bad - good)[..., None]  # of the garbage, given z
        return -torch.logaddexp(good, bad), z * (1 - share + share / self.variance)


class BlurredDecoder(nn.Module):
    """A decoder whose images pass a Gaussian kernel; edges repeat.

    Args:
        decoder: from codes to flattened images of ``shape`` (h, w, c).
        sigma: of the kernel, in pixels, positive.

    Raises:
        InputError: sigma is not positive.
    """

    kernel: Tensor

    def __init__(self, decoder: nn.Module, shape: tuple[int, int, int], sigma: float) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise InputError(f"blur of {sigma:g} pixels: expected a positive number")
        self.decoder, self.shape = decoder, shape
        self.reach = min(math.ceil(3 * sigma), 4 * max(shape[:2]))
        kernel = torch.exp(-torch.arange(-self.reach, self.reach + 1).square() / (2 * sigma**2))
        self.register_buffer("kernel", kernel / kernel.sum())

    def forward(self, z: Tensor) -> Tensor:
        """(..., k) to (..., h w c)."""
        y = self.decoder(z)
        h, w, c = self.shape
        images = y.reshape(-1, h, w, c).movedim(-1, 1).reshape(-1, 1, h, w)
        pad = functional.pad(images, (self.reach,) * 4, mode="replicate")
        rows = functional.conv2d(pad, self.kernel.reshape(1, 1, -1, 1))
        both = functional.conv2d(rows, self.kernel.reshape(1, 1, 1, -1))
        return both.reshape(-1, c, h, w).movedim(1, -1).reshape(y.shape)
