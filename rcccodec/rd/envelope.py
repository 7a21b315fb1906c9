"""What all estimators together say: the best upper bound and the best lower bound on R(D), and a codec's gap.

    upper(D)   lower convex hull of the upper and exact points: R(D) is convex, so chords lie above it
    lower(D)   max of 0 and of the lines lagrangian - beta D / ln 2 of lower and exact points

A lower line of the dual bound is a 99 % limit already; `errors` makes limits of upper points too. Each limit
is one of a single point: the best of many holds a little less surely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rcccodec.rd.point import RatePoint

CONFIDENCE_ERRORS = 2.326  # of a normal law: one-sided 99 %
_SAME = 1e-6  # points closer than this, relatively in distortion and in bits, are one corner


@dataclass(frozen=True)
class Envelope:
    """Bounds on R(D) in bits.

    Attributes:
        corners: (distortion, rate) of the upper hull, distortions rising; empty if there is no upper point.
        lines: (lagrangian_bits, beta) of the lower lines.
    """

    corners: tuple[tuple[float, float], ...]
    lines: tuple[tuple[float, float], ...]

    def upper(self, distortion: NDArray[np.float64]) -> NDArray[np.float64]:
        """Best upper bound; NaN at less distortion than any point has."""
        if not self.corners:
            return np.full_like(distortion, np.nan)
        d, r = np.array(self.corners).T
        return np.where(distortion < d[0], np.nan, np.interp(distortion, d, r))

    def lower(self, distortion: NDArray[np.float64]) -> NDArray[np.float64]:
        """Best lower bound, at least 0; NaN if nothing bounds from below."""
        if not self.lines:
            return np.full_like(distortion, np.nan)
        lagrangian, beta = np.array(self.lines).T
        return np.maximum(0.0, (lagrangian - np.outer(distortion, beta) / math.log(2)).max(1))


@dataclass(frozen=True)
class Gap:
    """A codec's point beside the bounds at its distortion, in bits; None where a bound does not reach."""

    rate_bits: float
    distortion: float
    upper_bits: float | None
    lower_bits: float | None

    @property
    def above_upper_bits(self) -> float | None:
        """Over the best upper bound, as far as it was measured."""
        return None if self.upper_bits is None else self.rate_bits - self.upper_bits

    @property
    def above_lower_bits(self) -> float | None:
        """No code saves more."""
        return None if self.lower_bits is None else self.rate_bits - self.lower_bits


def envelope(
    points: Sequence[RatePoint], zero_rate: tuple[float, float] | None = None, *, errors: float = 0.0
) -> Envelope:
    """The bounds of these points.

    Args:
        zero_rate: distortion of the best constant and its standard error, an upper point at rate 0.
        errors: how many standard errors of their Lagrangian upper points are raised by. 0 takes them as they
            are measured, and the hull the luckiest; `CONFIDENCE_ERRORS` makes each a 99 % limit.

    Invariants: no upper point lies below ``upper``; ``upper`` is convex and falls.
    """
    above = [
        (p.distortion, max(0.0, p.rate_bits) + errors * _error(p))
        for p in points
        if p.kind in ("upper", "exact") and math.isfinite(p.distortion) and math.isfinite(p.rate_bits)
    ]
    if zero_rate is not None:
        above.append((zero_rate[0] + errors * zero_rate[1], 0.0))
    lines = tuple(
        (p.lagrangian_bits, p.beta)
        for p in points
        if p.kind in ("lower", "exact") and math.isfinite(p.lagrangian_bits)
    )
    return Envelope(tuple(_lower_hull(above)), lines)


def _error(point: RatePoint) -> float:
    """Of the Lagrangian, over data and over samples, bits."""
    parts = (point.lagrangian_se_bits, point.lagrangian_se_samples_bits)
    return math.hypot(*(part for part in parts if math.isfinite(part)))


def gaps(codec: Sequence[tuple[float, float]], bounds: Envelope) -> list[Gap]:
    """One for each (rate_bits, distortion) of a codec, cheapest first."""
    found = []
    for rate, distortion in sorted(codec):
        at = np.array([distortion])
        upper, lower = float(bounds.upper(at)[0]), float(bounds.lower(at)[0])
        found.append(
            Gap(rate, distortion, None if math.isnan(upper) else upper, None if math.isnan(lower) else lower)
        )
    return found


def _lower_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the falling part of the lower convex hull."""
    hull: list[tuple[float, float]] = []
    for d, r in sorted(set(points)):
        if hull and d <= hull[-1][0] * (1 + _SAME) and r >= hull[-1][1] - _SAME:
            continue  # no less rate at the same distortion
        while len(hull) > 1 and _cross(hull[-2], hull[-1], (d, r)) <= 0:
            hull.pop()
        hull.append((d, r))
    lowest = min(range(len(hull)), key=lambda i: (hull[i][1], hull[i][0]), default=-1)
    return hull[: lowest + 1]


def _cross(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
