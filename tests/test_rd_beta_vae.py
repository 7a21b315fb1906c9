"""The beta-VAE's bound against reverse water-filling, its checkpoints, and controls that must fail."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rcccodec.errors import InputError
from rcccodec.rd import beta_vae
from rcccodec.rd.beta_vae import BetaVae, measure_vae, paired_distortion, trace_vae, train_beta_vae, untrained
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BetaVaeSettings, Settings, with_setting
from rcccodec.sources.synthetic import gaussian_variances

SMALL = BetaVaeSettings(latents=6, width=32, depth=1, steps=60, batch=64)


@pytest.fixture(scope="module")
def gaussian() -> Problem:
    return load_problem("gaussian:m=6", num_train=4000, num_test=500)


def exact_bits(problem: Problem, beta: float) -> np.ndarray:
    """-log2 E exp(-beta d(x, Y)) of each test vector under the optimal law of Y."""
    x, variances = problem.test.double().numpy(), gaussian_variances(6, 0.5)
    level = 1 / (2 * beta)
    active = variances > level
    nats = 0.5 * np.log(variances[active] / level).sum() + (x[:, active] ** 2 / (2 * variances[active])).sum(
        1
    )
    return (nats + beta * (x[:, ~active] ** 2).sum(1)) / math.log(2)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_a_gaussian_source_is_within_a_tenth_of_a_bit(gaussian: Problem, beta: float):
    point = next(trace_vae(gaussian, [beta], SMALL, Run(seed=1)))
    excess = point.lagrangian_bits - exact_bits(gaussian, beta).mean()
    error = 4 * point.lagrangian_se_samples_bits
    assert -error < excess < 0.1 + error
    assert point.kind == "upper"
    assert point.num_blocks == 500
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + beta * point.distortion / math.log(2))


def test_training_brings_back_what_a_wrong_start_lost(gaussian: Problem, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        beta_vae, "_channels", lambda v, latents, beta: (0.3 * v[:latents].sqrt(), v[:latents] * 0 + 1)
    )
    settings = replace(SMALL, steps=400, rate=5e-3)
    before = measure_vae(untrained(gaussian, 1.0, settings, Run()), gaussian, 1.0, Run())
    after = next(trace_vae(gaussian, [1.0], settings, Run()))
    exact = exact_bits(gaussian, 1.0).mean()
    assert before.lagrangian_bits > exact + 2
    assert after.lagrangian_bits < exact + 0.2


def test_training_uphill_would_show(gaussian: Problem, monkeypatch: pytest.MonkeyPatch):
    bound = BetaVae.bound

    def without_rate(self: BetaVae, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        kl, d = bound(self, *arguments)
        return kl * (1 if not torch.is_grad_enabled() else -1), d

    monkeypatch.setattr(BetaVae, "bound", without_rate)
    point = next(trace_vae(gaussian, [1.0], replace(SMALL, rate=5e-3), Run()))
    assert point.lagrangian_bits > exact_bits(gaussian, 1.0).mean() + 0.3


def test_slopes_do_not_depend_on_each_other(gaussian: Problem):
    settings = replace(SMALL, steps=5)
    together = list(trace_vae(gaussian, [0.5, 2.0], settings, Run(seed=3)))
    alone = next(trace_vae(gaussian, [2.0], settings, Run(seed=3)))
    assert replace(together[1], seconds=0.0).as_json() == replace(alone, seconds=0.0).as_json()


def test_a_finished_checkpoint_is_used_as_it_is(gaussian: Problem, tmp_path: Path):
    steps = []
    run = Run(folder=tmp_path, progress=lambda _what, done, _total: steps.append(done))
    settings = replace(SMALL, steps=5)
    first = train_beta_vae(gaussian, 1.0, settings, run)
    assert steps == [1, 2, 3, 4, 5]
    second = train_beta_vae(gaussian, 1.0, settings, run)
    assert len(steps) == 5
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    train_beta_vae(gaussian, 1.0, replace(settings, batch=32), run)
    assert len(steps) == 10  # another plan


def test_the_global_random_state_is_left_alone(gaussian: Problem):
    before = torch.random.get_rng_state()
    list(trace_vae(gaussian, [1.0], replace(SMALL, steps=2), Run()))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["mse", "l1", "lp:1", "lp:3"])
def test_paired_distortions_are_the_diagonal(name: str):
    x, y = torch.randn((2, 7, 5), generator=torch.Generator().manual_seed(1))
    problem = Problem("test", x, x, name)
    torch.testing.assert_close(paired_distortion(problem)(x, y), problem.distance(x, y).diagonal())


def test_images_stay_between_black_and_white():
    x = torch.rand((50, 12), generator=torch.Generator().manual_seed(2))
    problem = Problem("images", x, x, "mse", shape=(3, 4, 1))
    vae = untrained(problem, 10.0, SMALL, Run())
    y = vae.requires_grad_(False).decode(torch.randn((40, 6), generator=torch.Generator().manual_seed(3)) * 5)
    assert 0 <= float(y.min()) <= float(y.max()) <= 1


def test_binary_reproductions_are_refused_in_one_line():
    problem = load_problem("bernoulli:m=4", num_train=20, num_test=10)
    with pytest.raises(InputError, match="real reproductions"):
        next(trace_vae(problem, [1.0], SMALL, Run()))


def test_a_linear_network_can_be_asked_for():
    assert with_setting(Settings(), "vae.depth=0").vae.depth == 0
    for text in ("vae.width=0", "ais.depth=0", "vae.depth=-1"):
        with pytest.raises(InputError, match="positive"):
            with_setting(Settings(), text)
