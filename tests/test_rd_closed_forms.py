"""Bits, Laplacian, Shannon's bound, noisy sphere, each against its definition; what law gets what."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.errors import InputError
from rcccodec.rd.bernoulli import (
    bernoulli_marginal,
    bernoulli_point_at_distortion,
    bernoulli_point_at_slope,
    binary_entropy_bits,
    noise_at_slope,
)
from rcccodec.rd.exact import trace_exact
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.laplacian import laplacian_atom, laplacian_point_at_distortion, laplacian_point_at_slope
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.shannon_bound import (
    _log_partition,
    _radial_law,
    gaussian_entropy_nats,
    laplacian_entropy_nats,
    shannon_lower_bound_nats,
    shannon_rate_at_distortion_nats,
    sphere_entropy_nats,
)
from rcccodec.sources.synthetic import noisy_sphere

LN2 = math.log(2)


def exact(spec: str, betas: list[float], distortion: str | None = None) -> list[RatePoint]:
    problem = load_problem(spec, distortion=distortion, num_train=4, num_test=4)
    return list(trace_exact(problem, betas, Run()))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0.05, 8.0), st.integers(1, 5))
def test_bits_at_a_slope_and_at_a_distortion_are_one_point(p: float, beta: float, m: int) -> None:
    point = bernoulli_point_at_slope(p, beta, m)
    again = bernoulli_point_at_distortion(p, point.distortion, m)
    assert again.rate_bits == pytest.approx(point.rate_bits, abs=1e-9)
    if point.rate_bits > 1e-6:
        assert again.beta == pytest.approx(beta, rel=1e-6)
        step = 1e-5 * point.distortion
        ahead = bernoulli_point_at_distortion(p, point.distortion + step, m).rate_bits
        behind = bernoulli_point_at_distortion(p, point.distortion - step, m).rate_bits
        slope = (behind - ahead) / (2 * step) * LN2
        assert slope == pytest.approx(beta, rel=1e-2)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.8])
def test_the_marginal_of_bits_plus_noise_is_the_source(p: float) -> None:
    beta = 4.0
    one, d = bernoulli_marginal(p, beta), noise_at_slope(beta)
    assert one * (1 - d) + (1 - one) * d == pytest.approx(p)
    assert abs(p * (1 - d) + (1 - p) * d - p) > 1e-3  # the source itself is not its own marginal


def test_bits_below_the_critical_slope_cost_nothing() -> None:
    point = bernoulli_point_at_slope(0.1, 0.5)
    assert (point.rate_bits, point.distortion) == (0.0, 0.1)
    assert bernoulli_marginal(0.1, 0.5) == 0.0
    assert bernoulli_point_at_slope(0.5, 0.5).rate_bits > 0
    assert binary_entropy_bits(0.0) == 0.0
    for bad in (lambda: bernoulli_point_at_slope(0.0, 1), lambda: bernoulli_point_at_slope(0.5, 0)):
        with pytest.raises(ValueError, match=r"must be|between"):
            bad()


def test_a_laplacian_is_its_marginal_plus_laplacian_noise() -> None:
    b, beta = 1.5, 2.0
    d, atom = 1 / beta, laplacian_atom(b, beta)
    y = np.linspace(-60, 60, 240_001)
    spacing = y[1] - y[0]

    def mixed(mass: float, x: float) -> float:
        noise = np.exp(-np.abs(x - y) / d) / (2 * d)
        smooth = (noise * np.exp(-np.abs(y) / b) / (2 * b)).sum() * spacing
        return mass * math.exp(-abs(x) / d) / (2 * d) + (1 - mass) * smooth

    for x in (0.0, 0.3, 2.0, 7.0):
        density = math.exp(-abs(x) / b) / (2 * b)
        assert mixed(atom, x) == pytest.approx(density, rel=1e-5)
        assert abs(mixed(math.sqrt(atom), x) / density - 1) > 1e-2  # (D / b) instead of its square


def test_laplacian_points_lie_on_shannons_bound_and_gaussian_ones_too() -> None:
    for beta in (1.0, 3.0, 20.0):
        point = laplacian_point_at_slope(2.0, beta, 3)
        lagrangian = point.rate_bits * LN2 + beta * point.distortion
        bound = shannon_lower_bound_nats(laplacian_entropy_nats(2.0, 3), 3, "l1", beta)
        assert lagrangian == pytest.approx(bound)
        assert laplacian_point_at_distortion(2.0, point.distortion, 3).beta == pytest.approx(beta)
        at_d = shannon_rate_at_distortion_nats(laplacian_entropy_nats(2.0, 3), 3, "l1", point.distortion)
        assert at_d == pytest.approx(point.rate_bits * LN2)
        water = gaussian_point_at_slope([4.0, 2.0], beta)
        bound = shannon_lower_bound_nats(gaussian_entropy_nats([4.0, 2.0]), 2, "mse", beta)
        assert water.rate_bits * LN2 + beta * water.distortion == pytest.approx(bound)
    # below the slope at which a component goes under water the bound is strictly below
    water = gaussian_point_at_slope([4.0, 0.01], 1.0)
    bound = shannon_lower_bound_nats(gaussian_entropy_nats([4.0, 0.01]), 2, "mse", 1.0)
    assert water.rate_bits * LN2 + water.distortion > bound + 0.5
    assert laplacian_point_at_slope(2.0, 0.4).rate_bits == 0.0
    assert laplacian_point_at_distortion(2.0, 2.5).rate_bits == 0.0


@pytest.mark.parametrize("distortion", ["mse", "l1", "lp:1", "lp:2", "lp:3", "lp:inf"])
def test_the_partition_function_is_the_integral(distortion: str) -> None:
    beta = 0.8
    z = np.linspace(-14, 14, 1401)
    a, b = np.abs(np.meshgrid(z, z))
    if distortion == "mse":
        d = a**2 + b**2
    elif distortion == "l1":
        d = a + b
    else:
        p = float(distortion[3:])
        d = (np.maximum(a, b) if p == math.inf else (a**p + b**p) ** (1 / p)) ** 2
    integral = np.exp(-beta * d).sum() * (z[1] - z[0]) ** 2
    assert _log_partition(2, distortion, beta) == pytest.approx(math.log(integral), abs=2e-3)
    assert abs(_log_partition(2, distortion, 1.1 * beta) - math.log(integral)) > 0.05


@pytest.mark.parametrize(("m", "noise"), [(1, 0.1), (2, 1e-3), (2, 0.1), (5, 0.3), (40, 0.05), (3, 9.0)])
def test_the_noisy_spheres_radial_law_has_its_mass_and_moment(m: int, noise: float) -> None:
    radii, mass, _ = _radial_law(m, noise)
    assert mass.sum() == pytest.approx(1.0, abs=1e-9)
    assert (mass * radii**2).sum() == pytest.approx(1 + m * noise, rel=1e-9)


def test_the_noisy_spheres_entropy_agrees_with_samples() -> None:
    noise = 0.1
    rng = np.random.default_rng(5)
    x = noisy_sphere(rng, 1500, 2, noise)
    angle = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    y = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    squared = ((x[:, None] - y) ** 2).sum(-1)
    log_p = np.log(np.exp(-squared / (2 * noise)).mean(1)) - math.log(2 * math.pi * noise)
    error = log_p.std() / math.sqrt(len(x))
    assert abs(-log_p.mean() - sphere_entropy_nats(2, noise)) < 4 * error
    assert abs(-log_p.mean() - sphere_entropy_nats(2, 1.4 * noise)) > 4 * error
    # two Gaussians far apart: one of them and a bit
    assert sphere_entropy_nats(1, 1e-4) == pytest.approx(gaussian_entropy_nats([1e-4]) + LN2)
    with pytest.raises(ValueError, match="noisy sphere"):
        sphere_entropy_nats(2, 0.0)


def test_the_sphere_is_on_the_curve_from_its_own_slope_up() -> None:
    points = exact("sphere:m=2,noise=0.1", [2.0, 5.0, 9.0])
    assert [p.kind for p in points] == ["lower", "exact", "exact"]
    assert points[1].distortion == pytest.approx(0.2)
    # its Lagrangian is -E ln c(x) under Y uniform on the circle, and no other law of Y does as well
    x = torch.from_numpy(noisy_sphere(np.random.default_rng(1), 4000, 2, 0.1))
    angle = torch.arange(720, dtype=torch.float64) * (2 * math.pi / 720)
    circle = torch.stack([angle.cos(), angle.sin()], 1)

    def lagrangian_bits(radius: float) -> torch.Tensor:
        squared = torch.cdist(x, radius * circle).square()
        return (math.log(720) - torch.logsumexp(-5.0 * squared, 1)) / LN2

    found = lagrangian_bits(1.0)
    error = float(found.std()) / math.sqrt(len(x))
    assert abs(float(found.mean()) - points[1].lagrangian_bits) < 4 * error
    assert abs(float(lagrangian_bits(0.8).mean()) - points[1].lagrangian_bits) > 4 * error


def test_every_law_gets_what_is_known_of_it() -> None:
    variances = 4 * np.exp(-0.5 * np.arange(3))
    water = gaussian_point_at_slope(variances, 0.6)
    (point,) = exact("gaussian:m=3", [0.6])
    assert (point.kind, point.rate_bits) == ("exact", water.rate_bits)
    assert point.lagrangian_bits == pytest.approx(water.rate_bits + 0.6 * water.distortion / LN2)
    (point,) = exact("laplacian:m=4,b=2", [3.0], "l1")
    assert (point.kind, point.rate_bits) == ("exact", pytest.approx(4 * math.log2(6)))
    (point,) = exact("laplacian:m=4,b=2", [3.0], "mse")
    assert point.kind == "lower"
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + 3 * point.distortion / LN2)
    for measure in ("hamming", "l1"):
        (point,) = exact("bernoulli:p=0.3,m=5", [2.0], measure)
        assert (point.kind, point.rate_bits) == ("exact", bernoulli_point_at_slope(0.3, 2.0, 5).rate_bits)
    (point,) = exact("gaussian:m=2,variance=0.01", [0.1], "l1")
    assert (point.kind, point.lagrangian_bits, math.isnan(point.rate_bits)) == ("lower", 0.0, True)


def test_sequences_are_exact_at_steep_slopes_and_bracketed_at_flat_ones() -> None:
    steep, *flat = exact("markov:n=30,p=0.25,q=0.25", [6.0, 1.0])
    assert steep.kind == "exact"
    assert [p.kind for p in flat] == ["lower", "upper"]
    assert 0 < flat[1].lagrangian_bits - flat[0].lagrangian_bits < 0.5


def test_a_source_without_a_closed_form_is_refused() -> None:
    data = Problem("digits", torch.zeros(2, 3), torch.zeros(2, 3), "mse")
    with pytest.raises(InputError, match="no closed form for digits"):
        list(trace_exact(data, [1.0], Run()))
    for spec, distortion in (("sawbridge:n=8", None), ("bernoulli:p=0.5", "mse"), ("markov:n=4", "lp:3")):
        with pytest.raises(InputError, match="no closed form for"):
            exact(spec, [1.0], distortion)
