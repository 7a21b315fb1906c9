"""Closed forms against a discretised Blahut-Arimoto and their derivatives; the simulation floor."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import standard_normals
from rcccodec.rd.gaussian import (
    estimate_simulation_floor_bits,
    gaussian_point_at_distortion,
    gaussian_point_at_slope,
)

SOURCE_M20 = 4 * np.exp(-0.5 * np.arange(20))
VARIANCE_LISTS = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=12)


def blahut_arimoto(variance: float, beta: float, rounds: int = 3000) -> tuple[float, float, float]:
    """(rate_bits, distortion, variance of the output marginal) on a grid, by alternating minimisation."""
    x = np.linspace(-6, 6, 241) * math.sqrt(variance)
    p = np.exp(-(x**2) / (2 * variance))
    p /= p.sum()
    y = x[::2]
    distances = (x[:, None] - y[None, :]) ** 2
    kernel = np.exp(-beta * distances)
    q = np.full(y.size, 1.0 / y.size)
    for _ in range(rounds):
        q = q * ((p / (kernel @ q)) @ kernel)
    partition = kernel @ q
    channel = kernel * q / partition[:, None]
    distortion = float(p @ (channel * distances).sum(axis=1))
    rate_nats = -float(p @ np.log(partition)) - beta * distortion
    return rate_nats / math.log(2), distortion, float(q @ y**2)


@pytest.mark.parametrize(("variance", "beta"), [(1.0, 2.0), (1.0, 0.8), (4.0, 1.0)])
def test_closed_form_and_proposal_agree_with_blahut_arimoto(variance: float, beta: float) -> None:
    rate, distortion, marginal = blahut_arimoto(variance, beta)
    point = gaussian_point_at_slope([variance], beta)
    assert point.rate_bits == pytest.approx(rate, abs=2e-3)
    assert point.distortion == pytest.approx(distortion, abs=2e-3)
    proposal = GaussianProposal(np.array([variance]), beta)
    assert proposal.variances[0] == pytest.approx(marginal, abs=5e-3 * variance)
    # the misprinted marginal is far outside that tolerance
    assert abs(variance + point.water_level - marginal) > 0.2 * variance


def test_the_anchor_source_has_the_published_rates() -> None:
    rates = [gaussian_point_at_slope(SOURCE_M20, b).rate_bits for b in (8, 4, 3, 2, 1, 0.5, 0.25)]
    np.testing.assert_allclose(rates, [14.0, 9.93, 8.47, 6.59, 3.89, 1.92, 0.64], atol=0.02)


@settings(max_examples=100, deadline=None)
@given(VARIANCE_LISTS, st.floats(0.06, 20.0))
def test_slope_and_distortion_name_the_same_point(variances: list[float], beta: float) -> None:
    by_slope = gaussian_point_at_slope(variances, beta)
    if by_slope.rate_bits > 1e-9:
        by_distortion = gaussian_point_at_distortion(variances, by_slope.distortion)
        assert by_distortion.beta == pytest.approx(beta, rel=1e-6)
        assert by_distortion.rate_bits == pytest.approx(by_slope.rate_bits, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(VARIANCE_LISTS, st.floats(0.1, 0.9))
def test_beta_is_minus_the_derivative_in_nats(variances: list[float], share: float) -> None:
    d = share * sum(variances)
    step = 1e-5 * d
    low, high = (gaussian_point_at_distortion(variances, d + s).rate_bits for s in (-step, step))
    slope_nats = (low - high) * math.log(2) / (2 * step)
    middle = gaussian_point_at_distortion(variances, d)
    # a component that switches on inside the step changes the second derivative, not the first
    assert slope_nats == pytest.approx(middle.beta, rel=1e-3)
    assert middle.distortion == pytest.approx(d)


def test_the_ends_of_the_curve_and_bad_arguments() -> None:
    flat = gaussian_point_at_distortion([1.0, 2.0], 3.5)
    assert (flat.rate_bits, flat.beta) == (0.0, 0.0)
    assert gaussian_point_at_slope([1.0, 2.0], 0.1).rate_bits == 0.0
    with pytest.raises(ValueError, match="beta"):
        gaussian_point_at_slope([1.0], 0.0)
    with pytest.raises(ValueError, match="distortion"):
        gaussian_point_at_distortion([1.0], 0.0)


def test_candidates_have_the_marginal_and_inactive_components_are_zero() -> None:
    proposal = GaussianProposal(np.array([0.1, 4.0, 0.2, 1.0]), beta=1.0)
    assert (proposal.dim, proposal.latent_dim, proposal.water_level) == (4, 2, 0.5)
    y = proposal.candidates(standard_normals(3, torch.arange(40_000), 2, 0))
    assert bool((y[:, [0, 2]] == 0).all())
    np.testing.assert_allclose(y.var(dim=0).numpy(), [0, 3.5, 0, 0.5], rtol=0.03)
    z = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert proposal.candidates(z).dtype == torch.float64


@pytest.mark.parametrize(("beta", "excess"), [(4.0, 1.6), (1.0, 1.1), (0.25, 0.65)])
def test_the_simulation_floor_lies_above_the_rate_by_the_known_excess(beta: float, excess: float) -> None:
    floor, error = estimate_simulation_floor_bits(SOURCE_M20, beta, num_sources=300, num_samples=5000)
    rate = gaussian_point_at_slope(SOURCE_M20, beta).rate_bits
    assert error < 0.25
    assert floor - rate == pytest.approx(excess, abs=3 * error + 0.1)
    assert rate < floor < rate + math.log2(rate + 1) + 1 + 3 * error


def test_a_source_below_the_water_needs_nothing() -> None:
    assert estimate_simulation_floor_bits([0.1, 0.2], 1.0) == (0.0, 0.0)
