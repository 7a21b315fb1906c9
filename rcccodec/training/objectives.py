"""The losses, in nats: the beta-VAE bound, NERD's objective with any candidates, and the slope for a wanted D."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rcccodec.distortion import Distortion, squared_error
from rcccodec.proposals.generator import Generator
from rcccodec.training.encoder import Encoder, gaussian_log_density


def vae_loss(
    x: Tensor, log_slope: Tensor, generator: Generator, encoder: Encoder, kl_weight: float
) -> Tensor:
    """KL(q(z|x) || N(0, I)) + beta d(x, G(z)), z ~ q(z|x): an upper bound on NERD's objective for G (nats).

    x (n, dim), log_slope (n,).  Distances are taken in the generator's coordinates (an additive constant less).
    """
    mean, log_variance = encoder(x, log_slope)
    z = mean + torch.randn(mean.shape, dtype=mean.dtype, device=mean.device) * torch.exp(0.5 * log_variance)
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).sum(1)
    distortion = ((analyse(generator, x) - generator(z, log_slope)) ** 2).sum(1)
    return (kl_weight * kl + log_slope.exp() * distortion).mean()


def analyse(generator: Generator, x: Tensor) -> Tensor:
    """Blocks x (n, dim) in the generator's coordinates (see GeneratorProposal.analyse)."""
    basis = getattr(generator, "basis", None)
    return x if basis is None else (x - generator.mean) @ basis.T


def nerd_loss(log_ratio: Tensor | None, distances: Tensor, beta: float | Tensor) -> Tensor:
    """-E_x log (1/N) sum_j (p/m)(z_j) exp(-beta d(x, y_j)): nerd-rcc eq. 11, Algorithm 1 (nats).

    ``distances`` (n, N).  ``log_ratio`` (N,) is log p(z_j)/m(z_j) when the z_j come from m instead of the prior p.
    """
    logits = -beta * distances if log_ratio is None else log_ratio - beta * distances
    return math.log(distances.shape[1]) - torch.logsumexp(logits, dim=1).mean()


def nerd_prior_loss(
    x: Tensor, beta: float, generator: Generator, num_candidates: int, distortion: Distortion
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 as printed: candidates from the prior.  Returns the loss (nats) and the distances (n, N)."""
    z = torch.randn((num_candidates, generator.latent_dim), device=x.device)
    y = generator(z, torch.tensor([math.log(beta)], device=x.device))
    distances = distortion(analyse(generator, x), y)
    return nerd_loss(None, distances, beta), distances


def nerd_pool_loss(
    x: Tensor, beta: float, generator: Generator, encoder: Encoder, draws: int, prior_draws: int
) -> tuple[Tensor, Tensor]:
    """NERD's gradient from a pool of candidates that all images of the batch share.

    The pool holds ``draws`` latents from each q(z|x_b) and ``prior_draws`` from the prior; as draws of the mixture m
    of all of these, with the ratio p/m (the balance heuristic), they leave the estimate of E_p exp(-beta d) unbiased
    while needing far fewer than 2^R candidates.  One index j_b a block is drawn from the weights p/m exp(-beta d):
    beta grad d(x_b, G(z_jb)) then has the mean of the gradient of eq. 11 over the pool, and only these candidates
    are differentiated.  The encoder is fitted to the same draws (reweighted wake-sleep).

    Returns:
        The surrogate to differentiate, and the objective's value on the pool (nats).
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
        z = z[torch.multinomial(torch.softmax(log_ratio - beta * distances, dim=1), 1)[:, 0]]
    distortion = ((target - generator(z, log_slope)) ** 2).sum(1)
    log_q = -0.5 * ((z - mean) ** 2 * torch.exp(-log_variance) + log_variance).sum(1)
    return (beta * distortion - log_q).mean(), value


def slope_for_distortion(distances: Tensor, distortion: float, highest: float = 1e4) -> float:
    """The beta at which E_x sum_j w_j d_j = ``distortion``, w = softmax(-beta d): bisection of nerd-rcc eq. 8.

    ``distances`` (n, N).  The left side falls in beta; beyond its range the nearer end (0 or ``highest``) is returned.
    """
    d = distances.detach().double()

    def reached(beta: float) -> float:
        return float((torch.softmax(-beta * d, dim=1) * d).sum(1).mean())

    return bisect_decreasing(reached, distortion, 0.0, highest)


def bisect_decreasing(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Argument in [low, high] at which a decreasing function meets ``target``, to 1e-6 of its size."""
    if function(low) <= target:
        return low
    if function(high) >= target:
        return high
    while high - low > 1e-6 * max(1e-3, high):
        # slopes span decades: bisect their logarithm as soon as both ends have one
        middle = math.sqrt(low * high) if low > 0 else high / 2 if high < 1e-3 else min(1e-3, high / 2)
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return (low + high) / 2
