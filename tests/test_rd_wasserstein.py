"""Moving particles against the noisy sphere's exact Lagrangian, and controls that must fail."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import gammaln, ive

from rcccodec.distortion import squared_error
from rcccodec.errors import InputError
from rcccodec.rd import wasserstein
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import WassersteinSettings
from rcccodec.rd.wasserstein import (
    Particles,
    lagrangian_of,
    measure_particles,
    potential,
    toward_means,
    trace_wgd,
)

NOISE = 0.1
SLOPE = 1 / (2 * NOISE)
SMALL = WassersteinSettings(particles=60, steps=150, batch=400)


@pytest.fixture(scope="module")
def sphere() -> Problem:
    return load_problem(f"sphere:m=2,noise={NOISE}", num_train=20_000, num_test=2000)


def exact_nats(x: torch.Tensor) -> float:
    """Mean of -ln E exp(-d(x, Y) / (2 noise)), Y uniform on the sphere: a modified Bessel function of |x|."""
    dim, r = x.shape[1], x.double().norm(dim=1).numpy()
    order, k = dim / 2 - 1, r / NOISE
    mean = gammaln(dim / 2) + order * np.log(2 / k) + np.log(ive(order, k)) + k
    return float(((r**2 + 1) / (2 * NOISE) - mean).mean())


def excess_nats(problem: Problem, settings: WassersteinSettings = SMALL, seed: int = 0) -> float:
    point = next(trace_wgd(problem, [SLOPE], settings, Run(seed=seed)))
    return point.lagrangian_bits * math.log(2) - exact_nats(problem.test)


def test_the_reference_is_what_draws_of_the_optimal_law_give(sphere: Problem):
    y = torch.randn((20_000, 2), generator=torch.Generator().manual_seed(1))
    y = y / y.norm(dim=1, keepdim=True)
    x = sphere.test[:200]
    drawn = lagrangian_of(sphere.distance(x, y), torch.tensor(-math.log(len(y))), SLOPE)
    assert float(drawn.mean()) == pytest.approx(exact_nats(x), abs=0.02)


@pytest.mark.parametrize("hybrid", [True, False])
def test_the_sphere_is_within_a_twentieth_of_a_nat(sphere: Problem, hybrid: bool):
    excess = excess_nats(sphere, replace(SMALL, hybrid=hybrid))
    assert -0.01 < excess < 0.05  # paired with the exact value of each vector


def test_without_moving_or_uphill_it_is_not(sphere: Problem, monkeypatch: pytest.MonkeyPatch):
    still = replace(SMALL, hybrid=False, rate=1e-9)
    assert excess_nats(sphere, still) > 0.05

    def uphill(*args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        psi, to_means = toward_means(*args)
        return psi, -to_means

    monkeypatch.setattr(wasserstein, "toward_means", uphill)
    assert excess_nats(sphere, replace(SMALL, hybrid=False)) > 0.5


def test_few_particles_are_not_enough(sphere: Problem):
    assert excess_nats(sphere, replace(SMALL, particles=3)) > 0.05


def test_phi_is_held_while_particles_move():
    """The gradient of sum psi is E exp(phi - beta d) beta grad d; were phi not held it would be another."""
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn((30, 2), generator=generator), torch.randn((5, 2), generator=generator)
    y.requires_grad_(True)
    log_mass, beta = torch.log_softmax(torch.randn(5, generator=generator), 0), 1.7
    problem = Problem("test", x, x, "mse")
    distances = problem.distance(x, y)
    found = torch.autograd.grad(potential(distances, log_mass, beta).sum(), y, retain_graph=True)[0]
    phi = lagrangian_of(distances, log_mass, beta)
    weight = torch.exp(phi[:, None] - beta * distances).detach()
    wanted = (weight[:, :, None] * 2 * beta * (y - x[:, None])).mean(0).detach()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    leaking = -torch.exp(phi[:, None] - beta * distances).mean(0).sum()
    assert not torch.allclose(torch.autograd.grad(leaking, y, retain_graph=True)[0], wanted, rtol=0.05)
    # what descends is the Lagrangian: with masses, its gradient is w grad psi
    lagrangian = torch.autograd.grad(phi.mean(), y)[0]
    torch.testing.assert_close(lagrangian, log_mass.exp()[:, None] * wanted, rtol=1e-4, atol=1e-5)


def test_a_weight_step_is_that_of_blahut_and_arimoto():
    """-psi averages to one under the weights, so that w (-psi) are weights again."""
    generator = torch.Generator().manual_seed(5)
    distances = torch.rand((40, 6), generator=generator)
    log_mass = torch.log_softmax(torch.randn(6, generator=generator), 0)
    moved = log_mass.exp() * -potential(distances, log_mass, 2.0)
    assert float(moved.sum()) == pytest.approx(1, abs=1e-5)
    assert float((log_mass.exp() * -potential(-distances, log_mass, 2.0)).sum()) == pytest.approx(1, abs=1e-5)
    before = lagrangian_of(distances, log_mass, 2.0).mean()
    assert lagrangian_of(distances, moved.log(), 2.0).mean() < before


@pytest.mark.parametrize("metric", ["l1", "lp:3"])
def test_other_distortions_descend_too(sphere: Problem, metric: str):
    problem = replace(sphere, distortion=metric)
    settings = replace(SMALL, particles=30, steps=60, batch=200)
    still = next(trace_wgd(problem, [4.0], replace(settings, rate=1e-9, hybrid=False), Run()))
    moved = next(trace_wgd(problem, [4.0], settings, Run()))
    assert moved.lagrangian_bits < still.lagrangian_bits - 0.02


def test_measuring_is_brute_force_and_flags_few_particles(sphere: Problem):
    particles = Particles(sphere.train, 12, torch.Generator().manual_seed(2)).requires_grad_(False)
    particles.log_mass.copy_(torch.log_softmax(torch.arange(12) / 4, 0))
    point = measure_particles(particles, sphere, 50.0, Run())
    d = (sphere.test.double()[:, None] - particles().double()).square().sum(2)
    joint = particles.log_mass.double() - 50 * d
    assert point.lagrangian_bits == pytest.approx(float(-joint.logsumexp(1).mean()) / math.log(2), rel=1e-4)
    assert point.distortion == pytest.approx(float((joint.softmax(1) * d).sum(1).mean()), rel=1e-4)
    assert point.rate_bits <= -float(particles.log_mass.min()) / math.log(2)
    assert point.saturated
    assert not measure_particles(particles, sphere, 0.01, Run()).saturated


def test_slopes_stand_alone_and_a_finished_run_is_not_made_again(sphere: Problem, tmp_path: Path):
    settings = replace(SMALL, steps=4)
    told = []
    run = Run(seed=6, folder=tmp_path, progress=lambda what, done, _total: told.append((what, done)))
    together = list(trace_wgd(sphere, [2.0, SLOPE], settings, Run(seed=6)))
    alone = next(trace_wgd(sphere, [SLOPE], settings, run))
    assert [done for _, done in told] == [1, 2, 3, 4]
    again = next(trace_wgd(sphere, [SLOPE], settings, run))
    assert len(told) == 4
    for point in (alone, again):
        assert replace(point, seconds=0.0).as_json() == replace(together[1], seconds=0.0).as_json()


def test_a_discrete_alphabet_is_refused_in_one_line():
    problem = load_problem("bernoulli:m=4", num_train=20, num_test=10)
    with pytest.raises(InputError, match="discrete alphabet"):
        next(trace_wgd(problem, [1.0], SMALL, Run()))


def test_more_particles_than_vectors_and_a_constant_source():
    x = torch.full((7, 3), 0.25)
    point = next(trace_wgd(Problem("flat", x, x, "mse"), [2.0], replace(SMALL, steps=20), Run()))
    assert 0 <= point.lagrangian_bits < 0.01


def test_the_step_in_closed_form_is_the_gradient_of_the_potential():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (50, 4))
    log_mass = torch.log_softmax(torch.randn(4, generator=generator, dtype=torch.float64), 0)
    y.requires_grad_()
    psi = potential(squared_error(x, y), log_mass, 1.7)
    (gradient,) = torch.autograd.grad(psi.sum(), y)
    served, to_means = toward_means(x, y.detach(), squared_error(x, y).detach(), log_mass, 1.7)
    torch.testing.assert_close(served, psi.detach())
    torch.testing.assert_close(-2 * 1.7 * to_means, gradient)
    assert not torch.allclose(2 * 1.7 * to_means, gradient)
