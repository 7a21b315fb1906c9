"""One-shot nonlinear transform coding of small images and of vectors, at several slopes.

    x --> features --> analysis --> gain_k --> round --> 1/gain_k --> synthesis --> x_hat
                                                 |
                                 CompressAI's EntropyBottleneck, a channel for each slope and latent

The synthesis is the codec's own generator and the analysis the same network the other way round, both
conditioned on the slope by FiLM, so that the two methods differ in what is sent and not in their transforms.
Features are whitened KLT coordinates and, of images in whole patches, what a convolution and a residual one
make of the image.
Vectors take the paper's two hidden ReLU layers, a pair of networks for each slope.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.baselines.compressai import import_compressai
from rcccodec.baselines.rounding import Rounding
from rcccodec.baselines.spec import NtcSpec
from rcccodec.baselines.tables import Tables, factorised_tables
from rcccodec.proposals.generator import (
    PATCH_SIDE,
    PATCH_STRIDE,
    FullyConnected,
    GeneratorSpec,
    build_generator,
)

FIRST_GAIN = 1.0  # steps of the quantiser in one unit of the analysis, before training
REST_AT_FIRST = 0.1  # factor on what vectors' networks begin with beside the KLT
FIRST_SCALE = 2.0  # of the entropy model's densities, likewise


class Ntc(nn.Module):
    """Networks of an ``image`` code; see the head of this module.

    Buffers ``mean`` (pixels,) and ``whiten`` (pixels, features) make the features of an image.
    """

    def __init__(self, spec: NtcSpec, *, for_training: bool = True) -> None:
        super().__init__()
        self.spec = spec
        slopes = (spec.betas[0], spec.betas[-1])
        self.register_buffer("mean", torch.zeros(spec.dim))
        self.register_buffer("whiten", torch.zeros(spec.dim, spec.features))
        with torch.device("cpu"):  # not stored, so never a placeholder
            self.register_buffer("log_betas", torch.tensor(spec.betas).log(), persistent=False)
        seen = spec.features + spec.maps * math.prod(spec.shape[:2]) // PATCH_STRIDE**2
        inward = GeneratorSpec(
            "mlp", (spec.latent_dim,), seen, spec.width, spec.depth, "linear", spec.latent_dim, slopes
        )
        outward = GeneratorSpec(
            "patches" if spec.maps else "mlp", spec.shape, spec.latent_dim, spec.width, spec.depth, "sigmoid",
            None, slopes, spec.maps,
        )  # fmt: skip
        self.analysis_network = build_generator(inward)
        del self.analysis_network.mean, self.analysis_network.basis  # latents have no axes of their own
        self.synthesis_network = build_generator(outward)
        if spec.maps:  # the end of the synthesis the other way round
            margin = (PATCH_SIDE - PATCH_STRIDE) // 2
            self.cut = nn.Conv2d(spec.shape[2], spec.maps, PATCH_SIDE, PATCH_STRIDE, margin)
            self.mix = nn.Conv2d(spec.maps, spec.maps, 3, padding=1)
        self.log_gain = nn.Parameter(torch.full((len(spec.betas), spec.latent_dim), math.log(FIRST_GAIN)))
        if for_training:  # coding needs its tables alone
            self.bottleneck = entropy_bottleneck(len(spec.betas) * spec.latent_dim)

    def start_from(self, mean: Tensor, basis: Tensor, variances: Tensor) -> None:
        """Begin at the mean of the images, with features whitened by their KLT (see ``principal_axes``)."""
        floor = variances[0].clamp_min(1e-12) * 1e-4
        self.mean.copy_(mean)
        self.whiten.copy_((basis / (variances + floor).sqrt()[:, None]).T)
        self.synthesis_network.start_from(mean, None, None)

    def analysis(self, x: Tensor, slope: Tensor) -> Tensor:
        """Latents (n, latent_dim) before rounding, of x (n, dim) and ``slope`` (n,), numbers of slopes."""
        features = (x - self.mean) @ self.whiten
        if self.spec.maps:
            features = torch.cat([features, self._patch_features(x - self.mean)], 1)
        return self.analysis_network(features, self.log_betas[slope]) * self.log_gain[slope].exp()

    def _patch_features(self, x: Tensor) -> Tensor:
        """Values (n, maps * h/4 * w/4) of images x (n, dim) less their mean."""
        height, width, channels = self.spec.shape
        maps = functional.silu(self.cut(x.view(-1, height, width, channels).permute(0, 3, 1, 2)))
        return (maps + functional.silu(self.mix(maps))).flatten(1)

    def synthesis(self, y: Tensor, slope: Tensor) -> Tensor:
        """Pixels (n, dim) of rounded latents (n, latent_dim)."""
        return self.synthesis_network(y * (-self.log_gain[slope]).exp(), self.log_betas[slope])

    def rate_and_distortion(self, x: Tensor, slope: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """Rates (nats) and summed squared errors, (n,) each, of codes x (n, dim).

        ``slope`` (n,) int64 must be i mod K in row i, K slopes in all.
        """
        return code_rate_and_distortion(self, x, slope, rounding)

    def tables(self) -> dict[str, Tables]:
        """Integer tables of the trained entropy model: ``latents``, row slope * latent_dim + latent."""
        return {"latents": factorised_tables(self.bottleneck)}


class VectorNtc(nn.Module):
    """Two hidden ReLU layers each way, one pair of networks for each slope."""

    def __init__(self, spec: NtcSpec, *, for_training: bool = True) -> None:
        super().__init__()
        self.spec = spec
        inward = GeneratorSpec("fc", (spec.latent_dim,), spec.dim, spec.width, 2, "linear", None)
        outward = GeneratorSpec("fc", spec.shape, spec.latent_dim, spec.width, 2, "linear", None)
        self.inward = nn.ModuleList(build_generator(inward) for _ in spec.betas)
        self.outward = nn.ModuleList(build_generator(outward) for _ in spec.betas)
        if for_training:  # coding needs its tables alone
            self.bottleneck = entropy_bottleneck(len(spec.betas) * spec.latent_dim)

    def start_from(self, mean: Tensor, basis: Tensor, variances: Tensor) -> None:
        """Begin at the KLT, with the step that is best for it at high rates: step^2 / 12 = 1 / 2 beta.

        From random weights a low slope ends at no bits, and the others in poorer transforms than this.
        """
        with torch.no_grad():
            for beta, inward, outward in zip(self.spec.betas, self.inward, self.outward, strict=True):
                gain = math.sqrt(beta / 6)
                count = min(len(basis), self.spec.latent_dim, self.spec.width // 2)
                _start_linear(inward, gain * torch.eye(self.spec.latent_dim, count) @ basis[:count], mean)
                _start_linear(outward, basis[:count].T @ torch.eye(count, self.spec.latent_dim) / gain)
                outward.body[-1].bias.copy_(mean)

    def analysis(self, x: Tensor, slope: Tensor) -> Tensor:
        """Latents (n, latent_dim) before rounding."""
        return _each(self.inward, x, slope)

    def synthesis(self, y: Tensor, slope: Tensor) -> Tensor:
        """Vectors (n, m) of rounded latents."""
        return _each(self.outward, y, slope)

    def rate_and_distortion(self, x: Tensor, slope: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """Rates (nats) and summed squared errors, (n,) each, of codes x (n, dim).

        ``slope`` (n,) int64 must be i mod K in row i, K slopes in all.
        """
        return code_rate_and_distortion(self, x, slope, rounding)

    def tables(self) -> dict[str, Tables]:
        """Integer tables of the trained entropy model: ``latents``, row slope * latent_dim + latent."""
        return {"latents": factorised_tables(self.bottleneck)}


def code_rate_and_distortion(
    network: Any, x: Tensor, slope: Tensor, rounding: Rounding
) -> tuple[Tensor, Tensor]:
    charged, seen = rounding(network.analysis(x, slope).float())
    nats = factorised_nats(network.bottleneck, charged.view(-1, network.bottleneck.channels))
    return nats.reshape(len(x), -1).sum(1), (x - network.synthesis(seen, slope)).square().sum(1)


def factorised_nats(bottleneck: Any, v: Tensor) -> Tensor:
    """-ln p of each value of v (m, channels), rounded or not, under CompressAI's EntropyBottleneck."""
    with torch.autocast(v.device.type, enabled=False):  # differences of near values
        likelihood, _, _ = bottleneck._likelihood(v.T[:, None, :])
        return -bottleneck.likelihood_lower_bound(likelihood)[:, 0, :].log().T


