"""A Gaussian channel between learned transforms, several slopes in one network; nothing is quantised.

    x --> g_a --> gain_k --> N(mean, noise^2) --> y --> gain_k' --> g_s --> x_hat
                     |
                     +--> class of each position: a Gaussian prior for every channel of y

The rate is that of the channel: the divergence of the posterior from the class's prior, in nats, and the
class's
own code length. Each position (16x16 pixels) takes the class that is cheapest. Gains for each slope and
latent channel (Cui et al. 2021) stand in for one network a slope.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rcccodec.baselines.rounding import Rounding
from rcccodec.latent.classes import fit_classes
from rcccodec.latent.prior import divergences
from rcccodec.latent.spec import LatentSpec
from rcccodec.latent.transforms import analysis_transform, synthesis_transform

FIRST_GAIN_AT, FIRST_GAIN_POWER = 10.0, 0.35  # the slope whose gain is 1 before training; how gains grow
FIRST_NOISE = 12**-0.5  # that of rounding to integers
LEAST_LOG_NOISE, MOST_LOG_NOISE = -6.0, 4.0
CODING = ("g_a.", "g_s.", "log_gain", "noise_bias")  # parameters that coding needs
REACH = 2.5
CLASS_DISCOUNT = 0.8  # what a class's neighbours take off its code length, about


class LatentNetwork(nn.Module):
    """Transforms, noise and classes; see the head of this module."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.spec = spec
        slopes, channels = len(spec.betas), spec.latent_dim
        self.g_a = analysis_transform(spec.width, 2 * channels)
        self.g_s = synthesis_transform(spec.width, channels)
        with torch.no_grad():  # the same noise everywhere until trained
            self.g_a[-1].weight[channels:] = 0
            self.g_a[-1].bias[channels:] = 0
        first = FIRST_GAIN_POWER * (torch.tensor(spec.betas) / FIRST_GAIN_AT).log()
        self.log_gain = nn.Parameter(first[:, None].repeat(1, channels))
        self.log_gain_back = nn.Parameter(-self.log_gain.detach())
        self.noise_bias = nn.Parameter(torch.full((slopes, channels), math.log(FIRST_NOISE)))
        self.class_logits = nn.Parameter(torch.zeros(slopes, spec.classes))
        self.class_centre = nn.Parameter(torch.zeros(slopes, spec.classes, channels))
        self.class_log_scale = nn.Parameter(torch.zeros(slopes, spec.classes, channels))

    def drop_classes(self) -> None:
        """Forget what training alone needs; a codec has it as tables."""
        del self.class_logits, self.class_centre, self.class_log_scale

    def analysis(self, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the noise, (n, M, h/16, w/16) each, of pictures x (n, 3, h, w) in [0, 1]."""
        mean, log_noise = self.g_a(x).float().chunk(2, 1)
        mean = mean * self.log_gain[slope].exp()[:, :, None, None]
        log_noise = log_noise + self.noise_bias[slope][:, :, None, None]
        return mean, log_noise.clamp(LEAST_LOG_NOISE, MOST_LOG_NOISE)

    def synthesis(self, y: Tensor, slope: Tensor) -> Tensor:
        """Pixels (n, 3, 16 h, 16 w), not yet clipped."""
        made: Tensor = self.g_s(self.latents_of(y, slope))
        return made

    def latents_of(self, y: Tensor, slope: Tensor) -> Tensor:
        """What g_s is given for y (n, M, h, w) at slopes (n,): the gain taken off."""
        return y * self.log_gain_back[slope].exp()[:, :, None, None]

    def divergences(self, mean: Tensor, log_noise: Tensor, slope: int) -> Tensor:
        """D(N(mean, noise^2) || class), nats (positions, classes), of rows (positions, M)."""
        return divergences(mean, log_noise, self.class_centre[slope], self.class_log_scale[slope])

    def rate_and_distortion(self, x: Tensor, slope: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """Rates (nats) and summed squared errors, (n,) each, of crops x (n, 3*h*w) in the order (h, w, c).

        ``slope`` (n,) int64 must be i mod K in row i, K slopes in all. In the mode ``noise`` of
        ``rounding`` a position's rate is -log sum_c pi_c exp(-divergence_c); later that of its cheapest
        class, and what is seen of a mean is at most REACH scales from the class's centre: a search of few
        bits finds no candidate further out.
        """
        height, width, _ = self.spec.shape
        pictures = x.view(-1, height, width, 3).permute(0, 3, 1, 2)
        mean, log_noise = self.analysis(pictures, slope)
        slopes = len(self.spec.betas)
        soft = rounding.mode == "noise"
        nats, seen = [], torch.empty_like(mean)
        with torch.autocast(x.device.type, enabled=False):
            for k in range(slopes):
                rows = _rows(mean[k::slopes])
                each = self.divergences(rows, _rows(log_noise[k::slopes]), k)
                each = each - CLASS_DISCOUNT * self.class_logits[k].log_softmax(0)
                cheapest, classes = each.min(1)
                nats.append(
                    (-torch.logsumexp(-each, 1) if soft else cheapest).view(len(x) // slopes, -1).sum(1)
                )
                if not soft:
                    rows = self._within_reach(rows, classes, k)
                seen[k::slopes] = rows.view(-1, *mean.shape[2:], mean.shape[1]).permute(0, 3, 1, 2)
        nats = torch.stack(nats, 1).reshape(-1)
        y = seen + log_noise.exp() * torch.randn_like(mean)
        distortion = (pictures - self.synthesis(y, slope)).square().flatten(1).sum(1)
        return nats, distortion

    def _within_reach(self, rows: Tensor, classes: Tensor, slope: int) -> Tensor:
        centre = self.class_centre[slope][classes]
        reach = REACH * self.class_log_scale[slope][classes].exp()
        return torch.minimum(torch.maximum(rows, centre - reach), centre + reach)

    @torch.no_grad()
    def fit_classes(self, x: Tensor, rounds: int = 6) -> None:
        """Start the classes: hard EM on latents of pictures x (n, 3, h, w), begun from bands of energy."""
        for k in range(len(self.spec.betas)):
            batches = [self.analysis(some, torch.full((len(some),), k)) for some in x.split(32)]
            mean = torch.cat([_rows(m) for m, _ in batches])
            log_noise = torch.cat([_rows(s) for _, s in batches])
            found = fit_classes(mean, log_noise, self.spec.classes, rounds, CLASS_DISCOUNT)
            self.class_centre[k], self.class_log_scale[k], self.class_logits[k] = found


def _rows(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])
