"""NERD generators: networks that push standard-normal latents forward to candidates y = G(z).

    z (n, latent_dim) --> network --> coordinates (n, num_coordinates) --> synthesise --> y (n, dim)

``coordinates`` are orthonormal (or the pixels themselves), so that squared distances can be taken in them and
the search never needs the pixels of a losing candidate.  A slope-conditional generator becomes a plain network,
without any trace of the slope, once ``at_slope`` has folded the condition into its weights.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

SLOPE_FEATURES = 32


@dataclass(frozen=True)
class GeneratorSpec:
    """What is needed to rebuild a generator before its weights are loaded.

    ``arch``: ``mlp`` (residual, slope-conditional), ``dcgan`` or ``fc`` (the paper's two, appendix C-A).
    ``shape``: (height, width, channels) of a block, or (m,) for vectors.
    ``output``: ``sigmoid`` emits pixels, ``linear`` emits coordinates in the basis it was given.
    """

    arch: str
    shape: tuple[int, ...]
    latent_dim: int
    width: int
    depth: int = 2
    output: str = "sigmoid"
    num_coordinates: int | None = None
    slope_range: tuple[float, float] = (1.0, 1.0)

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
        spec = GeneratorSpec(**{**fields, "shape": tuple(int(n) for n in fields["shape"])})
        numbers = (*spec.shape, spec.latent_dim, spec.width, spec.depth, spec.num_coordinates or 1)
        if spec.arch not in ARCHITECTURES or spec.output not in ("sigmoid", "linear"):
            raise ValueError(f"unknown generator {spec.arch!r} with output {spec.output!r}")
        if not all(isinstance(n, int) and 0 < n <= 1 << 16 for n in numbers) or spec.dim > 1 << 20:
            raise ValueError("generator sizes out of bounds")
        low, high = spec.slope_range
        return GeneratorSpec(**{**asdict(spec), "slope_range": (float(low), float(high))})


class Mlp(nn.Module):
    """Residual multilayer perceptron whose layers are scaled and shifted by the slope (FiLM)::

        h = act(film_0(W_0 z));  h = h + act(film_l(W_l h)), l = 1..depth;  coordinates = W_out h + b_out

    Buffers ``mean`` (dim,) and, for linear output, ``basis`` (num_coordinates, dim) with orthonormal rows.
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.dim, self.latent_dim = spec.dim, spec.latent_dim
        outputs = spec.num_coordinates if spec.output == "linear" else spec.dim
        assert outputs is not None
        self.layers = nn.ModuleList(
            nn.Linear(spec.latent_dim if i == 0 else spec.width, spec.width) for i in range(spec.depth + 1)
        )
        self.last = nn.Linear(spec.width, outputs)
        nn.init.zeros_(self.last.bias)
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
            assert basis is not None and variances is not None
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
        y = self.last(h)
        return torch.sigmoid(y) if self.spec.output == "sigmoid" else y

    @torch.no_grad()
    def at_slope(self, beta: float) -> Mlp:
        """The same map as a plain network, with the slope folded into weights and biases (in float64)."""
        plain = Mlp(GeneratorSpec(**{**asdict(self.spec), "slope_range": (beta, beta)})).double()
        state = {name: value.double() for name, value in self.state_dict().items()}
        plain.load_state_dict({name: value for name, value in state.items() if "slope" not in name})
        if self.conditional:
            exact = Mlp(self.spec).double()
            exact.load_state_dict(state)
            for layer, (scale, shift) in zip(
                plain.layers, exact.film(torch.tensor([math.log(beta)]).double()), strict=True
            ):
                layer.bias.copy_(layer.bias * scale[0] + shift[0])
                layer.weight.mul_(scale[0][:, None])
        return plain.eval().requires_grad_(False)


class Dcgan(nn.Module):
    """The paper's image generator: linear to 8 c_d x 2 x 2, then four transposed convolutions up to 32 x 32."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        if spec.shape[:2] != (32, 32):
            raise ValueError("the dcgan generator makes 32x32 blocks")
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
        """An evaluation copy with batch normalisation folded into the convolutions (design: never in train mode)."""
        plain = copy.deepcopy(self).double().eval().requires_grad_(False)
        for i, norm in enumerate(plain.norm):
            if isinstance(norm, nn.BatchNorm2d):
                plain.up[i] = fuse_conv_bn_eval(plain.up[i], norm, transpose=True)
                plain.norm[i] = nn.Identity()
        return plain


class FullyConnected(nn.Module):
    """The paper's generator for vectors: two hidden ReLU layers as wide as the source, linear output."""

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
        with torch.no_grad():
            self.body[-1].bias.copy_(mean)

    def forward(self, z: Tensor, log_slope: Tensor | None = None) -> Tensor:
        """Vectors (n, dim)."""
        y = self.body(z)
        return torch.sigmoid(y) if self.spec.output == "sigmoid" else y

    def at_slope(self, beta: float) -> FullyConnected:
        """A frozen float64 copy."""
        return copy.deepcopy(self).double().eval().requires_grad_(False)


ARCHITECTURES: dict[str, type[Mlp] | type[Dcgan] | type[FullyConnected]] = {
    "mlp": Mlp,
    "dcgan": Dcgan,
    "fc": FullyConnected,
}
Generator = Mlp | Dcgan | FullyConnected


def build_generator(spec: GeneratorSpec) -> Generator:
    """An untrained generator of this specification."""
    return ARCHITECTURES[spec.arch](spec)


class GeneratorProposal:
    """A trained generator at one slope, seen as a Proposal in its own coordinates.

    ``dim`` counts coordinates.  ``analyse`` takes blocks (n, block_dim) there, ``synthesise`` takes coordinates back;
    between two points, squared distances differ from those of the pixels by a constant of the block alone.

    Invariants: row j of ``candidates`` depends on row j of ``z`` only; synthesise(analyse(y)) = y for candidates y.
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

    def analyse(self, x: Tensor) -> Tensor:
        """Coordinates (n, dim) of the blocks x (n, block_dim)."""
        if not self.is_linear:
            return x
        network = self.networks[x.dtype]
        return (x - network.mean) @ network.basis.T

    def synthesise(self, coordinates: Tensor) -> Tensor:
        """Blocks (n, block_dim) from coordinates (n, dim)."""
        if not self.is_linear:
            return coordinates
        network = self.networks[coordinates.dtype]
        return network.mean + coordinates @ network.basis
