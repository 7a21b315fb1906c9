"""Bjontegaard deltas by hand, and bootstrap intervals that see what is paired."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.comparison.bjontegaard import bd_quality, bd_rate_percent
from rcccodec.comparison.bootstrap import interval95, interval_of, resampled_shares

CURVE = [(3.0, 13.0), (5.0, 14.1), (8.0, 15.6), (12.0, 17.0), (16.0, 17.9)]


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 3.0))
def test_a_curve_of_scaled_rates_differs_by_that_factor(factor: float) -> None:
    scaled = [(factor * rate, quality) for rate, quality in reversed(CURVE)]
    assert bd_rate_percent(CURVE, scaled) == pytest.approx(100 * (factor - 1), abs=1e-6)
    there, back = (1 + bd_rate_percent(a, b) / 100 for a, b in ((CURVE, scaled), (scaled, CURVE)))
    assert there * back == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3.0, 3.0))
def test_a_curve_of_shifted_quality_differs_by_that_shift(shift_db: float) -> None:
    assert bd_quality(CURVE, [(r, q + shift_db) for r, q in CURVE]) == pytest.approx(shift_db, abs=1e-9)


def test_lines_of_other_slopes_have_the_mean_gap_of_their_common_range() -> None:
    # quality a = 10 log10 r + 5 and b = 20 log10 r: over r from 2 to 10 the mean gap is 10 mean(log10 r) - 5
    a = [(r, 10 * math.log10(r) + 5) for r in (1.0, 2.5, 6.0, 10.0)]
    b = [(r, 20 * math.log10(r)) for r in (2.0, 3.0, 5.0, 40.0)]
    assert bd_quality(a, b) == pytest.approx(10 * (math.log10(2) + 1) / 2 - 5, abs=1e-9)
    # at equal quality q: log10 rate is (q - 5) / 10 and q / 20, over q from 20 log10 2 to 15
    middle = (20 * math.log10(2) + 15) / 2
    expected = 100 * (10 ** (middle / 20 - (middle - 5) / 10) - 1)
    assert bd_rate_percent(a, b) == pytest.approx(expected, abs=1e-6)


def test_curves_without_enough_in_common_have_no_delta() -> None:
    assert bd_rate_percent(CURVE, [(r, q + 20) for r, q in CURVE]) is None
    assert bd_quality(CURVE, [(r * 100, q) for r, q in CURVE]) is None
    assert bd_rate_percent(CURVE, CURVE[:2]) is None


def test_a_point_that_costs_more_and_keeps_less_is_passed_over() -> None:
    assert bd_rate_percent(CURVE, [*CURVE, (13.0, 12.0)]) == pytest.approx(0, abs=1e-9)


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    shares = resampled_shares(60)
    assert shares.sum(1) == pytest.approx(1)
    covered = []
    for _ in range(200):
        values = rng.exponential(size=60)
        low, high = interval95(shares @ values)
        covered.append(low <= 1.0 <= high)
    assert 0.86 <= np.mean(covered) <= 0.99
    assert resampled_shares(4) is None
    assert interval_of(None, lambda w: w) is None


def test_pairing_takes_out_what_both_codecs_share() -> None:
    rng = np.random.default_rng(1)
    hard = 10 * rng.exponential(size=80)  # an image is as hard for one codec as for the other
    a, b = hard + rng.normal(size=80), hard + 1 + rng.normal(size=80)
    shares, others = resampled_shares(80), resampled_shares(80, seed=1)
    low, high = interval95(shares @ b - shares @ a)
    assert 0 < low < 1 < high
    apart_low, apart_high = interval95(others @ b - shares @ a)
    assert apart_high - apart_low > 5 * (high - low)
