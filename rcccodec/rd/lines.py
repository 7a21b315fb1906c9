"""The lines that ``rcc rd`` prints: points, bounds, a codec's distance from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rcccodec.rd.envelope import Envelope, gaps
from rcccodec.rd.point import RatePoint
from rcccodec.rd.results import Codec

_CLOSE_BITS = 1e-3  # corners of a hull closer than this, and than a thousandth in distortion, are one line


def point_line(point: RatePoint) -> str:
    """Method, kind, slope, then what of rate, distortion and Lagrangian is known, with one standard error."""
    words = [f"{point.method:<16} {point.kind:<8} beta {point.beta:<8g}"]
    if math.isfinite(point.rate_bits):
        words.append(f"R {point.rate_bits:8.3f}{error_text(point.rate_se_bits)} bits")
    if math.isfinite(point.distortion):
        words.append(f"D {point.distortion:9.4g}{error_text(point.distortion_se)}")
    words.append(f"R + beta D / ln 2 {point.lagrangian_bits:8.3f}{error_text(point.lagrangian_se_bits)}")
    if point.saturated:
        words.append("saturated")
    return "  ".join(words)


def error_text(value: float) -> str:
    """`` +-0.1``, or nothing for NaN."""
    return f" +-{value:.2g}" if math.isfinite(value) else ""


def bound_lines(bounds: Envelope, at: Sequence[float], closed: bool) -> list[str]:
    """What the bounds say at the distortions asked for, else at the corners of the upper hull."""
    places = list(at)
    if not places and not closed:  # a closed form's curve has hundreds of corners
        last = None
        for d, rate in bounds.corners:
            if last is None or d > 1.001 * last[0] or last[1] - rate > _CLOSE_BITS:
                places.append(d)
                last = (d, rate)
    lines = ["all methods together, each bound a 99 % limit:"] if places else []
    for d in places:
        upper, lower = (float(bound(np.array([d]))[0]) for bound in (bounds.upper, bounds.lower))
        below = "" if math.isnan(lower) else f"{lower:.3f} <= "
        above = "" if math.isnan(upper) else f" <= {upper:.3f}"
        lines.append(f"  {below}R({d:.4g}){above} bits" if below or above else f"  R({d:.4g}): no bound")
    return lines


def gap_lines(codecs: Sequence[Codec], bounds: Envelope) -> list[str]:
    """How far each point of each codec is from the bounds at its distortion."""
    lines = []
    for codec in codecs:
        for gap in gaps(codec.points, bounds):
            words = [
                f"{abs(away):.2f} {'above' if away >= 0 else 'below'} the best {side} bound"
                for side, away in (("upper", gap.above_upper_bits), ("lower", gap.above_lower_bits))
                if away is not None
            ]
            said = ", ".join(words) or "outside the distortions of the bounds; add slopes"
            lines.append(f"{codec.name}: {gap.rate_bits:.2f} bits at {gap.distortion:.4g}: {said}")
    return lines
