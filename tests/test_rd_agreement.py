"""Independent estimators of one R(D) agree: a source without a closed form, and quadrature."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from rcccodec.rd.ba import trace_ba
from rcccodec.rd.beta_vae import trace_vae
from rcccodec.rd.dba import trace_dba
from rcccodec.rd.dual_bound import trace_lower_bound
from rcccodec.rd.nerd import trace_nerd
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import (
    BetaVaeSettings,
    BlahutArimotoSettings,
    EnergySettings,
    NerdSettings,
    SandwichSettings,
    WassersteinSettings,
)
from rcccodec.rd.wasserstein import trace_wgd

BETA = 1.5
VAE = BetaVaeSettings(latents=4, width=64, steps=600)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem("laplacian:b=1", num_train=20_000, num_test=1000)


@pytest.fixture(scope="module")
def solved(problem: Problem) -> RatePoint:
    """By Blahut-Arimoto on the law's grid, certified to a hundredth of a bit."""
    point, dual = trace_ba(problem, [BETA], BlahutArimotoSettings(), Run())
    assert point.lagrangian_bits - dual.lagrangian_bits < 0.01
    return point


@pytest.fixture(scope="module")
def luck(problem: Problem, solved: RatePoint) -> tuple[float, float]:
    """What these test vectors alone add to the Lagrangian, bits, and its error: under a good law."""
    samples = BlahutArimotoSettings(samples=4000)
    _, held_out = trace_ba(replace(problem, law=None), [BETA], samples, Run())
    assert abs(held_out.lagrangian_bits - solved.lagrangian_bits) < 5 * held_out.lagrangian_se_bits
    return held_out.lagrangian_bits - solved.lagrangian_bits, held_out.lagrangian_se_bits


def upper_bounds(problem: Problem) -> Iterator[RatePoint]:
    yield from trace_wgd(problem, [BETA], WassersteinSettings(particles=200, steps=200), Run())
    yield from trace_nerd(problem, [BETA], NerdSettings(steps=50, candidates=8192), Run(), vae=VAE)


def test_particles_generators_and_quadrature_agree(
    problem: Problem, solved: RatePoint, luck: tuple[float, float]
) -> None:
    found = {point.method: point for point in upper_bounds(problem)}
    assert set(found) == {"wgd", "nerd", "nerd-is"}
    for point in found.values():
        excess = point.lagrangian_bits - solved.lagrangian_bits - luck[0]  # the vectors are the same
        assert -0.02 < excess < 0.1, point.method
    wrong = next(trace_wgd(problem, [2 * BETA], WassersteinSettings(particles=200, steps=200), Run()))
    assert wrong.lagrangian_bits - solved.lagrangian_bits - luck[0] > 0.1  # another slope is noticed


def test_the_variational_bound_is_above_and_the_dual_one_below(problem: Problem, solved: RatePoint) -> None:
    (vae,) = trace_vae(problem, [BETA], VAE, Run())
    assert -3 * vae.lagrangian_se_bits < vae.lagrangian_bits - solved.lagrangian_bits < 0.4
    folds = SandwichSettings(draws=512, evaluations=10, steps=50)
    lower = trace_lower_bound(problem, BETA, folds, Run())
    assert -0.5 < lower.lagrangian_bits - solved.lagrangian_bits < 0


def test_an_energy_model_agrees_with_quadrature(problem: Problem, solved: RatePoint) -> None:
    sizes = EnergySettings(steps=400, batch=128, rate=6e-3, langevin=8, distributions=300)
    (dba,) = trace_dba(problem, [BETA], sizes, Run())
    error = math.hypot(dba.lagrangian_se_bits, 0.02)
    assert abs(dba.lagrangian_bits - solved.lagrangian_bits) < 0.1 + 3 * error
    assert abs(dba.details["quadrature_rate_bits"] - dba.rate_bits) < 0.1
    assert torch.tensor([dba.rate_bits, dba.distortion]).isfinite().all()
