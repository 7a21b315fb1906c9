"""The generative models that annealing measures: penalty, training, features."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rcccodec.rd.ais import trace_ais
from rcccodec.rd.deep_features import train_features
from rcccodec.rd.generative import Decoder, gradient_penalty, mlp, train_decoder
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import AnnealingSettings

SETTINGS = AnnealingSettings(
    latents=2,
    width=32,
    depth=1,
    training=250,
    batch=64,
    rate=3e-3,
    chains=6,
    images=5,
    distributions=60,
    gaps=1,
)


def a_problem() -> Problem:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(600, 2, generator=generator)
    x = 3 + z @ (2 * torch.randn(2, 6, generator=generator)) + 0.1 * torch.randn(600, 6, generator=generator)
    return Problem("plane", x[:500], x[500:], "mse")


@pytest.fixture
def critic() -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator).double()
    return net


def by_differences(critic: nn.Module, x: Tensor, wanted: float) -> float:
    h, slopes = 1e-5, []
    with torch.no_grad():
        for i in range(x.shape[1]):
            e = h * torch.eye(x.shape[1]).double()[i]
            slopes.append((critic(x + e) - critic(x - e))[:, 0] / (2 * h))
    return float((torch.stack(slopes).square().sum(0).sqrt() - wanted).square().mean())


def test_the_gradient_penalty_is_that_of_finite_differences(critic: nn.Sequential):
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(2)).double()
    value = float(gradient_penalty(critic, x).detach())
    assert value == pytest.approx(by_differences(critic, x, 1.0), rel=1e-6)
    assert value != pytest.approx(by_differences(critic, x, 0.0), rel=0.01)  # a penalty of the norm itself


def test_the_gradient_penalty_can_be_descended(critic: nn.Sequential):
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(2)).double()
    gradient_penalty(critic, x).backward()
    weight, h = critic[0].weight, 1e-6
    wanted = []
    for sign in (1, -1):
        weight.data[4, 1] += sign * h
        wanted.append(float(gradient_penalty(critic, x).detach()))
        weight.data[4, 1] -= sign * h
    assert float(weight.grad[4, 1]) == pytest.approx((wanted[0] - wanted[1]) / (2 * h), rel=1e-4)


def lagrangian(decoder: Decoder, problem: Problem, beta: float = 1.0) -> float:
    """Nats, from plain samples of the prior."""
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(3))
    d = problem.distance(problem.test, decoder(z)).double()
    return float((math.log(4000) - torch.logsumexp(-beta * d, 1)).mean())


@pytest.mark.parametrize("model", ["vae", "gan", "aae"])
def test_training_brings_the_model_to_the_data(model: str):
    problem, settings = a_problem(), replace(SETTINGS, model=model)
    if model == "gan":
        settings = replace(settings, training=400, rate=1e-2)
    trained, seconds = train_decoder(problem, settings, Run())
    start, _ = train_decoder(problem, replace(settings, training=1), Run())
    assert lagrangian(trained, problem) < lagrangian(start, problem) - 5
    assert seconds > 0
    assert not any(p.requires_grad for p in trained.parameters())


@pytest.mark.parametrize("model", ["vae", "gan", "aae"])
def test_weights_are_a_function_of_the_seed(model: str):
    settings, state = replace(SETTINGS, model=model, training=3), torch.random.get_rng_state()
    weights = [train_decoder(a_problem(), settings, Run(seed=s))[0].state_dict() for s in (1, 1, 2)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's randomness is touched


def test_decoders_of_images_stay_in_pixels_and_start_at_the_mean():
    x = torch.rand(50, 12, generator=torch.Generator().manual_seed(4))
    decoder = Decoder(3, 16, 2, x, is_image=True)
    y = decoder(10 * torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(5)))
    assert y.shape == (4, 7, 12)
    assert (y >= 0).all()
    assert (y <= 1).all()
    decoder.layers[-1].weight.data.zero_()
    torch.testing.assert_close(decoder(torch.zeros(3)), x.mean(0))
    assert len(mlp(2, 8, 3, 5)) == 7


def test_features_have_the_variance_of_the_data_and_are_a_function_of_the_seed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("rcccodec.rd.deep_features.STEPS", 5)
    problem = a_problem()
    features, again, other = (train_features(problem, Run(seed=s))[0] for s in (0, 0, 1))
    x = problem.train
    assert float(features(x).var(0).sum()) == pytest.approx(float(x.var(0).sum()), rel=1e-3)
    assert torch.equal(features(x), again(x))
    assert not torch.equal(features(x), other(x))


@pytest.mark.parametrize("distance", ["problem", "features"])
def test_a_curve_falls_and_names_its_model(distance: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rcccodec.rd.deep_features.STEPS", 50)
    problem, settings = a_problem(), replace(SETTINGS, distance=distance, training=100)
    points = list(trace_ais(problem, [0.05, 0.3, 3.0], settings, Run()))
    assert [p.method for p in points] == ["ais-vae" if distance == "problem" else "ais-vae-features"] * 3
    assert points[0].distortion > points[1].distortion > points[2].distortion
    assert points[0].rate_bits < points[1].rate_bits < points[2].rate_bits
    assert [p.num_blocks for p in points] == [5, 5, 5]
    assert "bdmc_gap_nats" in points[2].details
