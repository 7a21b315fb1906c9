"""The fitted code: its grid, the Kraft sum for every N, what fitting keeps and what it costs."""

import math
from itertools import pairwise

import numpy as np
import pytest

from rcccodec.errors import ModelError
from rcccodec.index_code import FittedCode
from rcccodec.index_code.fitted import NUM_CLASSES, class_sizes, class_starts, fit


def draw_indices(num_candidates: int, count: int, seed: int = 0) -> np.ndarray:
    """Indices whose logarithm is spread evenly, as those of a channel simulation roughly are."""
    exponents = np.random.default_rng(seed).uniform(0, math.log2(num_candidates + 1), count)
    return np.minimum(np.exp2(exponents).astype(np.int64), num_candidates) - 1


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 6, 7, 1000, 30000, 1 << 16, 1 << 20])
def test_fitted_code_kraft_sum_is_one_for_any_number_of_candidates(num_candidates: int) -> None:
    frequencies = fit(draw_indices(30000, 2000), num_candidates=30000)
    code = FittedCode(frequencies, num_candidates)
    starts, sizes = class_starts(num_candidates), class_sizes(num_candidates)
    assert int(sizes.sum()) == num_candidates
    assert starts[0] == 0
    assert (sizes > 0).all()
    assert float((sizes * np.exp2(-code.lengths_bits(starts))).sum()) == pytest.approx(1, abs=1e-12)


def test_class_starts_are_rounded_powers_of_the_square_root_of_two() -> None:
    assert class_starts(1 << 24).tolist() == sorted({0, *(round(2 ** (j / 2)) for j in range(48))})
    assert class_starts(10).tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert class_sizes(10).tolist() == [1, 1, 1, 1, 2, 2, 2]
    assert len(class_starts(1 << 40)) == NUM_CLASSES == 80


@pytest.mark.parametrize("log2_candidates", [0, 1, 5, 16, 22, 40])
def test_a_power_of_two_cuts_no_class(log2_candidates: int) -> None:
    num_candidates = 1 << log2_candidates
    sizes = class_sizes(num_candidates)
    assert sizes.tolist() == class_sizes(1 << 40)[: len(sizes)].tolist()


def test_a_sliver_of_a_class_does_not_swallow_the_table() -> None:
    frequencies = fit(np.array([0, 1, 2, 3, 1024]), num_candidates=1025)
    assert max(frequencies) < 1 << 15


def test_fitted_code_costs_little_more_than_the_histogram_it_was_learnt_from() -> None:
    num_candidates = 30000
    training, held_out = (
        draw_indices(num_candidates, 4000, seed=1),
        draw_indices(num_candidates, 4000, seed=2),
    )
    code = FittedCode(fit(training, num_candidates=num_candidates), num_candidates)
    # The law of draw_indices: K has mass proportional to log2(1 + 1/K).
    k = held_out + 1.0
    ideal_bits = -np.log2(np.log2(1 + 1 / k) / math.log2(num_candidates + 1)).mean()
    assert code.lengths_bits(held_out).mean() < ideal_bits + 0.05
    other = FittedCode(fit(training // 8, num_candidates=num_candidates), num_candidates)
    assert other.lengths_bits(held_out).mean() > ideal_bits + 0.05  # a wrong table is seen to be wrong


def test_fit_keeps_a_falling_tail_for_what_it_never_saw() -> None:
    frequencies = fit(np.array([0, 1, 5, 5, 9, 40] * 50), num_candidates=1 << 16)
    assert sum(frequencies) == 1 << 16
    assert min(frequencies) >= 1
    last_seen = int(np.searchsorted(class_starts(1 << 16), 40, side="right")) - 1
    tail = frequencies[last_seen + 1 :]
    assert all(a >= b for a, b in pairwise(tail))
    assert sum(tail) < 0.01 * (1 << 16)


def test_fit_allows_for_the_class_that_the_search_cut() -> None:
    indices = np.arange(1250).repeat(3)  # uniform over N = 1250, which cuts the class of 1024..1447
    code = FittedCode(fit(indices, num_candidates=1250), 1250)
    assert code.lengths_bits(np.array([1249]))[0] == pytest.approx(math.log2(1250), abs=0.1)


@pytest.mark.parametrize("frequencies", [[], [1] * NUM_CLASSES, [0, 2, *[1] * 77, 65536 - 79], [65536]])
def test_fitted_code_refuses_a_damaged_table(frequencies: list[int]) -> None:
    with pytest.raises(ModelError):
        FittedCode(frequencies, 100)


def test_fit_refuses_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no indices"):
        fit(np.array([], dtype=np.int64), num_candidates=10)
