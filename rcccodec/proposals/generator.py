"""NERD generators: networks that push standard-normal latents forward to candidates y = G(z).

    z (n, latent_dim) --> network --> coordinates (n, num_coordinates) --> synthesise --> y (n, dim)

``coordinates`` are orthonormal (or the pixels themselves), so that squared distances can be taken in them and
the search never needs the pixels of a losing candidate. A slope-conditional generator becomes a plain
network, without any trace of the slope, once ``at_slope`` has folded the condition into its weights.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

SLOPE_FEATURES = 32
# what a codec can hold of one chunk of candidates; a damaged description must not ask for more
MAX_DIM, MAX_LATENTS, MAX_WIDTH, MAX_DCGAN_WIDTH, MAX_DEPTH, MAX_FEATURES = (
    1 << 14,
    1 << 12,
    1 << 13,
    256,
    64,
    256,
)
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


class Mlp(nn.Module):
    """Residual multilayer perceptron whose layers are scaled and shifted by the slope (FiLM)::

        h = act(film_0(W_0 z));  h = h + act(film_l(W_l h)), l = 1..depth;  coordinates = W_out h + b_out

    Buffers ``mean`` (dim,) and, for linear output, ``basis`` (num_coordinates, dim) with orthonormal rows.
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.dim, self.latent_dim = spec.dim, spec.latent_dim
        outputs = (spec.num_coordinates or spec.dim) if spec.output == "linear" else spec.dim
        self.layers = nn.ModuleList(
            nn.Linear(spec.latent_dim if i == 0 else spec.width, spec.width) for i in range(spec.depth + 1)
        )
        self.last = nn.Linear(spec.width, outputs)
        nn.init.zeros_(self.last.bias)
        if not self.last.weight.is_meta:  # else torch would import its compiler, to draw nothing
            nn.init.normal_(self.last.weight, std=0.5 / math.sqrt(spec.width))
        low, high = spec.slope_range
        self.conditional = high > low
        if self.conditional:
            self.slope_in = nn.Linear(1, SLOPE_FEATURES)
            self.slope_out = nn.Linear(SLOPE_FEATURES, 2 * spec.width * (spec.depth + 1))
            nn.init.zeros_(self.slope_out.weight)
            nn.init.zeros_(self.slope_out.bias)
        if spec.output == "linear":
            self.register_buffer("mean", torch.zeros(spec.dim))
            self.register_buffer("basis", torch.zeros(outputs, spec.dim))

    def start_from(self, mean: Tensor, basis: Tensor | None, variances: Tensor | None) -> None:
        """Begin at the data's mean (dim,) and, for linear output, at its KLT basis with these variances."""
        if self.spec.output == "linear":
            assert basis is not None
            assert variances is not None
            self.mean.copy_(mean)
            self.basis.copy_(basis)
            with torch.no_grad():
                self.last.weight.mul_(variances.clamp_min(0).sqrt()[:, None])
        else:
            with torch.no_grad():
                self.last.bias.copy_(torch.logit(mean.clamp(0.01, 0.99)))

    def film(self, log_slope: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Scale and shift (rows, width) of every layer for the slopes ``log_slope`` (rows,)."""
        low, high = (math.log(b) for b in self.spec.slope_range)
        s = (2 * log_slope - low - high) / (high - low)
        features = self.slope_out(functional.silu(self.slope_in(s[:, None])))
        parts = features.chunk(2 * len(self.layers), dim=1)
        return [(1 + parts[2 * i], parts[2 * i + 1]) for i in range(len(self.layers))]

    def forward(self, z: Tensor, log_slope: Tensor | None = None) -> Tensor:
        """Coordinates (n, num_coordinates) for latents z (n, latent_dim); ``log_slope`` is (n,) or (1,)."""
        film = self.film(log_slope) if self.conditional and log_slope is not None else None
        h = z
        for i, layer in enumerate(self.layers):
            a = layer(h)
            if film is not None:
                a = a * film[i][0] + film[i][1]
            a = functional.silu(a)
            h = a if i == 0 else h + a
        y = self.end(h)
        return torch.sigmoid(y) if self.spec.output == "sigmoid" else y

    def end(self, h: Tensor) -> Tensor:
        """From hidden values (n, width) to coordinates, or to logits of pixels."""
        y: Tensor = self.last(h)
        return y

    @torch.no_grad()
    def at_slope(self, beta: float) -> Mlp:
        """The same map as a plain network, with the slope folded into weights and biases (in float64).

        film(W z + b) = scale * (W z + b) + shift = (scale W) z + (scale b + shift).
        """
        exact = copy.deepcopy(self).double().eval().requires_grad_(False)
        with torch.device("meta"):  # no throw-away weights, no draw from the global random stream
            plain = type(self)(replace(self.spec, slope_range=(beta, beta)))
        state = {name: value for name, value in exact.state_dict().items() if "slope" not in name}
        plain.load_state_dict(state, assign=True)
        if self.conditional:
            log_slope = torch.tensor([math.log(beta)], dtype=torch.float64, device=exact.last.weight.device)
            for layer, (scale, shift) in zip(plain.layers, exact.film(log_slope), strict=True):
                layer.bias.mul_(scale[0]).add_(shift[0])
                layer.weight.mul_(scale[0][:, None])
        return plain.eval().requires_grad_(False)


class Patches(Mlp):
    """The perceptron, then convolutions: what it draws are overlapping patches, the same ones everywhere::

    h (width) --> SiLU(Linear) f x h/4 x w/4 --> + SiLU(Conv 3x3) --> ConvT 8x8/4 + mean --> sigmoid

    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(spec)
        height, width, channels = spec.shape
        self.grid = (spec.features, height // PATCH_STRIDE, width // PATCH_STRIDE)
        self.last = nn.Linear(spec.width, math.prod(self.grid))
        self.mix = nn.Conv2d(spec.features, spec.features, 3, padding=1)
        margin = (PATCH_SIDE - PATCH_STRIDE) // 2
        self.draw = nn.ConvTranspose2d(spec.features, channels, PATCH_SIDE, PATCH_STRIDE, margin, bias=False)
        self.mean_logits = nn.Parameter(torch.zeros(channels, height, width))

    def start_from(self, mean: Tensor, basis: Tensor | None, variances: Tensor | None) -> None:
        """Begin at the data's mean."""
        with torch.no_grad():
            logits = torch.logit(mean.clamp(0.01, 0.99)).view(self.spec.shape)
            self.mean_logits.copy_(logits.permute(2, 0, 1))

    def end(self, h: Tensor) -> Tensor:
        """From hidden values (n, width) to logits of pixels (n, dim)."""
        maps = functional.silu(self.last(h)).view(-1, *self.grid)
        maps = maps + functional.silu(self.mix(maps))
        return (self.draw(maps) + self.mean_logits).permute(0, 2, 3, 1).flatten(1)


class Dcgan(nn.Module):
    """The paper's image generator, c_d channels wide, batch-normalised while it trains::

    z --> Linear 8c_d x 2x2 --> [ConvT 4x4/2, norm, ReLU] x 3 --> ConvT 4x4/2 --> sigmoid, 32x32

    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.dim, self.latent_dim = spec.dim, spec.latent_dim
        c = spec.width
        self.first = nn.Linear(spec.latent_dim, 32 * c)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(n_in, n_out, 4, 2, 1)
            for n_in, n_out in ((8 * c, 4 * c), (4 * c, 2 * c), (2 * c, c), (c, spec.shape[2]))
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(n) for n in (4 * c, 2 * c, c))

    def start_from(self, mean: Tensor, basis: Tensor | None, variances: Tensor | None) -> None:
        """Begin at the data's mean colour."""
        with torch.no_grad():
            level = mean.view(-1, self.spec.shape[2]).mean(0)
            self.up[-1].bias.copy_(torch.logit(level.clamp(0.01, 0.99)))

    def forward(self, z: Tensor, log_slope: Tensor | None = None) -> Tensor:
        """Pixels (n, dim); the slope is that of training and is ignored."""
        h = functional.relu(self.first(z)).view(len(z), -1, 2, 2)
        for i, layer in enumerate(self.up):
            h = layer(h)
            if i < len(self.norm):
                h = functional.relu(self.norm[i](h))
        return torch.sigmoid(h).permute(0, 2, 3, 1).flatten(1)

    @torch.no_grad()
    def at_slope(self, beta: float) -> Dcgan:
        """An evaluation copy with batch normalisation folded into the convolutions.

        In train mode every candidate would depend on all the others, and no decoder could make one alone.
        """
        plain = copy.deepcopy(self).double().eval().requires_grad_(False)
        for i, norm in enumerate(plain.norm):
            if isinstance(norm, nn.BatchNorm2d):
                plain.up[i] = fuse_conv_bn_eval(plain.up[i], norm, transpose=True)
                plain.norm[i] = nn.Identity()
        return plain


class FullyConnected(nn.Module):
    """The paper's generator for vectors: two hidden ReLU layers as wide as the source, linear output::

    z --> Linear --> ReLU --> Linear --> ReLU --> Linear --> y
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.dim, self.latent_dim = spec.dim, spec.latent_dim
        self.body = nn.Sequential(
            nn.Linear(spec.latent_dim, spec.width),
            nn.ReLU(),
            nn.Linear(spec.width, spec.width),
            nn.ReLU(),
            nn.Linear(spec.width, spec.dim),
        )

    def start_from(self, mean: Tensor, basis: Tensor | None, variances: Tensor | None) -> None:
        """Begin at the data's mean."""
        sigmoid = self.spec.output == "sigmoid"
        with torch.no_grad():
            self.body[-1].bias.copy_(torch.logit(mean.clamp(0.01, 0.99)) if sigmoid else mean)

    def forward(self, z: Tensor, log_slope: Tensor | None = None) -> Tensor:
        """Vectors (n, dim)."""
        y = self.body(z)
        return torch.sigmoid(y) if self.spec.output == "sigmoid" else y

    def at_slope(self, beta: float) -> FullyConnected:
        """A frozen float64 copy."""
        return copy.deepcopy(self).double().eval().requires_grad_(False)


ARCHITECTURES: dict[str, type[Mlp] | type[Dcgan] | type[FullyConnected]] = {
    "mlp": Mlp,
    "patches": Patches,
    "dcgan": Dcgan,
    "fc": FullyConnected,
}
Generator = Mlp | Dcgan | FullyConnected


def build_generator(spec: GeneratorSpec) -> Generator:
    """An untrained generator of this specification."""
    return ARCHITECTURES[spec.arch](spec)


class GeneratorProposal:
    """A trained generator at one slope, seen as a Proposal in its own coordinates.

    ``dim`` counts coordinates. ``analyse`` takes blocks (n, block_dim) there, ``synthesise`` takes
    coordinates back; squared distances to a block differ from those of pixels by a constant of the block.

    Invariants: row j of ``candidates`` depends on row j of ``z`` only; synthesise(analyse(y)) = y for any
    candidate y;
    ||x - synthesise(c)||^2 = ||analyse(x) - c||^2 + ||x - synthesise(analyse(x))||^2.
    """

    def __init__(self, plain: Generator, device: str | torch.device = "cpu") -> None:
        networks = (
            copy.deepcopy(plain).to(device=device, dtype=dtype) for dtype in (torch.float32, torch.float64)
        )
        self.networks = {next(n.parameters()).dtype: n for n in networks}
        self.latent_dim = plain.latent_dim
        self.block_dim = plain.dim
        self.is_linear = hasattr(plain, "basis")
        self.dim = len(plain.basis) if self.is_linear else plain.dim

    @torch.no_grad()
    def candidates(self, z: Tensor) -> Tensor:
        """Coordinates (n, dim) of the candidates of latents z (n, latent_dim), float32 or float64 as z is."""
        y: Tensor = self.networks[z.dtype](z)
        return y

    @torch.no_grad()
    def analyse(self, x: Tensor) -> Tensor:
        """Coordinates (n, dim) of the blocks x (n, block_dim), on the device of x."""
        if not self.is_linear:
            return x
        mean, basis = self._frame(x)
        return (x - mean) @ basis.T

    @torch.no_grad()
    def synthesise(self, coordinates: Tensor) -> Tensor:
        """Blocks (n, block_dim) from coordinates (n, dim), on the device of the coordinates."""
        if not self.is_linear:
            return coordinates
        mean, basis = self._frame(coordinates)
        return mean + coordinates @ basis

    def _frame(self, like: Tensor) -> tuple[Tensor, Tensor]:
        network = self.networks[like.dtype]
        return network.mean.to(like.device), network.basis.to(like.device)
