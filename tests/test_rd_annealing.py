"""Annealed importance sampling against linear decoders with known curves, and controls that must fail."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rcccodec.checkpoint import load_checkpoint, save_checkpoint
from rcccodec.errors import InputError, ModelError
from rcccodec.rd import ais, annealing, hmc
from rcccodec.rd.ais import trace_ais, trace_decoder
from rcccodec.rd.annealing import (
    Mark,
    Steps,
    Target,
    anneal,
    annealing_schedule,
    paired_distance,
    reverse_weights,
    tune_steps,
)
from rcccodec.rd.damage import BlurredDecoder, MixturePrior
from rcccodec.rd.generative import GaussianPrior
from rcccodec.rd.hmc import State, hmc_transition, leapfrog_path
from rcccodec.rd.linear_vae import LinearDecoder, fit_linear_decoder, linear_curve
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import AnnealingSettings

SETTINGS = AnnealingSettings(chains=16, distributions=150, leapfrog=3, gaps=1)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def a_decoder(dim: int = 5, latents: int = 2) -> LinearDecoder:
    return LinearDecoder(numbers(dim, latents) * torch.tensor([1.0, 0.5])[:latents], numbers(dim, seed=1))


def a_target(x: Tensor, prior: object = None, decoder: LinearDecoder | None = None) -> Target:
    return Target(prior or GaussianPrior(2), decoder or a_decoder(), x, paired_distance("mse"))


def posterior_sample(decoder: LinearDecoder, x: Tensor, beta: float, count: int) -> Tensor:
    precision = torch.eye(2) + 2 * beta * decoder.weight.T @ decoder.weight
    mean = torch.linalg.solve(precision, 2 * beta * decoder.weight.T @ (x - decoder.bias))
    return mean + numbers(count, 2, seed=2) @ torch.linalg.cholesky(torch.linalg.inv(precision)).T


# closed form --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 0.7, 40.0])
@pytest.mark.parametrize(("dim", "latents"), [(5, 2), (1, 2), (2, 1)])
def test_the_linear_curve_is_the_gaussian_marginal(beta: float, dim: int, latents: int):
    decoder, x = a_decoder(dim, latents), 2 * numbers(4, dim, seed=3)

    def marginal(beta: float) -> Tensor:  # (pi / beta)^(dim / 2) N(x; b, W W^T + I / (2 beta))
        w = decoder.weight.double()
        law = torch.distributions.MultivariateNormal(
            decoder.bias.double(), w @ w.T + torch.eye(dim).double() / (2 * beta)
        )
        return -law.log_prob(x.double()) - dim / 2 * math.log(math.pi / beta)

    curve = linear_curve(decoder, x, beta)
    torch.testing.assert_close(curve.lagrangian_nats, marginal(beta), rtol=1e-6, atol=1e-6)
    h = 1e-4 * beta  # d/dbeta of -log Z is D
    slope = (marginal(beta + h) - marginal(beta - h)) / (2 * h)
    torch.testing.assert_close(curve.distortion, slope, rtol=1e-5, atol=1e-6)
    assert (curve.rate_nats > 0).all()
    wrong = linear_curve(decoder, x, beta / 2)  # I + beta W^T W, the paper's for half of this distortion
    assert (wrong.lagrangian_nats - marginal(beta)).abs().max() > 0.01


def test_probabilistic_pca_matches_the_covariance():
    x = numbers(4000, 3, seed=4) @ torch.tensor([[3.0, 0, 0], [0, 2.0, 0], [0, 0, 0.1]]) + 1
    decoder = fit_linear_decoder(x, 2)
    w = decoder.weight.double()
    noise = float(torch.linalg.eigvalsh(torch.cov(x.double().T))[0])
    torch.testing.assert_close(
        w @ w.T + noise * torch.eye(3).double(), torch.cov(x.double().T), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(decoder.bias, x.mean(0))
    with pytest.raises(InputError, match="3 latents"):
        fit_linear_decoder(x, 3)


# transitions --------------------------------------------------------------------------------


def test_leapfrog_conserves_energy_and_comes_back():
    target, beta, step = a_target(numbers(3, 5, seed=5)), 2.0, torch.tensor(0.02)
    state, momentum = target(numbers(3, 7, 2, seed=6)), numbers(3, 7, 2, seed=7)

    def change(evaluate: hmc.Evaluate, parts: int) -> float:
        end, last = leapfrog_path(state, momentum, beta, step / parts, 20 * parts, evaluate)
        before = state.energy(beta) + momentum.double().square().sum(-1) / 2
        after = end.energy(beta) + last.double().square().sum(-1) / 2
        return float((after - before).abs().max())

    def backwards(z: Tensor) -> State:
        here = target(z)
        return replace(here, distortion_gradient=-here.distortion_gradient)

    assert 3 < change(target, 1) / change(target, 2) < 5  # of second order in the step
    assert change(backwards, 2) > 0.9 * change(backwards, 1) > 1
    end, last = leapfrog_path(state, momentum, beta, step, 20, target)
    start, first = leapfrog_path(end, -last, beta, step, 20, target)
    torch.testing.assert_close(start.z, state.z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(-first, momentum, atol=1e-4, rtol=1e-4)


def away(z: Tensor, decoder: LinearDecoder, x: Tensor, beta: float) -> float:
    """Of the mean distortion of chains z (n, 2) from the exact one, in standard errors."""
    d = (x - decoder(z)).square().sum(1).double()
    exact = float(linear_curve(decoder, x[None], beta).distortion)
    return abs(float(d.mean()) - exact) / float(d.std() / math.sqrt(len(d)))


def test_transitions_leave_the_target_as_it_is(monkeypatch: pytest.MonkeyPatch):
    decoder, x, beta = a_decoder(), 2 * numbers(5, seed=8), 1.5
    target, generator = a_target(x[None], decoder=decoder), torch.Generator().manual_seed(9)

    def run() -> tuple[float, float]:
        state = target(posterior_sample(decoder, x, beta, 8000)[None])
        for _ in range(8):
            state, acceptance = hmc_transition(state, beta, torch.tensor(0.25), 3, target, generator)
        return away(state.z[0], decoder, x, beta), float(acceptance.mean())

    errors, acceptance = run()
    assert errors < 4
    assert 0.3 < acceptance < 0.95  # the Metropolis test has something to do
    choose = hmc._choose
    monkeypatch.setattr(hmc, "_choose", lambda ok, new, old: choose(torch.ones_like(ok), new, old))
    assert run()[0] > 10


def test_transitions_reach_the_target_from_elsewhere():
    decoder, x, beta = a_decoder(), 2 * numbers(5, seed=8), 1.5
    target, generator = a_target(x[None], decoder=decoder), torch.Generator().manual_seed(10)
    state = target(numbers(1, 4000, 2, seed=11))
    assert away(state.z[0], decoder, x, beta) > 10
    for _ in range(25):
        state, _ = hmc_transition(state, beta, torch.tensor(0.3), 4, target, generator)
    assert away(state.z[0], decoder, x, beta) < 4


# schedule and steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("distributions", [1, 7, 100, 1000])
def test_the_schedule_rises_from_zero_and_stops_at_every_beta(distributions: int):
    betas = [0.02, 0.1, 0.5, 30.0, 3000.0]
    schedule, at = annealing_schedule(betas, distributions)
    assert schedule[0] == 0
    assert (schedule.diff() > 0).all()
    assert schedule[at].tolist() == betas
    assert distributions / 2 - 5 <= len(schedule) - 1 <= distributions + 10


def steps_of(target: Target, schedule: Tensor, seed: int = 0) -> Steps:
    return tune_steps(target, schedule, 8, 3, Run(seed=seed), "tuning", {})


def test_tuning_finds_the_wanted_acceptance_and_smaller_steps_where_the_target_is_narrow():
    target = a_target(numbers(4, 5, seed=12))
    schedule, at = annealing_schedule([1.0, 100.0], 200)
    steps = steps_of(target, schedule)
    assert steps.table.shape == (len(schedule) - 1, 4)
    assert (steps.table[-1] < steps.table[at[0]] / 3).all()
    marks = list(anneal(target, schedule, at, steps, 16, 3, Run(), "chains", {}))
    assert marks[-1].acceptance == pytest.approx(0.65, abs=0.12)
    assert steps.shared().table.shape == (len(schedule) - 1, 1)


def test_the_run_that_counts_does_not_tune(monkeypatch: pytest.MonkeyPatch):
    target = a_target(numbers(2, 5, seed=12))
    schedule, at = annealing_schedule([1.0], 40)
    used: list[float] = []

    def spy(*args: object) -> tuple[State, Tensor]:
        used.append(float(args[2].mean()))
        return hmc_transition(*args)

    monkeypatch.setattr(annealing, "hmc_transition", spy)

    def lengths(call: object) -> list[float]:
        used.clear()
        call()
        return list(used)

    steps = steps_of(target, schedule)
    runs = [
        lengths(lambda s=s: list(anneal(target, schedule, at, steps, 4, 3, Run(seed=s), "chains", {})))
        for s in (1, 2)
    ]
    assert runs[0] == runs[1] == pytest.approx(steps.table.mean(1).tolist())
    tunings = [lengths(lambda s=s: steps_of(target, schedule, s)) for s in (1, 2)]
    assert tunings[0] != tunings[1]  # what a tuned run would look like


# weights --------------------------------------------------------------------------------


def errors_of_mean(ratio: Tensor) -> float:
    return abs(float(ratio.mean()) - 1) / float(ratio.std() / math.sqrt(len(ratio)))


def test_forward_weights_are_unbiased():
    x, beta, chains = 2 * numbers(1, 5, seed=13), 1.0, 6000
    target, (schedule, at) = a_target(x), annealing_schedule([0.3, beta], 16)
    steps = steps_of(target, schedule)

    def marks(schedule: Tensor, at: list[int]) -> list[Mark]:
        return list(anneal(target, schedule, at, steps, chains, 3, Run(seed=5), "chains", {}))

    for mark in marks(schedule, at):
        curve = linear_curve(a_decoder(), x, mark.beta)
        assert errors_of_mean((mark.log_weights[0] + curve.lagrangian_nats).exp()) < 4
        share = torch.softmax(mark.log_weights[0], 0)
        error = float(((share * (mark.distortion[0] - curve.distortion)).square().sum()).sqrt())
        assert abs(float(share @ mark.distortion[0] - curve.distortion)) < 4 * error
    dropped = marks(schedule[1:], [i - 1 for i in at])[-1]  # the first term of log w is missing
    assert errors_of_mean((dropped.log_weights[0] + curve.lagrangian_nats).exp()) > 6


def test_reverse_weights_are_unbiased_for_the_inverse():
    decoder, x, beta = a_decoder(), 2 * numbers(5, seed=14), 1.0
    many = x.expand(3000, 5)
    target, (schedule, _) = a_target(many, decoder=decoder), annealing_schedule([beta], 16)
    steps = steps_of(a_target(x[None], decoder=decoder), schedule).shared()
    exact = float(linear_curve(decoder, x[None], beta).lagrangian_nats)

    z = posterior_sample(decoder, x, beta, 3000)

    def ratios(schedule: Tensor) -> Tensor:
        v = reverse_weights(target, z, schedule, steps, 2, 3, Run(seed=6), "reverse", {})
        return (v - exact).exp().mean(1)

    assert errors_of_mean(ratios(schedule)) < 4
    assert errors_of_mean(ratios(schedule[1:])) > 6  # its last term, down to beta 0, is missing


@pytest.mark.parametrize("distortion", ["mse", "l1"])
def test_simulated_noise_has_the_density_of_the_distortion(distortion: str):
    beta = 3.0
    noise = ais._noise((40_000,), distortion, beta, torch.Generator().manual_seed(1)).double()
    d = noise.square() if distortion == "mse" else noise.abs()
    # E d under exp(-beta d): half or one degree of freedom a component
    assert abs(float(d.mean()) - (0.5 if distortion == "mse" else 1) / beta) < 4 * float(d.std()) / 200
    assert abs(float(noise.mean())) < 4 * float(noise.std()) / 200


# curves --------------------------------------------------------------------------------


def test_the_curve_of_a_linear_decoder_is_the_closed_form():
    x, betas = 2 * numbers(12, 5, seed=16), (10.0, 0.3, 1.0)
    points = list(
        trace_decoder("ais-linear", GaussianPrior(2), a_decoder(), x, "mse", betas, SETTINGS, Run(seed=3))
    )
    assert [p.beta for p in points] == sorted(betas)
    for point in points:
        curve = linear_curve(a_decoder(), x, point.beta)
        assert point.kind == "upper"
        assert point.lagrangian_bits * math.log(2) == pytest.approx(
            float(curve.lagrangian_nats.mean()), abs=0.3
        )
        assert point.distortion == pytest.approx(float(curve.distortion.mean()), rel=0.15)
        assert 1 <= point.details["effective_samples"] <= 16
        wrong = float(linear_curve(a_decoder(), x, 2 * point.beta).lagrangian_nats.mean())
        assert abs(point.lagrangian_bits * math.log(2) - wrong) > 1
    assert "bdmc_gap_nats" not in points[0].details
    assert -0.5 < points[-1].details["bdmc_gap_nats"] < 1


def test_a_short_schedule_shows_in_the_gap():
    x = 2 * numbers(12, 5, seed=16)

    def gap(distributions: int) -> float:
        settings = replace(SETTINGS, distributions=distributions)
        (point,) = trace_decoder("a", GaussianPrior(2), a_decoder(), x, "mse", [30.0], settings, Run())
        return point.details["bdmc_gap_nats"]

    assert gap(4) > 3 * abs(gap(200)) + 1


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(annealing, "CHECKPOINT_EVERY_S", 0.0)
    x, settings = numbers(3, 5, seed=17), replace(SETTINGS, chains=4, distributions=30)
    advanced: list[tuple[str, int]] = []

    def trace(folder: Path | None, stop: int | None, seed: int = 2) -> Iterator[tuple[float, float, float]]:
        def progress(what: str, done: int, _: int) -> None:
            advanced.append((what, done))
            if stop == done and what == "a-chains":
                raise Stopped

        run = Run(seed=seed, folder=folder, progress=progress)
        for p in trace_decoder("a", GaussianPrior(2), a_decoder(), x, "mse", [0.5, 5.0], settings, run):
            yield p.lagrangian_bits, p.distortion, p.details["bdmc_gap_nats"] if p.beta == 5 else 0.0

    whole = list(trace(None, None))
    with pytest.raises(Stopped):
        list(trace(tmp_path, 20))
    advanced.clear()
    assert list(trace(tmp_path, None)) == whole
    assert min(advanced) == ("a-chains", 20)  # the last step before the stop was not yet saved
    assert list(trace(tmp_path, None, seed=3)) != whole  # another seed does not take these checkpoints
    for file in tmp_path.iterdir():  # a later step than there are, and other shapes
        tensors, values = load_checkpoint(file)
        for spoilt in ((tensors, values | {"done": 10**6}), ({k: v[:1] for k, v in tensors.items()}, values),
                       ({}, values), (tensors, {"plan": values["plan"]})):  # fmt: skip
            save_checkpoint(file, *spoilt)
            with pytest.raises(ModelError, match="not a usable checkpoint"):
                list(trace(tmp_path, None, seed=3))
        save_checkpoint(file, tensors, values)
    assert len(list(trace(tmp_path, None, seed=3))) == len(whole)  # control


# damage --------------------------------------------------------------------------------


def test_the_gradient_of_the_mixture_prior_is_that_of_its_density():
    prior, z = MixturePrior(3, 0.7), (2 * numbers(50, 3, seed=18)).double().requires_grad_()
    value, gradient = prior.energy(z)
    (wanted,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(gradient, wanted)
    wide = 3 * math.log(10) / 2
    good, bad = -z.square().sum(1) / 2, -z.square().sum(1) / 20 - wide
    torch.testing.assert_close(value, -(0.3 * good.exp() + 0.7 * bad.exp()).log())
    sample = prior.sample((20_000,), torch.Generator().manual_seed(1)).double().square()
    assert float(sample.mean()) == pytest.approx(
        0.3 + 0.7 * 10, abs=4 * float(sample.std()) / math.sqrt(60_000)
    )
    with pytest.raises(InputError, match="mixture prior"):
        MixturePrior(3, 1.0)


def test_a_prior_with_garbage_costs_distortion_at_low_rates_and_few_nats_at_high_ones():
    x, alpha, betas = 0.7 * numbers(12, 5, seed=19), 0.9, (0.02, 20.0)
    wide = LinearDecoder(a_decoder().weight * math.sqrt(10), a_decoder().bias)
    points = list(
        trace_decoder("m", MixturePrior(2, alpha), a_decoder(), x, "mse", betas, SETTINGS, Run(seed=4))
    )
    for point in points:
        clean = linear_curve(a_decoder(), x, point.beta)
        good = math.log(1 - alpha) - clean.lagrangian_nats
        bad = math.log(alpha) - linear_curve(wide, x, point.beta).lagrangian_nats
        exact = -torch.logaddexp(good, bad)
        nats = point.lagrangian_bits * math.log(2)
        assert nats == pytest.approx(float(exact.mean()), abs=0.35)
        assert (exact <= clean.lagrangian_nats - math.log(1 - alpha)).all()
    low, high = points[0], linear_curve(a_decoder(), x, betas[0])
    assert low.distortion > 2 * float(high.distortion.mean())
    assert points[1].distortion < 1.1 * float(linear_curve(a_decoder(), x, betas[1]).distortion.mean())


def test_blur_keeps_flat_images_and_averages_neighbours():
    shape = (6, 5, 3)
    flat = LinearDecoder(torch.zeros(90, 1), torch.arange(3.0).repeat(30))
    torch.testing.assert_close(BlurredDecoder(flat, shape, 1.3)(torch.zeros(2, 4, 1))[1, 3], flat.bias)
    one = torch.zeros(shape)
    one[3, 2, 1] = 1.0
    sigma = 0.5
    y = BlurredDecoder(LinearDecoder(torch.zeros(90, 1), one.flatten()), shape, sigma)(torch.zeros(1))
    image, side = y.reshape(shape), math.exp(-1 / (2 * sigma**2))
    assert float(image[3, 3, 1] / image[3, 2, 1]) == pytest.approx(side, rel=1e-4)
    assert float(image[2, 1, 1] / image[3, 2, 1]) == pytest.approx(side**2, rel=1e-4)
    assert image[..., 0].abs().max() == 0
    assert float(image.sum()) == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match="blur"):
        BlurredDecoder(flat, shape, 0.0)


def test_a_blurred_decoder_costs_distortion_at_high_rates():
    sharp = LinearDecoder(2 * numbers(16, 2, seed=20), torch.zeros(16))
    x = sharp(numbers(10, 2, seed=21))
    settings, shape = replace(SETTINGS, chains=8, distributions=80), (4, 4, 1)
    last = [
        list(trace_decoder("b", GaussianPrior(2), decoder, x, "mse", [50.0], settings, Run(seed=5)))[-1]
        for decoder in (sharp, BlurredDecoder(sharp, shape, 1.0))
    ]
    assert last[1].distortion > 5 * last[0].distortion


# refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "distortion", "message"),
    [
        (AnnealingSettings(model="flow"), "mse", "flow"),
        (AnnealingSettings(distance="pixels"), "mse", "pixels"),
        (AnnealingSettings(), "hamming", "no gradient"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    settings: AnnealingSettings, distortion: str, message: str
):
    problem = Problem("tiny", numbers(20, 4), numbers(5, 4), distortion)
    with pytest.raises(InputError, match=message) as caught:
        list(trace_ais(problem, [1.0], settings, Run()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mse", "l1", "lp:3"])
def test_paired_distances_are_the_diagonal_of_the_matrix(name: str):
    x, y = numbers(6, 4, seed=22), numbers(6, 4, seed=23)
    whole = Problem("p", x, x, name).distance(x, y)
    torch.testing.assert_close(paired_distance(name)(x, y), whole.diagonal())
    assert not torch.allclose(paired_distance(name)(x, y.flip(0)), whole.diagonal())
