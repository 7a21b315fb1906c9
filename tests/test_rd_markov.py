"""Binary Markov sequences: critical distortion by brute force, blocks against all words, brackets."""

import math

import pytest
import torch

from rcccodec.rd import markov
from rcccodec.rd.bernoulli import bernoulli_point_at_slope, noise_at_slope
from rcccodec.rd.markov import (
    best_block,
    critical_distortion,
    endless_critical_distortion,
    entropy_rate_bits,
    lower_rate_at_distortion_bits,
    markov_bounds_at_slope,
    neighbour_bits,
    sequence_entropy_bits,
    word_masses,
)

CHAINS = [(0.25, 0.25), (0.3, 0.25), (0.05, 0.4), (0.7, 0.7), (0.6, 0.7)]


def least_mass(p: float, q: float, n: int, d: float) -> float:
    """The least mass left after dividing noise of d out of the law of n symbols, all words tried."""
    mass = word_masses(p, q, n).reshape((2,) * n)
    inverse = torch.tensor([[1 - d, -d], [-d, 1 - d]], dtype=torch.float64) / (1 - 2 * d)
    for axis in range(n):
        mass = torch.tensordot(inverse, mass, dims=([1], [axis])).movedim(0, axis)
    return float(mass.min())


@pytest.mark.parametrize(("p", "q"), CHAINS)
def test_words_have_the_chains_law(p: float, q: float) -> None:
    mass = word_masses(p, q, 5)
    assert float(mass.sum()) == pytest.approx(1)
    assert -float((mass * mass.log2()).sum()) == pytest.approx(sequence_entropy_bits(p, q, 5))
    assert float(mass[0b01101]) == pytest.approx(p / (p + q) * q * (1 - p) * p * q)
    after = word_masses(p, q, 4, after=1)
    torch.testing.assert_close(mass[16:] / mass[16:].sum(), after)
    assert sequence_entropy_bits(p, q, 5) > 5 * entropy_rate_bits(p, q)  # the first symbol costs more


@pytest.mark.parametrize(("p", "q"), CHAINS)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_critical_distortion_is_where_the_first_word_loses_its_mass(p: float, q: float, n: int) -> None:
    found = critical_distortion(p, q, n)
    assert least_mass(p, q, n, 0.999 * found) > 0
    if found < min(p, q) / (p + q) - 1e-9:
        assert least_mass(p, q, n, 1.001 * found) < 0
    assert critical_distortion(p, q, n + 1) <= found


def test_long_sequences_have_grays_critical_distortion() -> None:
    for p, q in ((0.25, 0.25), (0.45, 0.45), (0.3, 0.25), (0.05, 0.4)):
        limit = critical_distortion(p, q, 4000)
        assert endless_critical_distortion(p, q) == pytest.approx(limit, abs=1e-5)
    gray = 0.5 * (1 - math.sqrt(1 - (0.25 / 0.75) ** 2))
    assert endless_critical_distortion(0.25, 0.25) == pytest.approx(gray)
    misremembered = 0.5 * (1 - math.sqrt(1 - 0.25**2))
    assert abs(critical_distortion(0.25, 0.25, 4000) - misremembered) > 1e-3
    with pytest.raises(ValueError, match="at most 1"):
        endless_critical_distortion(0.7, 0.7)
    with pytest.raises(ValueError, match="between 0 and 1"):
        critical_distortion(0.0, 0.5, 3)


@pytest.mark.parametrize(("p", "q"), [(0.25, 0.25), (0.3, 0.25)])
def test_all_words_meet_the_lower_bound_up_to_the_critical_distortion_only(p: float, q: float) -> None:
    n = 8
    critical = critical_distortion(p, q, n)
    beta = math.log((1 - critical) / critical)
    for slope, on_it in ((1.05 * beta, True), (0.6 * beta, False)):
        solved = best_block(p, q, n, slope)
        below = lower_rate_at_distortion_bits(p, q, n, solved.distortion)
        assert solved.settled
        assert solved.rate_bits >= below - 1e-9
        assert (solved.rate_bits - below < 2e-5) is on_it
        bounds = markov_bounds_at_slope(p, q, n, slope)
        assert bounds.exact is on_it
        assert bounds.rate_bits + slope * bounds.distortion / math.log(2) == pytest.approx(
            solved.lagrangian_bits, abs=2e-5
        )


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_blocks_bracket_the_curve_of_the_whole(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    p, q, n, k = 0.3, 0.2, 10, 4
    whole = best_block(p, q, n, beta)
    bounds = markov_bounds_at_slope(p, q, n, beta, block=k)
    upper = bounds.rate_bits + beta * bounds.distortion / math.log(2)
    assert bounds.blocks == (4, 4, 2)
    assert bounds.lower_lagrangian_bits <= whole.lagrangian_bits
    assert upper >= whole.lagrangian_bits - whole.gap_bits
    finer = markov_bounds_at_slope(p, q, n, beta, block=5)
    assert finer.lower_lagrangian_bits > bounds.lower_lagrangian_bits
    # blocks that do not know the symbol before them are no lower bound, the gain taken thrice no upper one
    apart = sum(best_block(p, q, size, beta).lagrangian_bits for size in bounds.blocks)
    assert apart > whole.lagrangian_bits
    gain = apart - upper
    assert gain >= 0
    if beta == 2.0:
        monkeypatch.setattr(markov, "neighbour_bits", lambda *_: 1.5 * gain)  # of two pairs
        wrong = markov_bounds_at_slope(p, q, n, beta, block=k)
        assert wrong.rate_bits + beta * wrong.distortion / math.log(2) < whole.lagrangian_bits


def test_what_neighbouring_blocks_tell_of_each_other_is_that_of_all_pairs() -> None:
    p, q, beta = 0.3, 0.2, 1.5
    left, right = best_block(p, q, 3, beta), best_block(p, q, 2, beta)

    def channel(block: markov.BlahutArimoto, k: int) -> torch.Tensor:
        words = torch.arange(1 << k)
        bits = (words[:, None] >> torch.arange(k)) & 1
        d = (bits[:, None] != bits).sum(-1)
        return torch.softmax(block.log_mass - beta * d, 1)

    pairs = word_masses(p, q, 5).reshape(8, 4)
    joint = channel(left, 3).T @ pairs @ channel(right, 2)
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    by_hand = float((joint * (joint / product).log2()).sum())
    assert by_hand > 1e-3
    assert neighbour_bits(p, q, left, right) == pytest.approx(by_hand, rel=1e-6)


def test_a_chain_that_forgets_is_independent_bits() -> None:
    for beta in (0.5, 3.0):
        bounds = markov_bounds_at_slope(0.6, 0.4, 12, beta)
        point = bernoulli_point_at_slope(0.4, beta, 12)
        assert (bounds.rate_bits, bounds.distortion) == pytest.approx(
            (point.rate_bits, point.distortion), abs=2e-3
        )
    assert critical_distortion(0.5, 0.5, 20) == pytest.approx(0.5, abs=1e-9)
    assert noise_at_slope(900.0) == pytest.approx(0.0)
