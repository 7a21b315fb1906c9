"""The sizes of a learned transform code, and their bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rcccodec.proposals.generator import MAX_DIM, MAX_LATENTS, PATCH_STRIDE
from rcccodec.proposals.generator import MAX_FEATURES as MAX_MAPS

KINDS = ("image", "block", "vector", "factorized", "hyperprior")
MAX_SLOPES, MAX_DEPTH, MAX_WIDTH, MAX_FEATURES = 64, 16, 4096, 4096
MAX_CHANNELS = 320  # of a convolution: building one must not ask for more than a damaged file is worth


@dataclass(frozen=True)
class NtcSpec:
    """What is needed to rebuild the networks before their weights are loaded.

    ``kind``: ``image``; ``block``, ``images_per_code`` images coded jointly; ``vector``; ``factorized`` or
    ``hyperprior`` for photographs.
    ``shape``: (height, width, channels) of an image, or of a training crop of photographs; (m,) for vectors.
    ``betas``: slopes, nats per unit of summed squared error (pixels in [0, 1]), rising.
    ``latent_dim``: latents of a code, or CompressAI's M; ``width``: hidden units, or CompressAI's N.
    ``features``: KLT coordinates of an image that the analysis of ``image`` and ``block`` sees.
    ``maps``: feature maps of 4x4 patches that the synthesis of ``image`` and ``block`` ends with, and the
    analysis begins with beside the KLT; 0: none, a linear layer to the pixels.

    Raises:
        ValueError: unknown kind, sizes out of bounds, slopes that do not rise.
    """

    kind: str
    shape: tuple[int, ...]
    betas: tuple[float, ...]
    latent_dim: int = 32
    width: int = 640
    depth: int = 2
    features: int = 256
    images_per_code: int = 1
    maps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}")
        sizes = (*self.shape, self.latent_dim, self.width, self.depth, self.features, self.images_per_code)
        if not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError("sizes must be positive whole numbers")
        if len(self.shape) != (1 if self.kind == "vector" else 3):
            raise ValueError(f"a shape of {len(self.shape)} numbers does not go with {self.kind}")
        if self.photographs and self.shape[2] != 3:
            raise ValueError("photographs have three channels")
        if not isinstance(self.maps, int) or self.maps < 0:
            raise ValueError("feature maps must be a whole number")
        if self.maps and (self.kind not in ("image", "block") or not whole_patches(self.shape)):
            raise ValueError(f"no patches for {self.kind} of {self.shape}")
        if self.images_per_code > 1 and self.kind != "block":
            raise ValueError("only block codes hold several images")
        if self.latent_dim % self.images_per_code:
            raise ValueError(f"{self.latent_dim} latents for {self.images_per_code} images")
        limits = (
            ("values a code", 1 if self.photographs else self.dim, MAX_DIM),
            ("latents", self.latent_dim, MAX_CHANNELS if self.photographs else MAX_LATENTS),
            ("width", self.width, MAX_CHANNELS if self.photographs else MAX_WIDTH),
            ("features", self.features, MAX_FEATURES),
            ("feature maps", self.maps, MAX_MAPS),
            ("depth", self.depth, MAX_DEPTH),
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
        """Whether images of any size are coded."""
        return self.kind in ("factorized", "hyperprior")

    @property
    def dim(self) -> int:
        """Values of one code: of all its images together."""
        return math.prod(self.shape) * self.images_per_code

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON would give them back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> NtcSpec:
        """Inverse of ``to_json``.

        Raises:
            TypeError, KeyError, ValueError: fields are missing, unknown or out of bounds.
        """
        betas = tuple(float(beta) for beta in fields["betas"])
        return NtcSpec(**{**fields, "shape": tuple(fields["shape"]), "betas": betas})


def whole_patches(shape: tuple[int, ...]) -> bool:
    """Whether images (h, w, c) are made of whole patches, which ``maps`` need."""
    return len(shape) == 3 and not any(side % PATCH_STRIDE for side in shape[:2])
