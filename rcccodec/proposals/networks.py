"""The networks that generators are, as they are trained and stored.

A slope-conditional generator becomes a plain network, without any trace of the slope, once ``at_slope`` has
folded the condition into its weights.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rcccodec.proposals.spec import PATCH_SIDE, PATCH_STRIDE, GeneratorSpec

SLOPE_FEATURES = 32


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


_CLASSES: dict[str, type[Mlp] | type[Dcgan] | type[FullyConnected]] = {
    "mlp": Mlp,
    "patches": Patches,
    "dcgan": Dcgan,
    "fc": FullyConnected,
}
Generator = Mlp | Dcgan | FullyConnected


def build_generator(spec: GeneratorSpec) -> Generator:
    """An untrained generator of this specification."""
    return _CLASSES[spec.arch](spec)
