"""The NERD estimate against closed forms and brute force, each with a control that must fail."""

import math

import numpy as np
import pytest
import torch

from rcccodec.channel import candidates_at
from rcccodec.errors import InputError
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.proposals.generator import GeneratorProposal, GeneratorSpec, build_generator
from rcccodec.randomness import standard_normals
from rcccodec.rd import nerd
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.rd.point import RatePoint

VARIANCES = 4 * np.exp(-0.5 * np.arange(5))
SOURCE = 1 << 20  # a stream of its own


def gaussian_blocks(count: int) -> torch.Tensor:
    return standard_normals(77, torch.arange(count), 5, SOURCE) * torch.tensor(np.sqrt(VARIANCES)).float()


def estimate(proposal: object, beta: float, blocks: int = 400) -> RatePoint:
    return estimate_nerd(
        gaussian_blocks(blocks), proposal, beta=beta, num_candidates=4096, seeds=(1, 2, 3, 4)
    )


def errors_away(point: RatePoint, lagrangian_bits: float) -> float:
    error = math.hypot(point.lagrangian_se_bits, point.lagrangian_se_samples_bits)
    return abs(point.lagrangian_bits - lagrangian_bits) / error


@pytest.mark.parametrize("beta", [0.3, 0.6, 1.2])
def test_the_exact_proposal_gives_the_closed_form(beta: float):
    known = gaussian_point_at_slope(VARIANCES, beta)
    point = estimate(GaussianProposal(VARIANCES, beta), beta)
    assert errors_away(point, known.rate_bits + beta * known.distortion / math.log(2)) < 3.5
    assert point.rate_bits == pytest.approx(known.rate_bits, abs=4 * point.rate_se_bits + 0.05)
    assert point.distortion == pytest.approx(known.distortion, abs=4 * point.distortion_se + 0.05)
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + beta * point.distortion / math.log(2))
    assert not point.saturated


def test_another_proposal_lies_above_the_closed_form():
    known = gaussian_point_at_slope(VARIANCES, 0.6)
    point = estimate(GaussianProposal(3 * VARIANCES, 0.6), 0.6)
    lagrangian_bits = known.rate_bits + 0.6 * known.distortion / math.log(2)
    assert point.lagrangian_bits > lagrangian_bits
    assert errors_away(point, lagrangian_bits) > 5  # the control of the test above


def brute_force(x: torch.Tensor, y: torch.Tensor, beta: float, p: float = 2) -> tuple[float, float]:
    d = np.linalg.norm(np.abs(x.double().numpy()[:, None] - y.double().numpy()), ord=p, axis=2) ** 2
    weights = np.exp(-beta * (d - d.min(1, keepdims=True)))
    lagrangian = -np.log(weights.mean(1)) + beta * d.min(1)
    distortion = (weights * d).sum(1) / weights.sum(1)
    return float(lagrangian.mean()) / math.log(2), float(distortion.mean())


@pytest.mark.parametrize(("metric", "p"), [("mse", 2), ("lp:1", 1), ("lp:3", 3)])
@pytest.mark.parametrize("chunk", [7, 64, 4096])
def test_streaming_gives_what_brute_force_gives(
    metric: str, p: float, chunk: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nerd, "default_chunk", lambda _: chunk)
    proposal, x = GaussianProposal(VARIANCES, 0.6), gaussian_blocks(9)
    point = estimate_nerd(x, proposal, beta=0.6, num_candidates=100, seeds=(5,), distortion=metric)
    y = candidates_at(proposal, torch.arange(100), seed=5)
    lagrangian_bits, distortion = brute_force(x, y, 0.6, p)
    assert point.lagrangian_bits == pytest.approx(lagrangian_bits, rel=1e-4)
    assert point.distortion == pytest.approx(distortion, rel=1e-4)
    assert point.lagrangian_bits != pytest.approx(brute_force(x, y, -0.6, p)[0], rel=0.1)  # the wrong sign


class InPixels:
    """A generator's candidates as blocks, without any coordinates."""

    def __init__(self, proposal: GeneratorProposal) -> None:
        self.inner, self.dim, self.latent_dim = proposal, proposal.block_dim, proposal.latent_dim

    def candidates(self, z: torch.Tensor) -> torch.Tensor:
        return self.inner.synthesise(self.inner.candidates(z))


class InCoordinates(InPixels):
    """The same with nothing said about what the coordinates leave out."""

    def candidates(self, z: torch.Tensor) -> torch.Tensor:
        return self.inner.candidates(z)


@pytest.fixture
def linear() -> GeneratorProposal:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        generator = build_generator(GeneratorSpec("mlp", (5,), 3, 6, 1, "linear", 2, (1.0, 1.0)))
        generator.start_from(torch.rand(5), torch.linalg.qr(torch.randn(5, 2)).Q.T, torch.tensor([9.0, 4.0]))
    return GeneratorProposal(generator.at_slope(1.0))


