"""Losses in nats: the beta-VAE bound, NERD's objective with any candidates; and the slope for a wanted D.

A linear generator is trained in its coordinates. What they leave out of a block no candidate can change: the
losses may lack beta times that constant, the distortions returned beside them do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rcccodec.distortion import Distortion, squared_error
from rcccodec.proposals.generator import Generator
from rcccodec.training.encoder import Encoder, gaussian_log_density

HIGHEST_SLOPE = 1e4


def vae_loss(
    x: Tensor, log_slope: Tensor, generator: Generator, encoder: Encoder, kl_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """KL(q(z|x) || N(0, I)) + beta d(x, G(z)), z ~ q(z|x): at weight 1 an upper bound on eq. 11 for G (nats).

    Args:
        x: (n, dim) blocks.
        log_slope: (n,) natural logarithm of each block's beta.
        kl_weight: of the first term, below 1 while training warms up.

    Returns:
        The loss; the mean KL (nats) and the mean d, detached: a point (R, D) above the curve.
    """
    mean, log_variance = encoder(x, log_slope)
    z = mean + torch.randn(mean.shape, dtype=mean.dtype, device=mean.device) * torch.exp(0.5 * log_variance)
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).sum(1)
    target = analyse(generator, x)
    distortion = ((target - generator(z, log_slope)) ** 2).sum(1)
    loss = (kl_weight * kl + log_slope.exp() * distortion).mean()
    return loss, kl.detach().mean(), (distortion.detach() + left_out(generator, x, target)).mean()


def analyse(generator: Generator, x: Tensor) -> Tensor:
    """Blocks x (n, dim) in the generator's coordinates (see GeneratorProposal.analyse)."""
    basis = getattr(generator, "basis", None)
    return x if basis is None else (x - generator.mean) @ basis.T


def left_out(generator: Generator, x: Tensor, coordinates: Tensor) -> Tensor:
    """Squared error (n,) of the blocks x (n, dim) that their coordinates cannot say."""
    if getattr(generator, "basis", None) is None:
        return torch.zeros(len(x), dtype=x.dtype, device=x.device)
    return ((x - generator.mean).square().sum(1) - coordinates.square().sum(1)).clamp_min(0)


def nerd_loss(log_ratio: Tensor | None, distances: Tensor, beta: float | Tensor) -> Tensor:
    """-E_x log (1/N) sum_j (p/m)(z_j) exp(-beta d(x, y_j)): nerd-rcc eq. 11, Algorithm 1 (nats).

    Args:
        log_ratio: (N,), log p(z_j)/m(z_j) when the z_j come from m, not from the prior p; None for the prior.
        distances: (n, N), d(x, y_j).
        beta: nats per unit of distortion.
    """
    logits = -beta * distances if log_ratio is None else log_ratio - beta * distances
    return math.log(distances.shape[1]) - torch.logsumexp(logits, dim=1).mean()


def nerd_prior_loss(
    x: Tensor, beta: float, generator: Generator, num_candidates: int, distortion: Distortion
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 as printed: candidates from the prior.

    Args:
        x: (n, dim) blocks. beta: slope, 0 for the zero-rate end. num_candidates: N.
        distortion: of blocks; only the squared error can be taken in a linear generator's coordinates.

    Returns:
        The loss (nats) and the distances (n, N), both differentiable.
    """
    z = torch.randn((num_candidates, generator.latent_dim), device=x.device)
    y = generator(z, torch.tensor([math.log(max(beta, 1e-12))], device=x.device))
    if getattr(generator, "basis", None) is None:
        distances = distortion(x, y)
    elif distortion is squared_error:
        target = analyse(generator, x)
        distances = distortion(target, y) + left_out(generator, x, target)[:, None]
    else:
        distances = distortion(x, generator.mean + y @ generator.basis)
    return nerd_loss(None, distances, beta), distances


def posterior_distortion(distances: Tensor, beta: float) -> Tensor:
    """E_x sum_j w_j d_j, w = softmax(-beta d): eq. 8, the D at slope beta, from distances (n, N)."""
    return (torch.softmax(-beta * distances, dim=1) * distances).sum(1).mean()


def nerd_pool_loss(
    x: Tensor, beta: float, generator: Generator, encoder: Encoder, draws: int, prior_draws: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """NERD's gradient from a pool of candidates that all images of the batch share.

    The pool holds ``draws`` latents from each q(z|x_b) and ``prior_draws`` from the prior; as draws of the
    mixture m of all of these, with the ratio p/m (the balance heuristic), they leave the estimate of
    E_p exp(-beta d) unbiased while needing far fewer than 2^R candidates. One index j_b a block is drawn from
    the weights p/m exp(-beta d): beta grad d(x_b, G(z_jb)) then has the mean of the gradient of eq. 11 over
    the pool, and only these candidates are differentiated. The encoder is fitted to the same draws
    (reweighted wake-sleep).

    Args:
        x: (n, dim) blocks. beta: > 0, one slope for the whole batch. draws, prior_draws: >= 1.

    Returns:
        The surrogate to differentiate; on the pool, the objective's value and R (nats) and D (eq. 8).
    """
    log_slope = torch.tensor([math.log(beta)], device=x.device)
    mean, log_variance = encoder(x, log_slope)
    target = analyse(generator, x)
    with torch.no_grad():
        noise = torch.randn((draws, *mean.shape), device=x.device)
        z = (mean + noise * torch.exp(0.5 * log_variance)).flatten(0, 1)
        z = torch.cat([z, torch.randn((prior_draws, z.shape[1]), device=x.device)])
        zero = torch.zeros((1, z.shape[1]), device=x.device)
        log_p = gaussian_log_density(z, zero, zero)[0]
        log_q = torch.logsumexp(gaussian_log_density(z, mean, log_variance), 0) + math.log(draws / len(z))
        log_ratio = log_p - torch.logaddexp(log_q, log_p + math.log(prior_draws / len(z)))
        distances = squared_error(target, generator(z, log_slope))
        value = nerd_loss(log_ratio, distances, beta)
        weights = torch.softmax(log_ratio - beta * distances, dim=1)
        reached = (weights * distances).sum(1).mean()
        rate, reached = value - beta * reached, reached + left_out(generator, x, target).mean()
        z = z[torch.multinomial(weights, 1)[:, 0]]
    distortion = ((target - generator(z, log_slope)) ** 2).sum(1)
    log_q = -0.5 * ((z - mean) ** 2 * torch.exp(-log_variance) + log_variance).sum(1)
    return (beta * distortion - log_q).mean(), value, rate, reached


def slope_for_distortion(distances: Tensor, distortion: float, highest: float = HIGHEST_SLOPE) -> float:
    """The beta at which E_x sum_j w_j d_j = ``distortion``, w = softmax(-beta d): eq. 8 by bisection.

    ``distances`` (n, N). The left side falls in beta, from the mean distance to the mean least distance; for
    a ``distortion`` outside that range the nearer end is returned: 0 (nothing to send) or ``highest``.
    """
    d = distances.detach().double()
    return bisect_decreasing(lambda beta: float(posterior_distortion(d, beta)), distortion, 0.0, highest)


def bisect_decreasing(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Argument in [low, high] where a decreasing function meets ``target``, to 1e-6 of itself (or 1e-9)."""
    if function(low) <= target:
        return low
    if function(high) >= target:
        return high
    while high - low > 1e-6 * max(1e-3, high):
        # slopes span decades: bisect their logarithm as soon as both ends have one
        middle = math.sqrt(low * high) if low > 0 else high / 2 if high < 1e-3 else min(1e-3, high / 2)
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return (low + high) / 2
