"""R(D) of independent Laplacian components under summed absolute error, in closed form.

    R(D) = log2(b / D), 0 < D <= b, else 0                     -dR/dD = beta = 1 / D nats

a component of density exp(-|x| / b) / (2 b) (Berger 1971, section 4.3.1): Shannon's lower bound is met, for
X = Y + Z with Z Laplacian of scale D and Y = 0 with probability r = (D / b)^2, else Laplacian of scale b, as
characteristic functions show: 1 / (1 + b^2 t^2) = [r + (1 - r) / (1 + b^2 t^2)] / (1 + D^2 t^2).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LaplacianPoint:
    """One point of the curve of ``m`` components: beta in nats per unit, D the summed absolute error."""

    beta: float
    rate_bits: float
    distortion: float


def laplacian_point_at_slope(b: float, beta: float, m: int = 1) -> LaplacianPoint:
    """The point of slope ``-dR/dD = beta``, or the one of rate 0 where beta < 1 / b.

    Args:
        b: scale of every component, > 0; its mean absolute value.
        beta: > 0, nats per unit of summed absolute error.
        m: independent components; rates and distortions add up.

    Raises:
        ValueError: b or beta is not positive.
    """
    if not (b > 0 and beta > 0):
        raise ValueError(f"b and beta must be positive, got {b} and {beta}")
    d = min(b, 1 / beta)
    return LaplacianPoint(beta, m * math.log2(b / d), m * d)


def laplacian_point_at_distortion(b: float, distortion: float, m: int = 1) -> LaplacianPoint:
    """The point of distortion D, of m components together; where the rate is 0 the slope is given as 0.

    Raises:
        ValueError: b or the distortion is not positive.
    """
    if not (b > 0 and distortion > 0):
        raise ValueError(f"b and distortion must be positive, got {b} and {distortion}")
    d = distortion / m
    if d >= b:
        return LaplacianPoint(0.0, 0.0, distortion)
    return LaplacianPoint(1 / d, m * math.log2(b / d), distortion)


def laplacian_atom(b: float, beta: float) -> float:
    """Mass of Y = 0 in the optimal marginal at a slope, (D / b)^2; what is left is Laplacian of scale b."""
    return (laplacian_point_at_slope(b, beta).distortion / b) ** 2
