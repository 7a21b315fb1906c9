"""CompressAI's architectures for photographs, several slopes in one network.

    x --> g_a --> gain_k --> round --> inverse_k --> g_s --> x_hat
            |                  |
            +- |.| h_a, round, h_s: scales, with a hyperprior

``factorized`` is bmshj2018-factorized (its EntropyBottleneck a channel for each slope and latent),
``hyperprior`` is bmshj2018-hyperprior; both as CompressAI builds them, with N = width and M = latent_dim.
Gains for each slope and latent channel (Cui et al. 2021) stand in for one network a slope. The synthesis has
gains of its own, not the reciprocals: at a low slope they turn off channels that hold nothing but noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rcccodec.baselines.compressai import import_compressai
from rcccodec.baselines.ntc import entropy_bottleneck, factorised_nats
from rcccodec.baselines.rounding import Rounding
from rcccodec.baselines.spec import NtcSpec
from rcccodec.baselines.tables import Tables, factorised_tables, gaussian_tables

LATENT_STRIDE, HYPER_STRIDE = 16, 64  # pixels a step of the latents, of the hyperlatents
SCALES: NDArray[np.float64] = np.exp(np.linspace(math.log(0.11), math.log(64), 64))
FIRST_GAIN_AT = 10.0  # the slope whose gain is 1 before training
FIRST_GAIN_POWER = 0.35


class PhotoNtc(nn.Module):
    """Networks of a ``factorized`` or ``hyperprior`` code; see the head of this module."""

    def __init__(self, spec: NtcSpec, *, for_training: bool = True) -> None:
        super().__init__()
        self.spec = spec
        models = import_compressai("compressai.models")
        self.has_hyperprior = spec.kind == "hyperprior"
        built = (models.ScaleHyperprior if self.has_hyperprior else models.FactorizedPrior)(
            spec.width, spec.latent_dim
        )
        self.g_a, self.g_s = built.g_a, built.g_s
        slopes = len(spec.betas)
        if self.has_hyperprior:
            self.h_a, self.h_s, self.gaussian = built.h_a, built.h_s, built.gaussian_conditional
        if for_training:  # coding needs its tables alone
            channels = spec.width if self.has_hyperprior else spec.latent_dim
            self.bottleneck = entropy_bottleneck(slopes * channels)
        first = FIRST_GAIN_POWER * (torch.tensor(spec.betas) / FIRST_GAIN_AT).log()
        self.log_gain = nn.Parameter(first[:, None].repeat(1, spec.latent_dim))
        self.log_gain_back = nn.Parameter(-self.log_gain.detach())

    @property
    def stride(self) -> int:
        """Sides of an image are padded to multiples of this."""
        return HYPER_STRIDE if self.has_hyperprior else LATENT_STRIDE

    def analysis(self, x: Tensor, slope: Tensor) -> Tensor:
        """Latents (n, M, h/16, w/16) before rounding, of x (n, 3, h, w)."""
        return self.g_a(x) * self.log_gain[slope].exp()[:, :, None, None]

    def synthesis(self, y: Tensor, slope: Tensor) -> Tensor:
        """Pixels (n, 3, h, w), not yet clipped."""
        return self.g_s(y * self.log_gain_back[slope].exp()[:, :, None, None])

    def rate_and_distortion(self, x: Tensor, slope: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """Rates (nats) and summed squared errors, (n,) each, of crops x (n, 3*h*w) in the order (h, w, c).

        ``slope`` (n,) int64 must be i mod K in row i, K slopes in all.
        """
        height, width, _ = self.spec.shape
        pictures = x.view(-1, height, width, 3).permute(0, 3, 1, 2)
        y = self.analysis(pictures, slope).float()
        charged, seen = rounding(y)
        if self.has_hyperprior:
            z_charged, z_seen = rounding(self.h_a(y.abs()).float())
            nats = self._factorised(z_charged)
            scales = self.h_s(z_seen).float()
            with torch.autocast(x.device.type, enabled=False):
                likelihood = self.gaussian._likelihood(charged, scales)
            nats = nats - self.gaussian.likelihood_lower_bound(likelihood).log().flatten(1).sum(1)
        else:
            nats = self._factorised(charged)
        distortion = (pictures - self.synthesis(seen, slope)).square().flatten(1).sum(1)
        return nats, distortion

    def _factorised(self, v: Tensor) -> Tensor:
        """Nats (n,) of v (n, channels, h, w), its rows the slopes in turn."""
        n, channels, height, width = v.shape
        slopes = len(self.spec.betas)
        columns = v.view(-1, slopes, channels, height * width).permute(0, 3, 1, 2)
        nats = factorised_nats(self.bottleneck, columns.reshape(-1, slopes * channels))
        return nats.view(-1, height * width, slopes, channels).sum((1, 3)).view(n)

    def tables(self) -> dict[str, Tables]:
        """Integer tables of the trained entropy model.

        Rows of the factorised one (``latents``, or ``hyper`` with a hyperprior) are slope * channels
        + channel; those of the Gaussian one (``latents`` with a hyperprior) are SCALES.
        """
        factorised = factorised_tables(self.bottleneck)
        if self.has_hyperprior:
            return {"hyper": factorised, "latents": gaussian_tables(SCALES)}
        return {"latents": factorised}

    def scale_rows(self, z: Tensor) -> NDArray[np.int32]:
        """Table rows (M * h/16 * w/16,) for the latents, given rounded hyperlatents z (1, N, h/64, w/64).

        In float64, so that another machine's arithmetic all but never lands on the other side of a boundary.
        """
        exact = self.h_s.to(torch.float64)
        try:
            scales = exact(z.double()).flatten()
        finally:
            self.h_s.to(torch.float32)
        upper = torch.from_numpy(np.sqrt(SCALES[:-1] * SCALES[1:]))
        return torch.bucketize(scales.cpu(), upper).to(torch.int32).numpy()
