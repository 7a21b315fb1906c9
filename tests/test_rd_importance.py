"""NERD by importance sampling, and with a learned generator: closed forms, and controls that must fail."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rcccodec.errors import InputError
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd import beta_vae, importance
from rcccodec.rd.beta_vae import paired_distortion
from rcccodec.rd.importance import estimate_importance, importance_loss, importance_sample, mixture_draws
from rcccodec.rd.nerd import CEILING_BITS, estimate_nerd, trace_nerd
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BetaVaeSettings, NerdSettings
from rcccodec.report import SATURATION_BITS
from rcccodec.sources.synthetic import gaussian_variances

VARIANCES = gaussian_variances(6, 0.5)
VAE = BetaVaeSettings(latents=6, width=32, depth=1, steps=60, batch=64)
NERD = NerdSettings(candidates=2048, draws=128, steps=20, tuning=4, batch=32)


@pytest.fixture(scope="module")
def gaussian() -> Problem:
    return load_problem("gaussian:m=6", num_train=4000, num_test=400)


def exact_bits(problem: Problem, beta: float) -> float:
    """Mean over the test vectors of -log2 E exp(-beta d(x, Y)), under the optimal law of Y."""
    x, level = problem.test.double().numpy(), 1 / (2 * beta)
    active = level < VARIANCES
    nats = 0.5 * np.log(VARIANCES[active] / level).sum()
    nats = nats + (x[:, active] ** 2 / (2 * VARIANCES[active])).sum(1) + beta * (x[:, ~active] ** 2).sum(1)
    return float(nats.mean()) / math.log(2)


def rough_posterior(beta: float, shift: float = 0.2, scale: float = 1.2):
    """The exact posterior of the latents, moved by some of its deviations and widened: not the best q."""
    proposal, level = GaussianProposal(VARIANCES, beta), 1 / (2 * beta)
    active = np.flatnonzero(proposal.variances)
    v = torch.tensor(VARIANCES[active]).float()

    def posterior(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = x[:, active] * (v - level).sqrt() / v + shift * (level / v).sqrt()
        return mean, (0.5 * torch.log(level / v) + math.log(scale)).expand(len(x), -1)

    return proposal.candidates, posterior


def estimate(problem: Problem, beta: float, draws: int = 256, **posterior: float) -> RatePoint:
    decode, q = rough_posterior(beta, **posterior)
    return estimate_importance(
        problem.test, decode, q, paired_distortion(problem), beta=beta, draws=draws, repeats=4,
        generator=torch.Generator().manual_seed(5),
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0, 60.0])
def test_the_lagrangian_is_the_exact_one_at_any_rate(gaussian: Problem, beta: float):
    point = estimate(gaussian, beta)
    excess = point.lagrangian_bits - exact_bits(gaussian, beta)
    assert abs(excess) < 4 * point.lagrangian_se_samples_bits + 0.01
    assert not point.saturated
    assert point.details["effective_samples"] > 30


def test_the_plain_form_fails_where_the_rate_is_above_log2_n(gaussian: Problem):
    exact = exact_bits(gaussian, 60.0)
    plain = estimate_nerd(
        gaussian.test, GaussianProposal(VARIANCES, 60.0), beta=60.0, num_candidates=256, seeds=(1, 2)
    )
    assert plain.saturated
    assert plain.lagrangian_bits > exact + 5
    assert estimate(gaussian, 60.0).lagrangian_bits < exact + 0.1


@pytest.mark.parametrize("dropped", ["ratio", "prior", "posterior", "sign"])
def test_a_dropped_term_would_show(gaussian: Problem, monkeypatch: pytest.MonkeyPatch, dropped: str):
    right = importance.mixture_draws

    def wrong(
        mean: torch.Tensor, log_scale: torch.Tensor, *rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        z, ratio = right(mean, log_scale, *rest)
        log_p = -0.5 * z.square().sum(2)
        changed = {"ratio": 0 * ratio, "prior": ratio - log_p, "posterior": log_p, "sign": -ratio}
        return z, changed[dropped]

    monkeypatch.setattr(importance, "mixture_draws", wrong)
    point = estimate(gaussian, 4.0)
    assert abs(point.lagrangian_bits - exact_bits(gaussian, 4.0)) > 0.5


def test_the_mixture_is_normalised_and_its_ratio_bounded():
    generator = torch.Generator().manual_seed(3)
    mean, log_scale = torch.tensor([[0.7, -1.5]]), torch.tensor([[-1.0, -2.0]])
    _, log_ratio = mixture_draws(mean, log_scale, 40_000, generator)
    ratio = log_ratio.exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)  # E_r p / r = 1
    assert float(ratio.max()) <= 1 / importance.PRIOR_SHARE + 1e-3
    for draws in (1, 2, 3, 7):
        z, log_ratio = mixture_draws(mean, log_scale, draws, generator)
        assert z.shape == (1, draws, 2)
        assert torch.isfinite(log_ratio).all()


def test_more_draws_lower_the_bound_and_a_poor_posterior_needs_more(gaussian: Problem):
    poor = {"shift": 1.5, "scale": 0.7}
    few, many = estimate(gaussian, 4.0, draws=4, **poor), estimate(gaussian, 4.0, draws=1024, **poor)
    exact = exact_bits(gaussian, 4.0)
    assert few.lagrangian_bits > many.lagrangian_bits + 0.5
    assert many.lagrangian_bits > exact - 0.05
    assert few.saturated


def test_the_surrogate_has_the_gradients_of_the_bound():
    """Doubly reparameterised gradients of the encoder agree on average with those of the bound itself."""
    x = torch.tensor([[0.8, -0.3]])
    problem = Problem("pair", x, x, "mse")
    paired = paired_distortion(problem)
    mean, log_scale = nn.Parameter(torch.tensor([[0.3]])), nn.Parameter(torch.tensor([[-0.4]]))
    weight = nn.Parameter(torch.tensor([[1.0, 0.5]]))
    parameters, draws, copies = (mean, log_scale, weight), 4, 40_000

    def decode(z: torch.Tensor) -> torch.Tensor:
        return z @ weight

    def posterior(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return mean.expand(len(rows), -1), log_scale.expand(len(rows), -1)

    generator = torch.Generator().manual_seed(1)
    loss, value, _ = importance_loss(
        x.expand(copies, -1), decode, posterior, paired, beta=1.3, draws=draws, generator=generator
    )
    found = torch.autograd.grad(loss, parameters)
    noise = torch.randn((copies, draws, 1), generator=generator)
    z = mean + noise * log_scale.exp()
    log_q = -0.5 * ((z - mean) / log_scale.exp()).square().sum(2) - log_scale.sum()
    log_w = -0.5 * z.square().sum(2) - log_q - 1.3 * (x - decode(z)).square().sum(2)
    direct = math.log(draws) - log_w.logsumexp(1).mean()
    wanted = torch.autograd.grad(direct, parameters)
    assert float(value) == pytest.approx(float(direct.detach()), abs=0.02)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)
    assert not torch.allclose(found[2], -wanted[2], atol=0.02)  # the wrong sign


def test_both_records_of_a_learned_generator_are_near_the_exact_lagrangian(gaussian: Problem):
    plain, weighed = trace_nerd(gaussian, [1.0], NERD, Run(seed=2), vae=VAE)
    exact = exact_bits(gaussian, 1.0)
    assert (plain.method, weighed.method) == ("nerd", "nerd-is")
    for point in (plain, weighed):
        assert -0.05 < point.lagrangian_bits - exact < 0.15
    assert weighed.lagrangian_bits <= plain.lagrangian_bits + 0.02
    assert plain.num_samples == 2048
    assert weighed.num_samples == 128


def test_tuning_lowers_what_a_wrong_start_left(gaussian: Problem, monkeypatch: pytest.MonkeyPatch):
    def wrong(v: torch.Tensor, latents: int, _noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.3 * v[:latents].sqrt(), torch.ones_like(v[:latents])

    monkeypatch.setattr(beta_vae, "_channels", wrong)
    short = replace(VAE, steps=1)
    before = list(trace_nerd(gaussian, [1.0], replace(NERD, steps=0), Run(), vae=short))
    after = list(trace_nerd(gaussian, [1.0], replace(NERD, steps=200, rate=5e-3), Run(), vae=short))
    for a, b in zip(before, after, strict=True):
        assert b.lagrangian_bits < a.lagrangian_bits - 1


def test_a_plain_record_is_flagged_where_its_own_rate_hides_the_ceiling(gaussian: Problem):
    """At log2 N - 3 bits: held down, the plain rate alone looks far enough from log2 N."""
    settings = replace(NERD, candidates=1024, steps=0)
    flags = {}
    for beta in (0.5, 2.2):
        plain, weighed = trace_nerd(gaussian, [beta], settings, Run(seed=4), vae=VAE)
        flags[beta] = plain.saturated
        own = math.log2(1024) - plain.rate_bits < SATURATION_BITS
        assert not own
        over = plain.lagrangian_bits - weighed.lagrangian_bits
        assert plain.details["over_importance_bits"] == pytest.approx(over)
        assert plain.saturated == (
            over > CEILING_BITS or math.log2(1024) - weighed.rate_bits < SATURATION_BITS
        )
    assert flags == {0.5: False, 2.2: True}


def test_slopes_do_not_depend_on_each_other(gaussian: Problem, tmp_path: Path):
    settings, vae = replace(NERD, steps=3, candidates=64, draws=8), replace(VAE, steps=3)
    together = list(trace_nerd(gaussian, [0.5, 2.0], settings, Run(seed=3), vae=vae))
    alone = list(trace_nerd(gaussian, [2.0], settings, Run(seed=3, folder=tmp_path), vae=vae))
    again = list(trace_nerd(gaussian, [2.0], settings, Run(seed=3, folder=tmp_path), vae=vae))
    for points in (alone, again):
        assert [replace(p, seconds=0.0).as_json() for p in points] == [
            replace(p, seconds=0.0).as_json() for p in together[2:]
        ]


def test_a_bundle_keeps_its_generator_and_gets_an_encoder():
    x = torch.rand((60, 32 * 32), generator=torch.Generator().manual_seed(1))
    problem = Problem("noise", x[:40], x[40:], "mse", shape=(32, 32, 1))
    settings = replace(NERD, model="mnist", candidates=32, draws=8, steps=2)
    plain, weighed = trace_nerd(problem, [0.05], settings, Run(), vae=replace(VAE, steps=3))
    assert plain.details["generator_beta"] == pytest.approx(0.14)  # the end of what it was trained for
    assert weighed.details["generator_beta"] == plain.details["generator_beta"]
    other = Problem("short", x[:40, :5], x[40:, :5], "mse")
    with pytest.raises(InputError, match="no generator of vectors of 5 values"):
        next(trace_nerd(other, [0.4], settings, Run(), vae=VAE))


def test_with_its_prior_as_encoder_a_bundle_gives_what_the_plain_form_gives():
    """The decode of the weighed form is the proposal of the plain one."""
    from rcccodec.bundle import load_model

    stage = load_model("mnist").rungs[0].stages[0]
    proposal, plain = stage.proposal(), stage.generator.at_slope(stage.beta).float()
    x = plain(torch.randn((4, plain.latent_dim), generator=torch.Generator().manual_seed(8)))
    problem = Problem("drawn", x, x, "mse")

    def prior(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.zeros((len(rows), plain.latent_dim)),) * 2

    found = importance_sample(
        x, plain, prior, paired_distortion(problem), beta=0.02, draws=600,
        generator=torch.Generator().manual_seed(9),
    )  # fmt: skip
    direct = estimate_nerd(x, proposal, beta=0.02, num_candidates=600, seeds=(1,))
    assert isinstance(proposal, GeneratorProposal)
    assert -float(found.log_mean.mean()) / math.log(2) == pytest.approx(direct.lagrangian_bits, abs=0.15)


def test_binary_reproductions_are_refused_in_one_line():
    problem = load_problem("bernoulli:m=4", num_train=20, num_test=10)
    with pytest.raises(InputError, match="real reproductions"):
        next(trace_nerd(problem, [1.0], NERD, Run()))
