"""NERD's Lagrangian by importance sampling: it does not end at log2 of the number of samples.

Latents come from a mixture r of the encoder's q(z|x), the same made wider, and the prior p::

    L = -E_x log (1/M) sum_m w_m,    w_m = p(z_m) / r(z_m|x) exp(-beta d(x, f(z_m)))

E (1/M) sum_m w_m = E_p exp(-beta d) for every x, whatever the encoder; so by Jensen E L is at least NERD's
Lagrangian of an infinite codebook (nerd-rcc eq. 11), and falls to it as M grows. The prior's share keeps
p / r bounded. D = sum_m w_m d_m / sum_m w_m (eq. 8) is that of a channel of its own, which keeps one of the
M draws by its weight; R = L - beta D is at least that channel's divergence in expectation (lossy-rates,
proposition 4). So (E D, E R) is an upper point, if not the one at this slope for small M.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rcccodec.rd.beta_vae import PairedDistortion
from rcccodec.rd.point import RatePoint, upper_point

WIDE_SHARE, PRIOR_SHARE = 0.25, 0.1
WIDER = 1.5
LEAST_EFFECTIVE = 4.0  # samples; with fewer the weights hang on single draws
_MOST_VALUES = 1 << 23  # of reproductions, or of hidden values, made at a time
_HIDDEN = 512
Decode = Callable[[Tensor], Tensor]
Posterior = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ImportanceSample:
    """Per vector, float64 (n,): ln mean weight (nats), weighted mean distortion, effective sample size.

    The effective size is (sum w)^2 / sum w^2, from 1 to M.
    """

    log_mean: Tensor
    distortion: Tensor
    effective: Tensor


def mixture_draws(
    mean: Tensor, log_scale: Tensor, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Stratified draws of r = (1 - a - b) q + a q-wider + b p, and ln p(z) / r(z|x).

    Args:
        mean, log_scale: (n, k) of q; draws: M >= 1, of which the shares a, b round down.

    Returns:
        z (n, M, k) and the log ratios (n, M), nats: with the strata's true shares (balance heuristic).
    """
    n, k = mean.shape
    wide, prior = int(WIDE_SHARE * draws), int(PRIOR_SHARE * draws)
    counts = (draws - wide - prior, wide, prior)
    zero = torch.zeros_like(mean)
    # never wider than the prior where q itself is not: beyond it there is nothing to find
    wider = torch.maximum(log_scale, (log_scale + math.log(WIDER)).clamp_max(0))
    parts = ((mean, log_scale), (mean, wider), (zero, zero))
    noise = torch.randn((n, draws, k), generator=generator).to(mean.device)
    z = torch.cat(
        [m[:, None] + e * s.exp()[:, None] for (m, s), e in zip(parts, noise.split(counts, 1), strict=True)],
        1,
    )
    log_r = torch.stack(
        [_log_normal(z, m, s) + math.log(c / draws) for (m, s), c in zip(parts, counts, strict=True) if c]
    ).logsumexp(0)
    return z, _log_normal(z, zero, zero) - log_r


@torch.no_grad()
def importance_sample(
    x: Tensor,
    decode: Decode,
    posterior: Posterior,
    paired: PairedDistortion,
    *,
    beta: float,
    draws: int,
    generator: torch.Generator,
) -> ImportanceSample:
    """Weigh M fresh draws for each vector.

    Args:
        x: (n, dim). decode: latents (n, k) to reproductions (n, dim). posterior: x to mean and log scale.
        paired: d of rows, as `rcccodec.rd.beta_vae.paired_distortion`.
        beta: nats per unit of distortion.
    """
    parts = []
    for rows in _rows(x, draws):
        mean, log_scale = posterior(rows)
        z, log_ratio = mixture_draws(mean, log_scale, draws, generator)
        y = decode(z.flatten(0, 1)).view(len(rows), draws, -1)
        d = paired(rows[:, None], y).double()
        log_weights = log_ratio.double() - beta * d
        weights = torch.softmax(log_weights, 1)
        parts.append(
            (
                log_weights.logsumexp(1) - math.log(draws),
                (weights * d).sum(1),
                1 / weights.square().sum(1),
            )
        )
    log_mean, distortion, effective = (torch.cat(p).cpu() for p in zip(*parts, strict=True))
    return ImportanceSample(log_mean, distortion, effective)


def estimate_importance(
    x: Tensor,
    decode: Decode,
    posterior: Posterior,
    paired: PairedDistortion,
    *,
    beta: float,
    draws: int,
    repeats: int,
    generator: torch.Generator,
    method: str = "nerd-is",
    seconds: float = 0.0,
) -> RatePoint:
    """The point of a generator and an encoder on vectors neither was trained on.

    Args:
        x, decode, posterior, paired, beta, draws: as `importance_sample`.
        repeats: with fresh draws; their log sums are averaged, Jensen's bias stays that of M draws.
        seconds: of training, for the record.

    Returns:
        RatePoint; saturated where a tenth of the vectors have fewer than ``LEAST_EFFECTIVE`` samples.

    Invariants: the expected Lagrangian is on or above R + beta D of the generator's law, for any encoder.
    """
    began = time.perf_counter()
    found = [
        importance_sample(x, decode, posterior, paired, beta=beta, draws=draws, generator=generator)
        for _ in range(repeats)
    ]
    effective = torch.stack([f.effective for f in found])
    lowest = float(effective.quantile(0.1))
    return upper_point(
        method, beta, -torch.stack([f.log_mean for f in found]), torch.stack([f.distortion for f in found]),
        num_samples=draws, saturated=lowest < LEAST_EFFECTIVE,
        seconds=seconds + time.perf_counter() - began,
        details={"effective_samples": float(effective.mean()), "effective_samples_tenth": lowest},
    )  # fmt: skip


def importance_loss(
    x: Tensor,
    decode: Decode,
    posterior: Posterior,
    paired: PairedDistortion,
    *,
    beta: float,
    draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """A surrogate of L with M draws of q alone, to differentiate (Burda et al. 2016).

    The encoder's gradient is the doubly reparameterised one (Tucker et al. 2019), whose noise does not grow
    with M: q's parameters are held in the density, and each draw's gradient is weighed twice. With M = 1 this
    is the beta-VAE's bound.

    Returns:
        The surrogate; L (nats) and D, detached.
    """
    mean, log_scale = posterior(x)
    noise = torch.randn((len(x), draws, mean.shape[1]), generator=generator).to(mean.device)
    z = mean[:, None] + noise * log_scale.exp()[:, None]
    d = paired(x[:, None], decode(z.flatten(0, 1)).view(len(x), draws, -1))
    log_q = _log_normal(z, mean.detach(), log_scale.detach())
    log_weights = _log_normal(z, torch.zeros_like(mean), torch.zeros_like(mean)) - log_q - beta * d
    weights = torch.softmax(log_weights.detach(), 1)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights[:, :, None])
    value = math.log(draws) - log_weights.detach().logsumexp(1).mean()
    return -(weights * log_weights).sum(1).mean(), value, (weights * d.detach()).sum(1).mean()


def _log_normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """ln N(z; mean, diag exp(2 log scale)) + k/2 ln 2 pi of z (n, M, k), as (n, M)."""
    return -0.5 * ((z - mean[:, None]) * torch.exp(-log_scale)[:, None]).square().sum(2) - log_scale.sum(
        1, keepdim=True
    )


def _rows(x: Tensor, draws: int) -> Iterator[Tensor]:
    yield from x.split(max(1, _MOST_VALUES // (draws * max(_HIDDEN, x.shape[1]))))
