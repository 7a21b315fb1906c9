"""What all estimators together bound, and a codec's distance from it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcccodec.rd.envelope import CONFIDENCE_ERRORS, envelope, gaps
from rcccodec.rd.gaussian import gaussian_point_at_distortion, gaussian_point_at_slope
from rcccodec.rd.point import RatePoint

LN2 = math.log(2)


def point(kind: str, d: float, rate: float, beta: float = 1.0) -> RatePoint:
    return RatePoint(kind, kind, beta, rate, d, rate + beta * d / LN2)


def exact(beta: float) -> RatePoint:
    g = gaussian_point_at_slope([4.0, 1.0], beta)
    return point("exact", g.distortion, g.rate_bits, beta)


def test_exact_points_enclose_the_curve_from_both_sides():
    bounds = envelope([exact(beta) for beta in np.geomspace(0.2, 20, 12)], zero_rate=(5.0, 0.0))
    d = np.linspace(0.06, 4.9, 50)
    curve = np.array([gaussian_point_at_distortion([4.0, 1.0], x).rate_bits for x in d])
    assert (bounds.upper(d) >= curve - 1e-9).all()
    assert (bounds.lower(d) <= curve + 1e-9).all()
    assert (bounds.upper(d) - bounds.lower(d)).max() < 0.35
    flipped = [point("exact", p.distortion, p.rate_bits, -p.beta) for p in map(exact, (0.5, 2.0))]
    wrong = envelope(flipped)  # control: a slope of the wrong sign crosses the curve
    assert (wrong.lower(d) > curve).any()


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 100)), min_size=1, max_size=30))
def test_the_upper_hull_is_below_every_point_convex_and_falling(pairs):
    bounds = envelope([point("upper", d, r) for d, r in pairs])
    d, r = np.array(bounds.corners).T
    assert (np.diff(d) > 0).all()
    assert (np.diff(r) < 0).all()
    slopes = np.diff(r) / np.diff(d)
    assert (np.diff(slopes) >= -1e-6 * np.abs(slopes[1:])).all()
    for x, y in pairs:
        assert bounds.upper(np.array([x]))[0] <= y + 1e-9 * (1 + y)
    assert set(bounds.corners) <= set(pairs)


def test_bounds_do_not_reach_where_nothing_is_known():
    bounds = envelope([point("upper", 2.0, 3.0)])
    assert np.isnan(bounds.upper(np.array([1.9]))[0])
    assert bounds.upper(np.array([5.0]))[0] == 3.0
    assert np.isnan(bounds.lower(np.array([2.0]))[0])
    assert not envelope([]).corners


def test_estimates_bound_nothing_and_lower_lines_need_no_point():
    line = RatePoint("x", "lower", 1.0, math.nan, math.nan, 4.0)
    bounds = envelope([point("estimate", 0.5, 0.1), line, point("upper", 1.0, 5.0)], (3.0, 0.0))
    assert bounds.corners == ((1.0, 5.0), (3.0, 0.0))
    assert bounds.lower(np.array([1.0, 4.0])).tolist() == [pytest.approx(4 - 1 / LN2), 0.0]


def test_gaps_are_differences_at_the_codecs_own_distortion():
    line = RatePoint("x", "lower", 1.0, math.nan, math.nan, 4.0)
    bounds = envelope([point("upper", 1.0, 5.0), line], (3.0, 0.0))
    far, near = gaps([(7.0, 1.0), (3.5, 2.0)], bounds)[::-1]
    assert (far.above_upper_bits, far.above_lower_bits) == (2.0, pytest.approx(3 + 1 / LN2))
    assert near.above_upper_bits == pytest.approx(1.0)
    (outside,) = gaps([(9.0, 0.5)], bounds)
    assert outside.above_upper_bits is None
    assert outside.above_lower_bits is not None


def test_an_allowance_for_errors_keeps_lucky_points_above_the_curve():
    rng = np.random.default_rng(0)
    d = 0.5
    curve = gaussian_point_at_distortion([4.0, 1.0], d).rate_bits
    lucky = [
        replace(point("upper", d, curve + 0.1 * noise), lagrangian_se_bits=0.1)
        for noise in rng.standard_normal(20)
    ]
    assert envelope(lucky).upper(np.array([d]))[0] < curve  # control: as measured, the best of many is below
    assert envelope(lucky, errors=CONFIDENCE_ERRORS).upper(np.array([d]))[0] > curve
    assert envelope([], (3.0, 0.1), errors=2.0).corners == ((3.2, 0.0),)
