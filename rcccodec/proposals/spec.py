"""What a generator is, before it has weights: architecture, sizes, slopes, and their bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

ARCHITECTURES = ("mlp", "patches", "dcgan", "fc")
# what a codec can hold of one chunk of candidates; a damaged description must not ask for more
MAX_DIM, MAX_LATENTS, MAX_WIDTH, MAX_DCGAN_WIDTH, MAX_DEPTH, MAX_FEATURES = (
    1 << 14,
    1 << 12,
    1 << 13,
    256,
    64,
    256,
)
MAX_MAP_VALUES = 1 << 17  # of all feature maps of a candidate, which need not cost many weights
PATCH_STRIDE, PATCH_SIDE = 4, 8


@dataclass(frozen=True)
class GeneratorSpec:
    """What is needed to rebuild a generator before its weights are loaded.

    ``arch``: ``mlp`` (residual, slope-conditional), ``patches`` (the same, ending in convolutions), ``dcgan``
    or ``fc`` (the paper's, nerd-rcc appendix C-A).
    ``shape``: (height, width, channels) of a block, or (m,) for vectors.
    ``output``: ``sigmoid`` emits pixels; ``linear`` emits any values, for ``mlp`` ``num_coordinates``
    coordinates in an orthonormal basis.
    ``features``: feature maps that ``patches`` draws with; the others have none.
    ``slope_range``: slopes beta (nats per unit of distortion) it is trained for; equal ends: unconditional.

    Raises:
        ValueError: unknown architecture or output, sizes out of bounds, slopes that are no range.
    """

    arch: str
    shape: tuple[int, ...]
    latent_dim: int
    width: int
    depth: int = 2
    output: str = "sigmoid"
    num_coordinates: int | None = None
    slope_range: tuple[float, float] = (1.0, 1.0)
    features: int = 0

    def __post_init__(self) -> None:
        sizes = (*self.shape, self.latent_dim, self.width, self.depth, self.num_coordinates or 1)
        if self.arch not in ARCHITECTURES or self.output not in ("sigmoid", "linear"):
            raise ValueError(f"unknown generator {self.arch!r} with output {self.output!r}")
        if not self.shape or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError("generator sizes must be positive whole numbers")
        limits = (
            ("values a block", self.dim, MAX_DIM),
            ("latents", self.latent_dim, MAX_LATENTS),
            ("width", self.width, MAX_DCGAN_WIDTH if self.arch == "dcgan" else MAX_WIDTH),
            ("depth", self.depth, MAX_DEPTH),
            ("features", self.features, MAX_FEATURES),
        )
        for what, size, limit in limits:
            if size > limit:
                raise ValueError(f"generator has {what} {size}, more than {limit}")
        if self.arch == "dcgan" and (len(self.shape) != 3 or self.shape[:2] != (32, 32)):
            raise ValueError("the dcgan generator makes 32x32 blocks only")
        if self.arch == "patches":
            if len(self.shape) != 3 or self.shape[0] % PATCH_STRIDE or self.shape[1] % PATCH_STRIDE:
                raise ValueError(f"the patches generator makes blocks whose sides {PATCH_STRIDE} divides")
            if self.output != "sigmoid" or self.features < 1:
                raise ValueError("the patches generator needs features, and emits pixels")
            if self.map_values > MAX_MAP_VALUES:
                raise ValueError(f"generator has maps of {self.map_values} values, over {MAX_MAP_VALUES}")
        elif self.features:
            raise ValueError(f"generator {self.arch!r} has no feature maps")
        linear = self.arch == "mlp" and self.output == "linear"
        if linear and not 0 < (self.num_coordinates or 0) <= self.dim:
            raise ValueError(f"a linear generator needs 1 to {self.dim} coordinates")
        low, high = self.slope_range
        if not 0 < low <= high < math.inf:
            raise ValueError(f"slopes {low} to {high} are no range of positive numbers")

    @property
    def dim(self) -> int:
        """Length of a flattened candidate."""
        return math.prod(self.shape)

    @property
    def map_values(self) -> int:
        """Values of the feature maps of one candidate, 0 where there are none."""
        return self.features * math.prod(self.shape[:2]) // PATCH_STRIDE**2

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``model.json``."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> GeneratorSpec:
        """Inverse of ``to_json``.

        Raises:
            TypeError, KeyError, ValueError: fields are missing, unknown or out of bounds.
        """
        low, high = fields["slope_range"]
        plain = {"shape": tuple(fields["shape"]), "slope_range": (float(low), float(high))}
        return GeneratorSpec(**{**fields, **plain})
