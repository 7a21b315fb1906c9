"""Losses against closed forms: with y = A z, z normal, everything about E exp(-beta |x - y|^2) is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.distortion import parse_distortion, squared_error
from rcccodec.proposals.generator import GeneratorSpec, build_generator
from rcccodec.training import objectives
from rcccodec.training.encoder import Encoder, gaussian_log_density
from rcccodec.training.objectives import (
    HIGHEST_SLOPE,
    analyse,
    left_out,
    nerd_loss,
    nerd_pool_loss,
    nerd_prior_loss,
    posterior_distortion,
    slope_for_distortion,
    vae_loss,
)

BETA = 1.5
SCALES = (1.0, 0.6)


class Scaling(torch.nn.Module):
    """y_i = a_i z_i, whatever the slope."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = torch.nn.Parameter(torch.tensor(SCALES))
        self.latent_dim = len(SCALES)

    def forward(self, z: torch.Tensor, log_slope: torch.Tensor | None = None) -> torch.Tensor:
        return z * self.scales


class Posterior(torch.nn.Module):
    """q(z|x) with the exact posterior's moments, or some way off; ``free`` are leaves to differentiate by."""

    def __init__(self, x: torch.Tensor, shift: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        scales = torch.tensor(SCALES)
        variance = 1 / (1 + 2 * BETA * scales**2)
        self.mean = torch.nn.Parameter(2 * BETA * variance * scales * x + shift)
        self.log_variance = torch.nn.Parameter((variance * spread).log().expand_as(x).clone())

    def forward(self, x: torch.Tensor, log_slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean, self.log_variance


def some_x(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) * 1.2


def exact(x: torch.Tensor, scales: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """-log E exp(-beta |x - y|^2) in nats: 1/2 log det(I + 2 beta S) + beta x^T (I + 2 beta S)^-1 x."""
    growth = 1 + 2 * beta * scales**2
    return 0.5 * growth.log().sum() + beta * (x * x / growth).sum(1)


def repeated(function, times: int, seed: int = 0) -> torch.Tensor:
    """(times, ...) results under the global random state, which is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.stack([function() for _ in range(times)])


def z_score(draws: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest distance of the mean of draws (times, ...) from what was expected, in standard errors."""
    error = draws.double().std(0) / math.sqrt(len(draws))
    return float(((draws.double().mean(0) - expected) / error).abs().max())


def test_the_density_of_the_encoder_is_the_normal_one():
    generator = torch.Generator().manual_seed(0)
    z, mean, log_variance = (torch.randn(n, 3, generator=generator) for n in (5, 4, 4))
    law = torch.distributions.Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
    expected = law.log_prob(z).sum(2)
    torch.testing.assert_close(gaussian_log_density(z, mean, log_variance), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(1e-3, 50))
def test_the_objective_is_a_log_mean_of_exponentials(seed: int, beta: float):
    rng = np.random.default_rng(seed)
    d, ratio = rng.exponential(3, (4, 9)), rng.normal(size=9)
    plain = -np.log(np.exp(-beta * (d - d.min(1, keepdims=True))).mean(1)) + beta * d.min(1)
    assert nerd_loss(None, torch.tensor(d), beta) == pytest.approx(plain.mean())
    logits = ratio - beta * d
    top = logits.max(1, keepdims=True)
    weighted = -(np.log(np.exp(logits - top).mean(1)) + top[:, 0])
    assert nerd_loss(torch.tensor(ratio), torch.tensor(d), beta) == pytest.approx(weighted.mean())


def test_many_prior_candidates_give_the_closed_form():
    x, generator = some_x(6), Scaling()
    value = repeated(lambda: nerd_prior_loss(x, BETA, generator, 100_000, squared_error)[0].detach(), 1)[0]
    assert float(value) == pytest.approx(float(exact(x, torch.tensor(SCALES)).mean()), abs=0.03)
    assert float(value) != pytest.approx(float(exact(x, torch.tensor(SCALES), -0.1).mean()), abs=0.3)


def mean_of_exp(x: torch.Tensor, times: int) -> torch.Tensor:
    generator, encoder = Scaling(), Posterior(x, shift=0.3, spread=2.0)
    return repeated(lambda: torch.exp(-nerd_pool_loss(x, BETA, generator, encoder, 4, 4)[1]), times)


def test_the_pool_estimates_the_expectation_without_bias():
    """For one block exp(-value) is the estimate of E exp(-beta d) itself, whatever the encoder."""
    for seed in (1, 2):
        x = some_x(1, seed)
        wanted = torch.exp(-exact(x, torch.tensor(SCALES)))[0]
        draws = mean_of_exp(x, 1500)
        assert z_score(draws, wanted) < 4
        # and far less noisy than as many draws of the prior
        prior = repeated(
            lambda x=x: torch.exp(-nerd_prior_loss(x, BETA, Scaling(), 8, squared_error)[0].detach()), 1500
        )
        assert z_score(prior, wanted) < 4
        assert draws.std() < 0.9 * prior.std()


def test_without_the_importance_ratio_the_pool_is_biased(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objectives, "gaussian_log_density", lambda z, mean, _: torch.zeros(len(mean), len(z)))
    x = some_x(1, 1)
    assert z_score(mean_of_exp(x, 500), torch.exp(-exact(x, torch.tensor(SCALES)))[0]) > 10


def test_a_shared_pool_agrees_with_a_large_sample_of_the_prior():
    x, generator = some_x(5), Scaling()
    encoder = Posterior(x, spread=1.3)
    pool = repeated(lambda: nerd_pool_loss(x, BETA, generator, encoder, 3, 50)[1], 300)
    prior = repeated(lambda: nerd_prior_loss(x, BETA, generator, 200_000, squared_error)[0].detach(), 1)
    # Jensen's inequality leaves the mean of the logarithm slightly above
    assert -0.01 < float(pool.mean() - prior.mean()) < 0.05


def test_rate_distortion_and_objective_of_the_pool_belong_together():
    x, generator = some_x(5), Scaling()
    results = repeated(
        lambda: torch.stack(nerd_pool_loss(x, BETA, generator, Posterior(x), 20, 200)[1:]).detach(), 100
    ).mean(0)
    value, rate, distortion = results.tolist()
    assert value == pytest.approx(rate + BETA * distortion, rel=1e-5)
    scales = torch.tensor(SCALES)
    growth = 1 + 2 * BETA * scales**2  # given x, y is N(x (growth - 1) / growth, scale^2 / growth)
    known = ((x / growth).square() + scales**2 / growth).sum(1).mean()
    assert distortion == pytest.approx(float(known), abs=0.03)


def surrogate_gradients(x: torch.Tensor, times: int) -> torch.Tensor:
    generator, encoder = Scaling(), Posterior(x, spread=1.5)

    def gradient() -> torch.Tensor:
        loss = nerd_pool_loss(x, BETA, generator, encoder, 20, 200)[0]
        return torch.autograd.grad(loss, generator.scales)[0]

    return repeated(gradient, times)


def test_the_surrogate_has_the_gradient_of_the_objective():
    x, scales = some_x(4), torch.tensor(SCALES, requires_grad=True)
    full = torch.autograd.grad(exact(x, scales).mean(), scales)[0]
    draws = surrogate_gradients(x, 1500)
    # the pool's own bias is O(1 / pool): allow it 2 percent
    assert ((draws.mean(0) - full).abs() < 4 * draws.std(0) / math.sqrt(1500) + 0.02 * full.abs()).all()
    assert z_score(draws, -full) > 20
    assert z_score(draws, full * 0.5) > 20


def test_without_the_ratio_the_surrogate_has_another_gradient(monkeypatch: pytest.MonkeyPatch):
    x, scales = some_x(4), torch.tensor(SCALES, requires_grad=True)
    full = torch.autograd.grad(exact(x, scales).mean(), scales)[0]
    monkeypatch.setattr(objectives, "gaussian_log_density", lambda z, mean, _: torch.zeros(len(mean), len(z)))
    assert z_score(surrogate_gradients(x, 1500), full) > 8


def encoder_gradients(x: torch.Tensor, shift: float) -> torch.Tensor:
    generator, encoder = Scaling(), Posterior(x, shift)

    def gradient() -> torch.Tensor:
        loss = nerd_pool_loss(x, BETA, generator, encoder, 40, 100)[0]
        return torch.autograd.grad(loss, encoder.mean)[0]

    return repeated(gradient, 600)


def test_the_encoder_rests_at_the_posterior_and_is_pulled_back_to_it():
    x = some_x(3)
    assert z_score(encoder_gradients(x, 0.0), torch.zeros(3, 2)) < 4
    pulled = encoder_gradients(x, 0.4)
    assert (pulled.mean(0) > 0).all()  # descent lowers a mean that is too high
    assert z_score(pulled, torch.zeros(3, 2)) > 8


def vae_values(x: torch.Tensor, encoder: Posterior, kl_weight: float = 1.0) -> torch.Tensor:
    log_slope = torch.full((len(x),), math.log(BETA))
    return repeated(lambda: torch.stack(vae_loss(x, log_slope, Scaling(), encoder, kl_weight)).detach(), 1500)


@pytest.mark.parametrize(("shift", "spread"), [(0.3, 1.0), (-0.2, 2.0), (0.0, 0.4)])
def test_the_vae_loss_is_above_the_objective(shift: float, spread: float):
    x = some_x(4)
    draws = vae_values(x, Posterior(x, shift, spread))[:, 0]
    objective = float(exact(x, torch.tensor(SCALES)).mean())
    assert float(draws.mean()) - 4 * float(draws.std()) / math.sqrt(len(draws)) > objective


def test_with_the_exact_posterior_the_vae_loss_is_the_objective():
    x = some_x(4)
    loss, rate, distortion = vae_values(x, Posterior(x)).unbind(1)
    objective = exact(x, torch.tensor(SCALES)).mean()
    assert z_score(loss, objective) < 4
    torch.testing.assert_close(rate + BETA * distortion, loss)
    light = vae_values(x, Posterior(x), 0.2)[:, 0]
    assert light.mean() < objective  # the control: a lighter KL is no bound


def linear() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = build_generator(GeneratorSpec("mlp", (8,), 3, 6, 1, "linear", 3, (1.0, 1.0)))
        basis = torch.linalg.qr(torch.randn(8, 3)).Q.T
        generator.start_from(torch.rand(8), basis, torch.ones(3))
    return generator


@pytest.mark.parametrize("metric", ["mse", "lp:1", "lp:4"])
def test_distances_to_a_linear_generator_are_those_of_its_blocks(metric: str):
    generator, x = linear(), torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    measure = parse_distortion(metric)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss, distances = nerd_prior_loss(x, 1.0, generator, 10, measure)
        torch.manual_seed(0)
        y = generator.mean + generator(torch.randn(10, 3)) @ generator.basis
    torch.testing.assert_close(distances, measure(x, y), rtol=1e-4, atol=1e-5)
    assert float(loss.detach()) == pytest.approx(float(nerd_loss(None, distances.detach(), 1.0)))
    in_coordinates = measure(analyse(generator, x), (y - generator.mean) @ generator.basis.T)
    assert (distances - in_coordinates).abs().max() > 0.01  # the control: they are not those


def test_what_the_coordinates_leave_out_is_counted():
    generator, x = linear(), torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    coordinates = analyse(generator, x)
    back = generator.mean + coordinates @ generator.basis
    torch.testing.assert_close(left_out(generator, x, coordinates), (x - back).square().sum(1))
    assert left_out(Scaling(), x, x).abs().max() == 0
    encoder = Encoder(generator.mean, torch.eye(8), torch.ones(8), 3, 6)
    for result in (
        vae_loss(x, torch.zeros(4), generator, encoder, 1.0)[2],
        nerd_pool_loss(x, 1.0, generator, encoder, 2, 4)[3],
    ):
        assert float(result.detach()) > float(left_out(generator, x, coordinates).mean())


def test_the_slope_meets_the_distortion():
    d = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) * 10
    for wanted in (0.5, 1.0, 3.0, 4.7):
        beta = slope_for_distortion(d, wanted)
        assert float(posterior_distortion(d.double(), beta)) == pytest.approx(wanted, abs=1e-4)
        scan = np.geomspace(1e-3, 1e3, 6001)
        reached = [float(posterior_distortion(d.double(), b)) for b in scan[::20]]
        assert beta == pytest.approx(scan[::20][np.argmin(np.abs(np.array(reached) - wanted))], rel=0.03)
        assert (np.diff(reached) <= 1e-9).all()


@pytest.mark.parametrize(
    ("wanted", "slope"), [(100.0, 0.0), (1e-9, HIGHEST_SLOPE), (0.0, HIGHEST_SLOPE), (-1.0, HIGHEST_SLOPE)]
)
def test_a_distortion_out_of_range_gets_the_nearer_end(wanted: float, slope: float):
    assert slope_for_distortion(torch.rand(6, 40) + 0.1, wanted) == slope


def test_slopes_span_decades_and_need_no_gradient():
    d = torch.rand(5, 30, generator=torch.Generator().manual_seed(1))
    for scale in (1e-3, 1.0, 1e4):
        scaled = (d * scale).requires_grad_()
        beta = slope_for_distortion(scaled, 0.2 * scale)
        assert beta == pytest.approx(slope_for_distortion(d, 0.2) / scale, rel=1e-3)
        assert scaled.grad is None


def test_equal_distances_have_no_slope_but_an_end():
    d = torch.full((3, 4), 2.0)
    assert slope_for_distortion(d, 2.0) == 0
    assert slope_for_distortion(d, 1.0) == HIGHEST_SLOPE


def test_the_slope_of_the_closed_form_is_found():
    """At the exact Q_Y of a Gaussian source D = 1/(2 beta) a component: eq. 8 in its simplest case."""
    beta = 2.0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    y = torch.randn(1000, 1, dtype=torch.float64, generator=generator) * math.sqrt(1 - 1 / (2 * beta))
    assert slope_for_distortion(squared_error(x, y), 1 / (2 * beta)) == pytest.approx(beta, rel=0.1)
