"""Energy-based estimates against closed forms and enumeration, each with a control that must fail."""

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rcccodec.errors import InputError
from rcccodec.rd import dba, langevin, partition, rd_gen
from rcccodec.rd import run as run_module
from rcccodec.rd.dba import trace_dba
from rcccodec.rd.discriminator import information_nats
from rcccodec.rd.energy import Energy, build_energy, integrate, pair_distance
from rcccodec.rd.langevin import diffuse, move, place
from rcccodec.rd.partition import Annealed, anneal
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.rd_gen import trace_rd_gen
from rcccodec.rd.run import Run
from rcccodec.rd.settings import EnergySettings

LN2 = math.log(2)
GAUSSIAN = "gaussian:m=1,decay=0,variance=1"
TINY = EnergySettings(
    width=16, discriminator=16, steps=150, batch=64, rate=1e-2, langevin=5, distributions=60, burn=60
)


def gaussian(count: int = 400) -> Problem:
    return load_problem(GAUSSIAN, num_train=count, num_test=count)


def binary(spec: str = "bernoulli:p=0.3", count: int = 400) -> Problem:
    return load_problem(spec, num_train=count, num_test=count)


def parabola(variance: float) -> Energy:
    """E = y^2 / (2 variance), the optimal energy of a Gaussian source of variance + lambda."""
    energy = Energy(torch.zeros(1), torch.ones(1), 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        energy.wall.fill_(-60)
        energy.curve.fill_(math.log(math.expm1(1 / variance)))
    return energy


def random_energy(problem: Problem, seed: int = 0) -> Energy:
    generator = torch.Generator().manual_seed(seed)
    energy = build_energy(problem, 8, generator)
    with torch.no_grad():
        energy.pairs.normal_(0, 0.7, generator=generator)
        energy.network[-1].weight.normal_(0, 1, generator=generator)
    return energy


@pytest.mark.parametrize("distortion", ["mse", "l1", "lp:3"])
def test_pair_distance_is_the_diagonal_of_the_distance(distortion: str):
    problem = load_problem("gaussian:m=5", distortion=distortion, num_train=20, num_test=10)
    x, y = problem.train[:10], problem.test
    torch.testing.assert_close(pair_distance(problem, x, y), problem.distance(x, y).diagonal())
    letters = binary("markov:n=7", 20)
    x, y = letters.train, letters.test
    torch.testing.assert_close(pair_distance(letters, x, y), letters.distance(x, y).diagonal())


# --- the energy, by quadrature and enumeration ---


def test_the_optimal_energy_integrates_to_the_closed_form():
    problem, beta = gaussian(1000), 2.0
    found = integrate(problem, parabola(0.75), beta, problem.test)
    power = float(problem.test.square().mean())  # of these vectors; the channel is y = 0.75 x + N(0, 0.1875)
    d = power / 16 + 0.1875
    rate = 0.5 * math.log(4) + (power * 0.5625 + 0.1875) / 1.5 - 0.5
    assert float(found.distortion.mean()) == pytest.approx(d, abs=1e-5)
    assert float(found.lagrangian_nats.mean()) == pytest.approx(rate + beta * d, abs=1e-5)


def test_another_energy_has_a_larger_lagrangian():
    problem = gaussian(1000)
    best, other = (integrate(problem, parabola(v), 2.0, problem.test).lagrangian_nats for v in (0.75, 1.5))
    assert float((other - best).mean()) > 0.02


def test_contrast_has_the_gradient_of_the_lagrangian():
    problem, beta = binary("markov:n=3"), 1.3
    words = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    energy, x = random_energy(problem).double(), problem.test[:50].double()
    log_law = -energy(words)
    log_channel = log_law - beta * problem.distance(x, words)
    lagrangian = (log_law.logsumexp(0) - log_channel.logsumexp(1)).mean()
    expected = torch.autograd.grad(lagrangian, list(energy.parameters()), retain_graph=True)
    law, channel = log_law.softmax(0).detach(), log_channel.softmax(1).mean(0).detach()
    counts = 200_000  # samples in proportion, so that the means of `contrast` are exact but for rounding
    samples = [words.repeat_interleave((w * counts).round().long(), 0) for w in (channel, law)]
    found = torch.autograd.grad(dba.contrast(energy, *samples), list(energy.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2)
    turned = torch.autograd.grad(dba.contrast(energy, *samples[::-1]), list(energy.parameters()))
    assert not torch.allclose(turned[2], expected[2], atol=1e-2)


# --- chains ---


def variance_after(moves: int, step: float, *, adjusted: bool, noise: float = 1.0) -> float:
    """Of chains of the law N(0, 0.75), from draws of it."""
    problem, energy, generator = gaussian(), parabola(0.75), torch.Generator().manual_seed(1)
    y = math.sqrt(0.75) * torch.randn(4000, 1, generator=generator)
    b, steps = torch.zeros(len(y)), torch.full((len(y),), step)
    here = place(problem, energy, y, y)
    for _ in range(moves):
        if adjusted:
            here, _ = move(problem, energy, y, here, b, steps, generator)
        else:
            here = diffuse(problem, energy, y, here, b, step, generator, noise)
    return float(here.y.var())


def test_moves_keep_the_law_and_unadjusted_or_noiseless_ones_do_not():
    tolerance = 4 * 0.75 * math.sqrt(2 / 4000)
    assert variance_after(60, 0.8, adjusted=True) == pytest.approx(0.75, abs=tolerance)
    assert abs(variance_after(60, 0.8, adjusted=False) - 0.75) > 2 * tolerance
    assert variance_after(200, 0.01, adjusted=False) == pytest.approx(0.75, abs=tolerance)
    assert variance_after(200, 0.01, adjusted=False, noise=0.0) < 0.1


def test_the_channel_is_reached_from_far_away():
    problem, energy, generator = gaussian(), parabola(0.75), torch.Generator().manual_seed(2)
    x = torch.full((2000, 1), 1.5)
    here = place(problem, energy, x, torch.full((2000, 1), -2.0))
    for _ in range(150):
        here, _ = move(
            problem, energy, x, here, torch.full((2000,), 2.0), torch.full((2000,), 0.4), generator
        )
    assert float(here.y.mean()) == pytest.approx(0.75 * 1.5, abs=4 * math.sqrt(0.1875 / 2000))
    assert float(here.y.var()) == pytest.approx(0.1875, abs=4 * 0.1875 * math.sqrt(2 / 2000))


def chi_squared_of_words(b: float, step: float) -> float:
    """Chains over three letters against the enumerated law of the channel; 7 degrees of freedom."""
    problem = binary("markov:n=3")
    energy, generator = random_energy(problem, 3), torch.Generator().manual_seed(4)
    words = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    x = torch.tensor([[0.0, 1.0, 1.0]]).repeat(4000, 1)
    with torch.no_grad():
        law = (-energy(words) - b * problem.distance(x[:1], words)[0]).softmax(0)
    here = place(problem, energy, x, words[torch.randint(8, (4000,), generator=generator)])
    for _ in range(60):
        here, _ = move(problem, energy, x, here, torch.full((4000,), b), torch.full((4000,), step), generator)
    counts = (here.y[:, None] == words).all(2).sum(0)
    return float(((counts - 4000 * law).square() / (4000 * law)).sum())


@pytest.mark.parametrize("b", [0.0, 1.2])
def test_flips_of_letters_have_the_enumerated_law(b: float):
    assert chi_squared_of_words(b, 2.0) < 30


def test_flips_that_are_all_accepted_have_another_law(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(langevin, "_accept", lambda _here, there, _log, _generator: there)
    assert chi_squared_of_words(1.2, 2.0) > 100


# --- annealing ---


def annealed(beta: float = 2.0) -> tuple[Annealed, float]:
    """Of the optimal energy, and the true mean Lagrangian of the same vectors."""
    problem, energy = gaussian(), parabola(0.75)
    found = anneal(
        problem, energy, beta, problem.test, problem.train, distributions=200, chains=2, burn=150,
        steps=(0.5, 0.5), generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    return found, float(integrate(problem, energy, beta, problem.test).lagrangian_nats.mean())


def test_annealing_encloses_the_lagrangian():
    found, true = annealed()
    assert float(found.reverse_nats.mean()) - 0.02 < true < float(found.lagrangian_nats.mean()) + 0.02
    assert float(found.middle_nats.mean()) == pytest.approx(true, abs=0.06)
    assert float((found.lagrangian_nats - found.reverse_nats).mean()) < 0.3


@pytest.mark.parametrize("broken", ["noise", "sign"])
def test_annealing_without_noise_or_against_the_distance_is_off(broken: str, monkeypatch: pytest.MonkeyPatch):
    if broken == "noise":
        monkeypatch.setattr(langevin, "_normal", lambda shape, _generator, _device: torch.zeros(shape))
        monkeypatch.setattr(langevin, "_differences", lambda _p, rows, _g, _d: torch.zeros(rows, 1))
    else:
        honest = partition.move
        monkeypatch.setattr(
            partition, "move", lambda p, e, x, here, b, s, g: honest(p, e, x, here, -0.2 * b, s, g)
        )
    found, true = annealed()
    assert abs(float(found.middle_nats.mean()) - true) > 0.12


# --- the discriminator ---


class Score(nn.Module):
    """T = 1 + scale ln p(y|x) / p(y) of y = 0.75 x + N(0, 0.1875), x ~ N(0, 1)."""

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        ratio = -((y - 0.75 * x) ** 2) / 0.375 + y**2 / 1.5 + 0.5 * math.log(4)
        return (1 + self.offset + self.scale * ratio).squeeze(1)


def test_the_bound_is_tight_for_the_log_ratio_alone():
    generator = torch.Generator().manual_seed(6)
    x, noise, other = torch.randn(3, 20_000, 1, generator=generator)
    y, marginal = 0.75 * x + math.sqrt(0.1875) * noise, math.sqrt(0.75) * other
    best = float(information_nats(Score(1.0), x, y, marginal, 8))
    assert best == pytest.approx(math.log(2), abs=0.02)
    for score in (Score(0.3), Score(1.0, 0.7), Score(1.0, -0.7)):
        assert float(information_nats(score, x, y, marginal, 8)) < best - 0.1
    assert float(information_nats(Score(1.0), x, x * 0, marginal, 8)) < best - 0.1  # not the joint law


def test_above_the_ceiling_the_exponential_goes_on_as_a_line():
    class Constant(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x.squeeze(1)

    x = torch.full((4, 1), 9.0)  # T - 1 = 8, 3 above
    found = float(information_nats(Constant(), x, x, x, 2, ceiling=5.0))
    assert found == pytest.approx(9 - math.exp(5) * 4)
    assert float(information_nats(Constant(), x, x, x, 2)) == pytest.approx(9 - math.exp(8))


# --- the whole estimator ---


def single(
    problem: Problem, beta: float, settings: EnergySettings = TINY, run: Run | None = None
) -> RatePoint:
    return next(trace_dba(problem, [beta], settings, run or Run()))


def untimed(point: RatePoint) -> dict[str, object]:
    return replace(point, seconds=0.0).as_json()


def bernoulli_excess_bits(point: RatePoint, problem: Problem, beta: float) -> float:
    """Lagrangian of the learnt channel, enumerated, over the least one for these test vectors."""
    noise = 1 / (1 + math.exp(beta))
    p = float(problem.test.mean())
    rate = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    rate += noise * math.log2(noise) + (1 - noise) * math.log2(1 - noise)
    learnt = point.details["quadrature_rate_bits"] + beta * point.details["quadrature_distortion"] / LN2
    return learnt - rate - beta * noise / LN2


def test_a_bernoulli_source_is_learnt_and_measured():
    problem, beta = binary(), 1.5
    point = single(problem, beta)
    assert -1e-6 < bernoulli_excess_bits(point, problem, beta) < 0.02
    assert point.rate_bits == pytest.approx(point.details["quadrature_rate_bits"], abs=0.05)
    assert point.distortion == pytest.approx(point.details["quadrature_distortion"], abs=0.03)
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + beta * point.distortion / LN2)
    assert (point.method, point.kind, point.num_blocks) == ("dba", "estimate", 400)


def test_the_contrast_turned_round_learns_the_worst(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dba, "contrast", lambda e, channel, law: e(law).mean() - e(channel).mean())
    problem = binary()
    assert bernoulli_excess_bits(single(problem, 1.5), problem, 1.5) > 0.05


def test_a_channel_that_ignores_the_source_has_no_rate(monkeypatch: pytest.MonkeyPatch):
    problem = binary("bernoulli:p=0.5")
    monkeypatch.setattr(langevin, "pair_distance", lambda _problem, x, y: 0 * (x + y).sum(-1))
    settings = replace(TINY, rate=3e-2, distributions=10)
    assert abs(single(problem, 2.0, settings).details["discriminator_bits"]) < 0.06
    monkeypatch.undo()
    assert single(problem, 2.0, settings).details["discriminator_bits"] > 0.3


def test_a_gaussian_source_is_within_a_tenth_of_a_bit():
    point = single(gaussian(1000), 2.0, replace(TINY, distributions=150, burn=100))
    excess = point.rate_bits + 0.5 * math.log2(point.distortion)
    assert abs(excess) < 0.1
    assert point.details["quadrature_rate_bits"] + 0.5 * math.log2(
        point.details["quadrature_distortion"]
    ) == pytest.approx(0, abs=0.1)


def test_short_chains_from_elsewhere_miss_the_law():
    problem = gaussian()
    paper = replace(TINY, adjusted=False, langevin=3, step=1e-3, steps=5)
    point = single(problem, 8.0, paper)
    assert point.distortion > 4 * point.details["quadrature_distortion"]
    assert point.rate_bits == pytest.approx(point.details["discriminator_bits"])


def test_slopes_do_not_depend_on_each_other():
    problem, settings = binary(), replace(TINY, steps=4, burn=4, distributions=4)
    both = list(trace_dba(problem, [0.7, 2.0], settings, Run(seed=3)))
    alone = single(problem, 2.0, settings, Run(seed=3))
    assert untimed(both[1]) == untimed(alone)
    assert untimed(single(problem, 2.0, settings, Run(seed=4))) != untimed(alone)


@pytest.mark.parametrize("trace", [trace_dba, trace_rd_gen])
def test_stopped_and_resumed_it_ends_the_same(trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    problem, settings = gaussian(), replace(TINY, steps=8, burn=4, distributions=4)
    monkeypatch.setattr(run_module, "CHECKPOINT_EVERY_S", 0.0)

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(trace(problem, [1.0], settings, Run(folder=tmp_path, progress=stop)))
    steps: list[int] = []
    run = Run(folder=tmp_path, progress=lambda _what, done, _total: steps.append(done))
    resumed = next(trace(problem, [1.0], settings, run))
    assert steps[0] == 5  # the fifth was not saved
    assert untimed(resumed) == untimed(next(trace(problem, [1.0], settings, Run())))


def test_what_does_not_fit_is_refused():
    letters = replace(binary(), distortion="lp:3")
    with pytest.raises(InputError, match="sum over letters"):
        single(letters, 1.0)
    with pytest.raises(InputError, match="lp:inf"):
        single(replace(gaussian(), distortion="lp:inf"), 1.0)
    with pytest.raises(InputError, match="l1"):
        single(binary(), 1.0, replace(TINY, adjusted=False))
    with pytest.raises(InputError, match="alphabet"):
        next(trace_rd_gen(binary(), [1.0], TINY, Run()))


# --- RD-GEN ---


def game_excess_bits() -> float:
    settings = replace(TINY, steps=240, batch=128, rate=6e-3, width=32, discriminator=32)
    point = next(trace_rd_gen(gaussian(1000), [1.0], settings, Run()))
    assert (point.method, point.kind) == ("rd-gen", "estimate")
    return abs(point.rate_bits + 0.5 * math.log2(point.distortion))


def test_the_game_comes_near_the_closed_form():
    assert game_excess_bits() < 0.15


def test_the_game_without_a_discriminator_does_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rd_gen, "_CLIMBS", 0)
    assert game_excess_bits() > 0.3


# --- the bench ---


def test_references_of_the_bench_enclose_and_agree(monkeypatch: pytest.MonkeyPatch):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
    import rd_dba

    monkeypatch.setattr(rd_dba, "BLOCK", 5)  # a block costs at most the start's surplus of (1 - h(q)) / 5
    low, high = rd_dba.reference("markov:n=100,p=0.25,q=0.25", "hamming")
    assert all(0 < high(d) - low(d) < (1 - rd_dba.entropy_bits(0.25)) / 5 + 0.002 for d in (0.02, 0.04))
    assert high(0.2) > low(0.2)
    rate, _ = rd_dba.reference("laplacian:b=1", "mse")
    shannon = math.log2(2 * math.e) - 0.5 * math.log2(2 * math.pi * math.e * 0.05)
    assert 0 < rate(0.05) - shannon < 0.01
    tasks = rd_dba.tasks(2)
    assert len(set(tasks)) == len(tasks)
