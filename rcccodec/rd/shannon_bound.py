"""Shannon's lower bound for difference distortions, and the differential entropies it needs.

    R(D) + beta D >= h(X) - ln int exp(-beta d(z)) dz nats, for every D, beta > 0 and d(x, y) = d(x - y)

(Shannon 1959; Berger 1971, theorem 4.3.1), because I(X; Y) >= h(X) - h(X - Y) and h(Z) - beta E d(Z) is at
most that logarithm. With equality where X = Y + Z, Z of density exp(-beta d(z)) and independent of Y. So the
noisy sphere X = Y + N(0, s^2 I) meets it under squared error for every beta >= 1 / (2 s^2): part of its own
noise is Z, the rest belongs to Y.

    summed squared error     int = (pi / beta)^(m/2)
    summed absolute error    int = (2 / beta)^m
    squared l^p norm         int = beta^(-m/2) Gamma(m/2 + 1) (2 Gamma(1 + 1/p))^m / Gamma(1 + m/p)
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WIDTHS = 12.0  # of a peak, to either side: exp(-72)


def shannon_lower_bound_nats(entropy_nats: float, dim: int, distortion: str, beta: float) -> float:
    """A line below R(D): R(D) + beta D is at least this, in nats.

    Args:
        entropy_nats: h(X), differential, of the whole vector.
        dim: components m.
        distortion: ``mse``, ``l1`` or ``lp:P``, as in `rcccodec.distortion`.
        beta: > 0, nats per unit of distortion.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return entropy_nats - _log_partition(dim, distortion, beta)


def shannon_rate_at_distortion_nats(entropy_nats: float, dim: int, distortion: str, d: float) -> float:
    """The bound at a distortion, the best of all those lines: at the slope where exp(-beta d(z)) has mean d.

    Args:
        d: > 0. For ``l1`` beta = m / d, else beta = m / (2 d).

    Returns:
        nats, at least 0.
    """
    beta = dim / d if distortion == "l1" else dim / (2 * d)
    return max(0.0, shannon_lower_bound_nats(entropy_nats, dim, distortion, beta) - beta * d)


def gaussian_entropy_nats(variances: Sequence[float] | NDArray[np.float64]) -> float:
    """h of independent Gaussian components, 1/2 sum_k ln(2 pi e sigma_k^2)."""
    return 0.5 * float(np.log(2 * math.pi * math.e * np.asarray(variances, dtype=np.float64)).sum())


def laplacian_entropy_nats(b: float, m: int = 1) -> float:
    """h of m independent Laplacian components of scale b, m ln(2 e b)."""
    return m * math.log(2 * math.e * b)


def sphere_entropy_nats(m: int, noise: float) -> float:
    """h(X) of X = Y + N(0, noise I), Y uniform on the unit sphere of R^m, by integration over the radius.

    The density at radius r is (2 pi s^2)^(-m/2) exp(-(r^2 + 1) / (2 s^2)) E exp(r u / s^2), u the first
    component of Y; both integrals are Gauss-Legendre over twelve widths of their peak.

    Raises:
        ValueError: m < 1 or the noise is not positive.
    """
    radii, mass, log_density = _radial_law(m, noise)
    del radii
    return float(-(mass * log_density).sum() / mass.sum())


def _radial_law(m: int, noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Radii, their quadrature masses (sum 1) and ln p(x) there; float64 (nodes,) each."""
    if m < 1 or not noise > 0:
        raise ValueError(f"a noisy sphere needs m >= 1 and noise > 0, got {m} and {noise}")
    peak, width = math.sqrt(1 + (m - 1) * noise), math.sqrt(noise)
    r, w = _legendre(max(0.0, peak - _WIDTHS * width), peak + _WIDTHS * width, 600)
    log_density = (
        -0.5 * m * math.log(2 * math.pi * noise) - (r - 1) ** 2 / (2 * noise) + _log_mean_tilt(m, r / noise)
    )
    log_area = math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)
    return r, w * np.exp(log_area + (m - 1) * np.log(r) + log_density), log_density


def _log_mean_tilt(m: int, kappa: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln E exp(kappa (u - 1)), u = cos of the angle to a uniform direction in R^m; kappa > 0, (nodes,)."""
    if m == 1:
        return np.log1p(np.exp(-2 * kappa)) - math.log(2)
    log_norm = 0.5 * math.log(math.pi) + math.lgamma(0.5 * (m - 1)) - math.lgamma(0.5 * m)
    # the angle's density sin^(m-2) exp(kappa cos) peaks where kappa sin^2 = (m - 2) cos
    cosine = 2 * kappa / ((m - 2) + np.sqrt((m - 2.0) ** 2 + 4 * kappa**2))
    angle = np.arccos(np.minimum(cosine, 1.0))
    width = 1 / np.sqrt(kappa * cosine + (m - 2) / np.maximum(1 - cosine**2, 1e-12))
    low, high = np.maximum(0.0, angle - _WIDTHS * width), np.minimum(math.pi, angle + _WIDTHS * width)
    node, weight = _legendre(0.0, 1.0, 200)
    theta = low[:, None] + (high - low)[:, None] * node
    exponent = kappa[:, None] * (np.cos(theta) - 1)
    if m > 2:
        exponent = exponent + (m - 2) * np.log(np.sin(theta))
    top = exponent.max(axis=1)
    return np.log((np.exp(exponent - top[:, None]) * weight).sum(axis=1) * (high - low)) + top - log_norm


def _legendre(low: float, high: float, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def _log_partition(dim: int, distortion: str, beta: float) -> float:
    """ln int exp(-beta d(z)) dz over R^dim."""
    if distortion == "l1":
        return dim * math.log(2 / beta)
    p = 2.0 if distortion == "mse" else float(distortion.removeprefix("lp:"))
    log_ball = dim * (math.log(2) + math.lgamma(1 + 1 / p)) - math.lgamma(1 + dim / p)
    return -0.5 * dim * math.log(beta) + math.lgamma(1 + 0.5 * dim) + log_ball
