"""R(D) of independent bits under Hamming distortion, in closed form.

    R(D) = h(p) - h(D), 0 <= D <= min(p, 1 - p), else 0        -dR/dD = beta = ln((1 - D) / D) nats

a bit (Cover & Thomas, theorem 10.3.1). The optimal marginal has P(Y = 1) = (p - D) / (1 - 2 D), and
X = Y + Z modulo 2 with Z ~ Bernoulli(D) independent of Y. Reproductions between 0 and 1 under absolute error
gain nothing: y may be replaced by a bit of mean y.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BernoulliPoint:
    """One point of the curve of ``m`` bits: beta in nats per unit of distortion, D the bits that differ."""

    beta: float
    rate_bits: float
    distortion: float


def binary_entropy_bits(p: float) -> float:
    """h(p) = -p log2 p - (1 - p) log2 (1 - p); 0 at 0 and 1."""
    return sum(-x * math.log2(x) for x in (p, 1 - p) if x > 0)


def noise_at_slope(beta: float) -> float:
    """D = 1 / (1 + e^beta): the share of flipped bits at which -dh/dD is -beta, whatever the source."""
    return math.exp(-beta) / (1 + math.exp(-beta))


def bernoulli_point_at_slope(p: float, beta: float, m: int = 1) -> BernoulliPoint:
    """The point of slope ``-dR/dD = beta``, or the one of rate 0 where the curve is flatter than that.

    Args:
        p: P(X = 1), in (0, 1).
        beta: > 0, nats per differing bit.
        m: independent bits; rates and distortions add up.

    Raises:
        ValueError: p or beta is out of range.
    """
    _check(p)
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    d = noise_at_slope(beta)
    if d >= min(p, 1 - p):
        return BernoulliPoint(beta, 0.0, m * min(p, 1 - p))
    return BernoulliPoint(beta, m * (binary_entropy_bits(p) - binary_entropy_bits(d)), m * d)


def bernoulli_point_at_distortion(p: float, distortion: float, m: int = 1) -> BernoulliPoint:
    """The point of distortion D, of m bits together; where the rate is 0 the slope is given as 0.

    Raises:
        ValueError: p is out of range or the distortion is not positive.
    """
    _check(p)
    if not distortion > 0:
        raise ValueError(f"distortion must be positive, got {distortion}")
    d = distortion / m
    if d >= min(p, 1 - p):
        return BernoulliPoint(0.0, 0.0, distortion)
    rate = binary_entropy_bits(p) - binary_entropy_bits(d)
    return BernoulliPoint(math.log((1 - d) / d), m * rate, distortion)


def bernoulli_marginal(p: float, beta: float) -> float:
    """P(Y = 1) of the optimal marginal at a slope: (p - D) / (1 - 2 D), or all mass on the likelier bit.

    Raises:
        ValueError: p is out of range.
    """
    _check(p)
    d = noise_at_slope(beta)
    return float(p > 0.5) if d >= min(p, 1 - p) else (p - d) / (1 - 2 * d)


def _check(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"p must be between 0 and 1, got {p}")
