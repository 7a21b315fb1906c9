"""The simulation floor in closed form and against the Gaussian's; Blahut-Arimoto against closed forms."""

import math

import numpy as np
import pytest
import torch

from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.rd.blahut_arimoto import blahut_arimoto, evaluate_law
from rcccodec.rd.bounds import (
    divergence_bits,
    estimate_floor_excess,
    sharper_bound_bits,
    simulation_divergence_bits,
)
from rcccodec.rd.gaussian import estimate_simulation_floor_bits, gaussian_point_at_slope
from rcccodec.report import guarantee_bits


@pytest.mark.parametrize("kept", [1, 3, 64, 1000])
def test_uniform_on_a_subset_costs_the_log_of_its_share(kept: int) -> None:
    weights = torch.zeros(1, 1000)
    weights[0, torch.randperm(1000, generator=torch.Generator().manual_seed(kept))[:kept]] = 1 / kept
    expected = math.log2(1000 / kept)
    assert float(simulation_divergence_bits(weights)) == pytest.approx(expected, abs=1e-4)
    assert float(divergence_bits(weights)) == pytest.approx(expected, abs=1e-4)


def test_two_steps_by_hand_and_the_floor_lies_above_the_divergence() -> None:
    # N = 4, Q = (1/2, 1/2 spread over two, 0): ratios 2, 1, 1, 0. w = 3/4 up to h = 1, then 1/4 up to 2
    weights = torch.tensor([[0.25, 0.0, 0.5, 0.25]])
    by_hand = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert float(simulation_divergence_bits(weights)) == pytest.approx(by_hand)
    assert float(divergence_bits(weights)) == pytest.approx(0.5)
    random = torch.softmax(4 * torch.randn(50, 300, generator=torch.Generator().manual_seed(0)), dim=1)
    gap = simulation_divergence_bits(random) - divergence_bits(random)
    assert gap.min() > 0.05
    shuffled = random[:, torch.randperm(300)]
    torch.testing.assert_close(simulation_divergence_bits(shuffled), simulation_divergence_bits(random))


def test_the_floor_of_a_codebook_is_that_of_the_channel_in_closed_form() -> None:
    variances, beta = [2.0, 1.0, 0.5], 1.0
    floor, error = estimate_simulation_floor_bits(variances, beta, num_sources=4000, num_samples=4000)
    excess = floor - gaussian_point_at_slope(variances, beta).rate_bits
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(variances).sqrt()
    proposal = GaussianProposal(np.array(variances), beta)

    def found(slope: float) -> torch.Tensor:
        return estimate_floor_excess(x, proposal, beta=slope, num_candidates=20_000, seed=3)

    mine = found(beta)
    tolerance = 4 * math.hypot(error, float(mine.std()) / 20)
    assert tolerance < 0.1
    assert float(mine.mean()) == pytest.approx(excess, abs=tolerance)
    assert abs(float(found(0.1 * beta).mean()) - excess) > tolerance  # another channel, another floor


def test_the_bounds_are_in_order() -> None:
    for rate in (0.0, 0.5, 3.0, 12.0, 100.0):
        assert rate < sharper_bound_bits(rate) < guarantee_bits(rate)
    assert sharper_bound_bits(0.6) == pytest.approx(0.6 + 2 + 1)


@pytest.mark.parametrize("distortion", [0.05, 0.11, 0.3])
def test_a_fair_bit_has_one_minus_its_entropy(distortion: float) -> None:
    entropy = -distortion * math.log2(distortion) - (1 - distortion) * math.log2(1 - distortion)
    beta = math.log((1 - distortion) / distortion)
    hamming = 1 - torch.eye(2, dtype=torch.float64)
    start = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    point = blahut_arimoto(hamming, beta, tolerance_bits=1e-6, max_rounds=2000, start=start)
    assert point.settled
    assert point.distortion == pytest.approx(distortion, abs=1e-4)
    assert point.rate_bits == pytest.approx(1 - entropy, abs=1e-4)
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + beta * point.distortion / math.log(2))
    torch.testing.assert_close(point.log_mass.exp(), torch.full((2,), 0.5).double(), atol=1e-3, rtol=0)
    stopped = blahut_arimoto(hamming, beta, tolerance_bits=1e-6, max_rounds=1, start=start)
    assert not stopped.settled
    assert stopped.lagrangian_bits > point.lagrangian_bits
    assert stopped.lagrangian_bits - stopped.gap_bits <= point.lagrangian_bits


def test_a_biased_bit_has_the_difference_of_entropies() -> None:
    def entropy(p: float) -> float:
        return -p * math.log2(p) - (1 - p) * math.log2(1 - p)

    beta = math.log(0.9 / 0.1)
    source = torch.tensor([0.7, 0.3], dtype=torch.float64)
    point = blahut_arimoto(
        1 - torch.eye(2, dtype=torch.float64), beta, tolerance_bits=1e-7, max_rounds=5000, source=source
    )
    assert point.distortion == pytest.approx(0.1, abs=1e-4)
    assert point.rate_bits == pytest.approx(entropy(0.3) - entropy(0.1), abs=1e-4)


def test_samples_as_their_own_candidates_are_flattered_and_other_samples_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(300, 6, generator=generator) for _ in range(2))
    beta = 4.0
    point = blahut_arimoto(torch.cdist(train, train).square(), beta)
    exact = gaussian_point_at_slope([1.0] * 6, beta)
    ideal = exact.rate_bits + beta * exact.distortion / math.log(2)
    assert point.rate_bits < math.log2(300)
    assert point.lagrangian_bits < ideal  # fewer bits than the law itself needs: only these samples are coded
    rate, distortion = evaluate_law(torch.cdist(test, train).square(), point.log_mass, beta)
    held_out = rate + beta * distortion / math.log(2)
    assert float(held_out.mean()) > ideal
    again, d = evaluate_law(torch.cdist(train, train).square(), point.log_mass, beta)
    assert (float(again.mean()), float(d.mean())) == pytest.approx(
        (point.rate_bits, point.distortion), rel=1e-4
    )


def test_far_rows_and_steep_slopes_do_not_vanish() -> None:
    distances = torch.tensor([[500.0, 900.0], [900.0, 400.0]])
    point = blahut_arimoto(distances, 50.0)
    assert point.rate_bits == pytest.approx(1.0, abs=1e-3)
    assert point.distortion == pytest.approx(450.0)
    with pytest.raises(ValueError, match="beta"):
        blahut_arimoto(distances, 0.0)