def entropy_bottleneck(channels: int) -> Any:
    """CompressAI's factorised entropy model, less its quantiles: tables are made in another way."""
    entropy_models = import_compressai("compressai.entropy_models")
    bottleneck = entropy_models.EntropyBottleneck(channels, init_scale=FIRST_SCALE)
    bottleneck.quantiles.requires_grad_(False)
    return bottleneck


def _start_linear(network: FullyConnected, matrix: Tensor, mean: Tensor | None = None) -> None:
    """Let two ReLU layers begin as x -> matrix (x - mean), in two units for each output, and little besides.

    ``matrix``: (outputs, inputs), of rank at most half the width.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    count = min(len(values), network.spec.width // 2)
    root = values[:count].sqrt()
    into, out = root[:, None] * right[:count], left[:, :count] * root
    first, second, last = (network.body[i] for i in (0, 2, 4))
    second.weight.mul_(REST_AT_FIRST)
    last.weight.mul_(REST_AT_FIRST)
    last.bias.zero_()
    second.weight[: 2 * count] = torch.eye(2 * count, network.spec.width)
    second.bias[: 2 * count] = 0
    for sign, units in ((1, slice(0, count)), (-1, slice(count, 2 * count))):
        first.weight[units] = sign * into
        first.bias[units] = 0 if mean is None else -sign * into @ mean
        last.weight[:, units] = sign * out


def _each(networks: nn.ModuleList, x: Tensor, slope: Tensor) -> Tensor:
    """Row i of ``x`` through network ``slope[i]``."""
    parts, order = [], torch.argsort(slope, stable=True)
    counts = torch.bincount(slope, minlength=len(networks)).tolist()
    for network, rows in zip(networks, x[order].split(counts), strict=True):
        parts.append(network(rows))
    return torch.cat(parts)[torch.argsort(order)]
