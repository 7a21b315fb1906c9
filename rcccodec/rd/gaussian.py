"""R(D) of a Gaussian source with independent components, in closed form (reverse water-filling).

    D(lambda) = sum_k min(lambda, sigma_k^2)        R(lambda) = sum_k max(0, 1/2 log2(sigma_k^2 / lambda))

with -dR/dD = beta = 1 / (2 lambda) nats per unit of summed squared error (Cover & Thomas, theorem 10.3.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GaussianPoint:
    """One point of the curve: beta in nats per unit of distortion, D the summed squared error."""

    beta: float
    rate_bits: float
    distortion: float
    water_level: float


def gaussian_point_at_slope(variances: Sequence[float] | np.ndarray, beta: float) -> GaussianPoint:
    """The point of slope ``-dR/dD = beta``.

    Args:
        variances: (m,), sigma_k^2 >= 0.
        beta: > 0, nats per unit of summed squared error.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return _at_level(np.asarray(variances, dtype=np.float64), 1.0 / (2.0 * beta))


def gaussian_point_at_distortion(variances: Sequence[float] | np.ndarray, distortion: float) -> GaussianPoint:
    """The point of distortion D; above the source's total variance the rate is 0 and the slope is given as 0.

    Args:
        variances: (m,), sigma_k^2 >= 0.
        distortion: > 0, summed squared error.

    Raises:
        ValueError: the distortion is not positive.
    """
    if not distortion > 0:
        raise ValueError(f"distortion must be positive, got {distortion}")
    rising = np.sort(np.asarray(variances, dtype=np.float64))
    if distortion >= rising.sum():
        return GaussianPoint(0.0, 0.0, distortion, math.inf)
    # with the i smallest components below the water, the other m - i share what is left of D
    below = np.concatenate([[0.0], np.cumsum(rising)[:-1]])
    level = (distortion - below) / np.arange(rising.size, 0, -1)
    return _at_level(rising, float(level[np.argmax(level <= rising)]))


def estimate_simulation_floor_bits(
    variances: Sequence[float] | np.ndarray,
    beta: float,
    *,
    num_sources: int = 200,
    num_samples: int = 20_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean over x of the channel-simulation divergence ``-int w(h) log2 w(h) dh`` (arXiv 2401.16579).

    ``w(h) = P_{y~Q_Y}[r >= h]`` with r = q(y|x) / q(y), estimated from draws of the channel itself as
    ``E_{y|x}[1{r >= h} / r]``. No simulation of the optimal channel, one block at a time, spends less on
    average; subtract R to get the least excess.

    Args:
        variances, beta: as in :func:`gaussian_point_at_slope`.
        num_sources, num_samples: Monte Carlo sizes, over x and over y given x.

    Returns:
        (bits, standard error over sources).
    """
    lam = gaussian_point_at_slope(variances, beta).water_level
    active = np.asarray([v for v in variances if v > lam], dtype=np.float64)
    if active.size == 0:
        return 0.0, 0.0
    rng = np.random.default_rng(seed)
    shrink = 1.0 - lam / active
    bits = np.empty(num_sources)
    for i in range(num_sources):
        x = rng.standard_normal(active.size) * np.sqrt(active)
        noise = rng.standard_normal((num_samples, active.size))
        y = x * shrink + noise * np.sqrt(lam * shrink)
        # ln of N(y; x shrink, lam shrink) / N(y; 0, active - lam)
        log_ratio = 0.5 * (np.log(active / lam) - noise**2 + y**2 / (active - lam)).sum(axis=1)
        falling = np.sort(log_ratio)[::-1]
        peak = falling[0]
        tail = np.cumsum(np.exp(peak - falling)) / num_samples * np.exp(-peak)  # w just below each ratio
        tail = np.minimum(tail, 1.0)  # not normalised: its total hangs on a few draws, its top does not
        steps = np.exp(falling) - np.exp(np.append(falling[1:], -np.inf))
        bits[i] = -(tail * np.log2(tail) * steps).sum()
    return float(bits.mean()), float(bits.std(ddof=1) / math.sqrt(num_sources))


def _at_level(variances: np.ndarray, level: float) -> GaussianPoint:
    active = variances[variances > level]
    rate = 0.5 * float(np.log2(active / level).sum())
    return GaussianPoint(1.0 / (2.0 * level), rate, float(np.minimum(variances, level).sum()), level)
