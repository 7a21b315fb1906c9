"""The law of the decoded y given x is the true channel over fresh seeds; plausible mistakes are noticed.

The guarantee holds for one block over a random seed, so a seed gives one sample for each of a few blocks.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rcccodec import channel
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import standard_normals
from rcccodec.rd.gaussian import gaussian_point_at_slope

VARIANCES = np.array([4.0, 2.0, 1.0, 0.3])
BETA = 1.0  # water level 0.5: 3 active components, R = 3 bits
ACTIVE = VARIANCES > 0.5
X = torch.tensor([[2.0, -1.4, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0], [-1.0, 2.5, -0.3, -0.6]])
NUM_SEEDS = 800
NUM_CANDIDATES = 1024

Choose = Callable[[Tensor, int], Tensor]


class MisprintedProposal(GaussianProposal):
    """The marginal with variance sigma^2 + lambda that a well-known misprint asks for."""

    @property
    def variances(self) -> np.ndarray:
        return np.where(ACTIVE, self.source_variances + self.water_level, 0.0)


EXACT = GaussianProposal(VARIANCES, BETA)


def simulate(coder: channel.Coder, proposal: GaussianProposal = EXACT) -> Choose:
    def choose(x: Tensor, seed: int) -> Tensor:
        chosen = channel.select_channel(
            x, proposal, beta=BETA, coder=coder, seed=seed, num_candidates=NUM_CANDIDATES
        )
        return channel.candidates_at(proposal, chosen.indices, seed=seed)

    return choose


def nearest(x: Tensor, seed: int) -> Tensor:
    chosen = channel.select_with_cost(x, EXACT, beta=BETA, cost_nats=np.zeros(NUM_CANDIDATES), seed=seed)
    return channel.candidates_at(EXACT, chosen.indices, seed=seed)


def short_of_candidates(x: Tensor, seed: int) -> Tensor:
    chosen = channel.select_channel(x, EXACT, beta=BETA, coder="pfr", seed=seed, num_candidates=8)
    return channel.candidates_at(EXACT, chosen.indices, seed=seed)


def p_values(choose: Choose) -> list[float]:
    """Per block, whitened by the true channel: each component's law, the joint radius, the correlations."""
    y = torch.stack([choose(X, 10_000 + seed) for seed in range(NUM_SEEDS)]).numpy()  # (seeds, blocks, m)
    assert (y[:, :, ~ACTIVE] == 0).all()
    shrink = 1 - 0.5 / VARIANCES[ACTIVE]
    mean = X.numpy()[:, ACTIVE] * shrink
    white = (y[:, :, ACTIVE] - mean) / np.sqrt(0.5 * shrink)
    results = []
    for block in range(len(X)):
        w = white[:, block]
        results += [stats.kstest(w[:, k], "norm").pvalue for k in range(w.shape[1])]
        results.append(stats.kstest((w**2).sum(axis=1), "chi2", args=(w.shape[1],)).pvalue)
        gram = (w.T @ w)[np.triu_indices(w.shape[1], 1)] / np.sqrt(len(w))
        results.append(stats.chi2.sf((gram**2).sum(), gram.size))
    return [float(p) for p in results]


@pytest.mark.parametrize("coder", ["pfr", "orc"])
def test_the_decoded_law_is_the_true_channel(coder: channel.Coder) -> None:
    values = p_values(simulate(coder))
    assert min(values) > 1e-3 / len(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "mistake",
    [simulate("pfr", MisprintedProposal(VARIANCES, BETA)), nearest, short_of_candidates],
    ids=["misprinted_marginal", "nearest_candidate", "too_few_candidates"],
)
def test_mistakes_change_the_law_and_are_noticed(mistake: Choose) -> None:
    assert min(p_values(mistake)) < 1e-6


@pytest.mark.parametrize(("choose", "on_the_curve"), [(simulate("pfr"), True), (nearest, False)])
def test_the_distortion_is_that_of_the_curve_and_a_nearest_search_is_off_it(
    choose: Choose, on_the_curve: bool
) -> None:
    """Mean of d(x, y) - E[d | x]: its mean is zero for the true channel, and E of E[d | x] is D(beta)."""
    spread = torch.tensor(VARIANCES)
    pull = torch.where(
        spread > 0.5, 0.5 / spread, 1.0
    )  # y | x has mean (1 - pull) x and variance 0.5 (1 - pull)
    assert float((pull**2 * spread + 0.5 * (1 - pull)).sum()) == pytest.approx(
        gaussian_point_at_slope(VARIANCES, BETA).distortion
    )
    gaps = []
    for seed in range(60):
        x = standard_normals(seed, torch.arange(100), 4, 90) * spread.sqrt()
        expected = (pull**2 * x**2 + 0.5 * (1 - pull)).sum(dim=1)
        gaps.append(float((channel.squared_distances(x, choose(x, seed)) - expected).mean()))
    error = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    assert (abs(np.mean(gaps)) < 3.5 * error) == on_the_curve
    assert error < 0.05
