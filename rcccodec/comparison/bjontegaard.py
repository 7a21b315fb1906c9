"""Bjontegaard deltas: how far apart two rate-quality curves lie on average (VCEG-M33, JCTVC-B055).

    BD-rate = 100 (10^mean(log10 rate_b(q) - log10 rate_a(q)) - 1) %        over the common range of quality q
    BD-PSNR = mean(q_b(log10 rate) - q_a(log10 rate)) dB                    over the common range of rate

Curves are interpolated through their points by monotone cubics (PCHIP), in log10 rate, as the MPEG reference
software does; the integrals are exact.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcccodec.errors import InputError

LEAST_POINTS = 3  # of either curve
LEAST_SHARE = 0.1  # of either curve's range that must be common


def bd_rate_percent(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> float | None:
    """Rate of b relative to a at equal quality, in percent; negative: b needs less.

    Args:
        a, b: points (rate > 0, quality), in any order.

    Returns:
        None where the curves have too few points or hardly a quality in common.
    """
    gap = _mean_gap(*(_quality_first(curve) for curve in (a, b)))
    return None if gap is None else float(100 * (10**gap - 1))


def bd_quality(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> float | None:
    """Quality of b less that of a at equal rate, in their unit (dB for PSNR); None as above."""
    return _mean_gap(*(_rising(np.log10(rates), quality) for rates, quality in map(_columns, (a, b))))


def common_quality(
    a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]
) -> tuple[float, float] | None:
    """The range of quality that `bd_rate_percent` averages over; None as there."""
    return _common(*(_quality_first(curve) for curve in (a, b)))


def rates_at_equal_quality(
    a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]], count: int = 100
) -> tuple[np.ndarray, np.ndarray] | None:
    """What `bd_rate_percent` averages: ``count`` qualities and there the rate of b relative to a, in percent.

    Returns:
        float64 (count,) twice; None as above.
    """
    curves = [_quality_first(curve) for curve in (a, b)]
    common = _common(*curves)
    if common is None:
        return None
    quality = np.linspace(*common, count)
    logs = [_interpolator(*curve)(quality) for curve in curves]
    return quality, 100 * (10 ** (logs[1] - logs[0]) - 1)


def _columns(curve: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    rates, quality = np.array(sorted(curve), dtype=np.float64).reshape(-1, 2).T
    keep = rates > 0
    return rates[keep], quality[keep]


def _quality_first(curve: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    rates, quality = _columns(curve)
    logs, rising = _rising(np.log10(rates), quality)
    return rising, logs


def _rising(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that improve on all cheaper ones: both columns strictly rising."""
    kept: list[int] = []
    for i in range(len(x)):
        if not kept or (x[i] > x[kept[-1]] and y[i] > y[kept[-1]]):
            kept.append(i)
    return x[kept], y[kept]


def _mean_gap(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float | None:
    """Mean of y_b - y_a over the x that both have."""
    common = _common(a, b)
    if common is None:
        return None
    low, high = common
    means = [_interpolator(*curve).integrate(low, high) / (high - low) for curve in (a, b)]
    return float(means[1] - means[0])


def _interpolator(x: np.ndarray, y: np.ndarray) -> Any:
    try:
        from scipy.interpolate import PchipInterpolator
    except ImportError as error:
        raise InputError("BD-rate needs scipy: pip install 'rcccodec[bench]'") from error
    return PchipInterpolator(x, y)


def _common(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[float, float] | None:
    """The range of x that both have, if they have enough points and it is long enough."""
    if min(len(a[0]), len(b[0])) < LEAST_POINTS:
        return None
    low, high = max(a[0][0], b[0][0]), min(a[0][-1], b[0][-1])
    if high - low < LEAST_SHARE * min(a[0][-1] - a[0][0], b[0][-1] - b[0][0]):
        return None
    return float(low), float(high)
