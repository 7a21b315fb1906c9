"""The sizes of a latent Gaussian channel, and their bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

MAX_SLOPES = 16  # that a file can name
MAX_CHANNELS, MAX_CLASSES, MAX_CROP = 320, 256, 1024
LATENT_STRIDE = 16  # pixels a step of the latents
TILE = 16  # positions a side, of the format: 256 pixels


@dataclass(frozen=True)
class LatentSpec:
    """What is needed to rebuild the networks before their weights are loaded.

    ``shape``: (height, width, 3) of a training crop. ``betas``: slopes, nats per unit of summed squared error
    (pixels in [0, 1]), rising. ``latent_dim``, ``width``: CompressAI's M and N. ``classes``: priors that a
    position of the latents can choose from, for each slope.

    Raises:
        ValueError: sizes out of bounds, slopes that do not rise.
    """

    shape: tuple[int, ...]
    betas: tuple[float, ...]
    latent_dim: int = 192
    width: int = 64
    classes: int = 64

    def __post_init__(self) -> None:
        sizes = (*self.shape, self.latent_dim, self.width, self.classes)
        if not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError("sizes must be positive whole numbers")
        if len(self.shape) != 3 or self.shape[2] != 3 or max(self.shape) > MAX_CROP:
            raise ValueError(f"no crop of a photograph has the shape {self.shape}")
        if any(side % LATENT_STRIDE for side in self.shape[:2]):
            raise ValueError(f"sides of a crop must be multiples of {LATENT_STRIDE}")
        limits = (
            ("latents", self.latent_dim, MAX_CHANNELS),
            ("width", self.width, MAX_CHANNELS),
            ("classes", self.classes, MAX_CLASSES),
            ("slopes", len(self.betas), MAX_SLOPES),
        )
        for what, size, limit in limits:
            if size > limit:
                raise ValueError(f"{what} {size}, more than {limit}")
        rising = zip(self.betas, (*self.betas[1:], math.inf), strict=True)
        if not self.betas or not all(0 < low < high for low, high in rising):
            raise ValueError("slopes must be positive and rise")

    @property
    def photographs(self) -> bool:
        """Images of any size are coded."""
        return True

    @property
    def images_per_code(self) -> int:
        """One: a crop."""
        return 1

    @property
    def dim(self) -> int:
        """Values of a training crop."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON would give them back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> LatentSpec:
        """Inverse of ``to_json``.

        Raises:
            TypeError, KeyError, ValueError: fields are missing, unknown or out of bounds.
        """
        betas = tuple(float(beta) for beta in fields["betas"])
        return LatentSpec(**{**fields, "shape": tuple(fields["shape"]), "betas": betas})