@pytest.mark.parametrize("metric", ["mse", "lp:1"])
def test_coordinates_are_a_way_of_counting_only(linear: GeneratorProposal, metric: str):
    x = gaussian_blocks(20)
    options = {"beta": 0.5, "num_candidates": 300, "seeds": (1, 2), "distortion": metric}
    point, direct = estimate_nerd(x, linear, **options), estimate_nerd(x, InPixels(linear), **options)
    for field in ("rate_bits", "distortion", "lagrangian_bits", "rate_se_bits", "distortion_se"):
        assert getattr(point, field) == pytest.approx(getattr(direct, field), rel=1e-3, abs=1e-4)


def test_dropping_what_the_coordinates_leave_out_would_show(linear: GeneratorProposal):
    x = gaussian_blocks(20)
    options = {"beta": 0.5, "num_candidates": 300, "seeds": (1, 2)}
    point = estimate_nerd(x, linear, **options)
    short = estimate_nerd(linear.analyse(x), InCoordinates(linear), **options)
    left_out = float((x - linear.synthesise(linear.analyse(x))).square().sum(1).mean())
    assert left_out > 1
    assert point.distortion - short.distortion == pytest.approx(left_out, rel=1e-3)
    assert point.lagrangian_bits - short.lagrangian_bits == pytest.approx(
        0.5 * left_out / math.log(2), rel=1e-3
    )
    assert point.rate_bits == pytest.approx(short.rate_bits, abs=1e-3)


def test_an_estimate_near_its_ceiling_is_flagged():
    proposal, x = GaussianProposal(VARIANCES, 3.0), gaussian_blocks(50)
    options = {"beta": 3.0, "seeds": (1,)}
    few = estimate_nerd(x, proposal, num_candidates=32, **options)
    assert few.saturated
    assert few.rate_bits <= 5 + 1e-6  # R <= log2 N whatever the source
    assert gaussian_point_at_slope(VARIANCES, 3.0).rate_bits > 5
    assert not estimate_nerd(
        x, GaussianProposal(VARIANCES, 0.3), num_candidates=1024, beta=0.3, seeds=(1,)
    ).saturated
    alone = estimate_nerd(x, proposal, num_candidates=1, **options)
    assert alone.rate_bits == pytest.approx(0, abs=1e-5)


def test_standard_errors_are_over_blocks_and_over_codebooks():
    proposal = GaussianProposal(VARIANCES, 0.6)
    one = estimate_nerd(gaussian_blocks(1), proposal, beta=0.6, num_candidates=64, seeds=(1,))
    assert math.isnan(one.rate_se_bits)
    assert math.isnan(one.lagrangian_se_samples_bits)
    seeds = (1, 2, 3, 4, 5)
    whole = estimate_nerd(gaussian_blocks(50), proposal, beta=0.6, num_candidates=64, seeds=seeds)
    parts = [
        estimate_nerd(gaussian_blocks(50), proposal, beta=0.6, num_candidates=64, seeds=(seed,))
        for seed in seeds
    ]
    means = [part.lagrangian_bits for part in parts]
    assert whole.lagrangian_bits == pytest.approx(np.mean(means))
    assert whole.lagrangian_se_samples_bits == pytest.approx(np.std(means, ddof=1) / math.sqrt(5))
    assert (whole.num_blocks, whole.num_repeats, whole.num_samples) == (50, 5, 64)


def test_stages_and_seeds_draw_other_codebooks():
    proposal, x = GaussianProposal(VARIANCES, 0.6), gaussian_blocks(10)
    options = {"beta": 0.6, "num_candidates": 64}
    first = estimate_nerd(x, proposal, seeds=(1,), **options)
    assert estimate_nerd(x, proposal, seeds=(1,), **options).rate_bits == first.rate_bits
    assert estimate_nerd(x, proposal, seeds=(1,), stage=1, **options).rate_bits != first.rate_bits
    assert estimate_nerd(x, proposal, seeds=(2,), **options).rate_bits != first.rate_bits


@pytest.mark.parametrize(
    "changes",
    [{"beta": 0.0}, {"beta": math.nan}, {"beta": math.inf}, {"seeds": ()}, {"num_candidates": 0}],
)
def test_impossible_settings_are_refused(changes: dict):
    options = {"beta": 0.6, "num_candidates": 8, "seeds": (1,)} | changes
    with pytest.raises(ValueError, match="estimate_nerd needs"):
        estimate_nerd(gaussian_blocks(2), GaussianProposal(VARIANCES, 0.6), **options)
    with pytest.raises(InputError, match="distortion 'psnr'"):
        estimate_nerd(
            gaussian_blocks(2), GaussianProposal(VARIANCES, 0.6), beta=1.0, num_candidates=8, seeds=(1,),
            distortion="psnr",
        )  # fmt: skip
