"""The trellis: when dimensions are read, the law of what is read, the best path, and how near R(D) it is."""

import hashlib
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rcccodec.container import MAX_LOG2_STATES
from rcccodec.latent import trellis
from rcccodec.latent.trellis import GAIN_ONE, SLOTS, Schedule, schedule, search, shrinkage, values

Terms = tuple[np.ndarray, np.ndarray]


def some_terms(count: int, seed: int) -> Terms:
    """linear, quadratic of posteriors of several widths."""
    random = np.random.default_rng(seed)
    quadratic = random.uniform(0, 4, count).astype(np.float32)
    return (3 * random.standard_normal(count)).astype(np.float32), quadratic


def cost_of(terms: Terms, z: np.ndarray) -> float:
    linear, quadratic = (part.astype(np.float64) for part in terms)
    return float((quadratic * z.astype(np.float64) ** 2 + linear * z).sum())


def found_cost(terms: Terms, when: Schedule, log2_states: int, seed: int) -> float:
    (bits,) = search([terms[0]], [terms[1]], [when], log2_states=log2_states, seed=seed)
    return cost_of(terms, values(bits, when, log2_states=log2_states, seed=seed))


def labels_of(log2_states: int, seed: int, slots: int) -> np.ndarray:
    """The labels of all half-states, (slots, 2^(L-1))."""
    k = torch.arange(1 << (log2_states - 1))
    return np.stack(
        [trellis._labels_at(k, torch.full_like(k, s), log2_states, seed).numpy() for s in range(slots)]
    )


def heavy_cdf(z: np.ndarray) -> np.ndarray:
    """Of u (1 + u^2 / 16) scaled to variance 1, u a standard normal."""
    u = np.linspace(-6, 6, 20_001)
    return np.interp(z, (u + u**3 / 16) / math.sqrt(1 + 6 / 16 + 15 / 256), stats.norm.cdf(u))


rate_lists = st.lists(st.integers(0, 9000) | st.sampled_from([0, 1, 64_000]), min_size=1, max_size=200)


@settings(deadline=None)
@given(rate_lists, st.integers(1, 255))
def test_dimensions_are_read_when_half_their_rate_has_come_in(rates: list[int], gain: int) -> None:
    when = schedule(np.array(rates, np.int64), gain)
    spent, exact = Fraction(0), []
    for rate in rates:
        own = Fraction(rate * gain, 1000 * GAIN_ONE)
        exact.append(math.floor(spent + own / 2) + 1)
        spent += own
    assert when.num_bits == math.ceil(spent)
    assert when.places.tolist() == [min(n, when.num_bits) for n in exact]
    assert when.places.dtype == when.slots.dtype == np.int64  # no float on the way
    assert (np.diff(when.places) >= 0).all()
    assert when.num_bits == 0 or 1 <= when.places[0] <= when.places[-1] <= when.num_bits
    for place in set(when.places.tolist()):
        mine = when.slots[when.places == place]
        assert mine.tolist() == [i % SLOTS for i in range(len(mine))]


@settings(deadline=None)
@given(rate_lists, st.integers(1, 254))
def test_a_larger_gain_takes_no_fewer_bits(rates: list[int], gain: int) -> None:
    array = np.array(rates, np.int64)
    assert schedule(array, gain).num_bits <= schedule(array, gain + 1).num_bits
    assert schedule(array, GAIN_ONE).num_bits == -(-sum(rates) // 1000)


def test_large_rates_are_summed_exactly() -> None:
    rates = np.full(81_920, 64_000, np.int64)
    when = schedule(rates, 255)
    assert when.num_bits == -(-81_920 * 64_000 * 255 // (1000 * GAIN_ONE))
    assert when.places[-1] == when.num_bits - 127  # half of 255 bits before the end


def test_nothing_to_send_is_no_bit() -> None:
    for rates in (np.empty(0, np.int64), np.zeros(5, np.int64)):
        when, zeros = schedule(rates), np.zeros(len(rates), np.float32)
        (bits,) = search([zeros], [zeros], [when], log2_states=6, seed=1)
        assert when.num_bits == len(bits) == 0
    assert values(bits, schedule(np.empty(0, np.int64)), log2_states=6, seed=1).shape == (0,)


@pytest.mark.parametrize(
    "rates",
    [
        [1000] * 8,  # a dimension a step
        [300, 0, 250, 0, 450, 1200, 100, 100, 100, 2500, 90, 30, 1900, 900],  # several, and steps without one
        [10] * 850,  # more than there are slots
        [8500],
    ],
    ids=["even", "uneven", "many", "one"],
)
@pytest.mark.parametrize("log2_states", [2, 3, 5])
def test_the_path_found_is_the_best_of_all(rates: list[int], log2_states: int) -> None:
    when = schedule(np.array(rates, np.int64))
    assert 8 <= when.num_bits <= 9
    for seed in range(3):
        terms = some_terms(len(rates), seed)
        paths = np.array(list(product((0, 1), repeat=when.num_bits)), np.uint8)
        made = every_value(paths, when, log2_states, seed)
        for some in (0, 77, len(paths) - 1):
            z = values(paths[some], when, log2_states=log2_states, seed=seed)
            assert np.array_equal(z, made[some])
        costs = [cost_of(terms, z) for z in made]
        assert found_cost(terms, when, log2_states, seed) == pytest.approx(min(costs), abs=1e-4)
        assert min(costs) < np.median(costs) - 0.1  # else any path would do


def every_value(paths: np.ndarray, when: Schedule, log2_states: int, seed: int) -> np.ndarray:
    """z of every path, from the definition: (paths, n)."""
    codebook = labels_of(log2_states, seed, SLOTS).T
    columns = []
    for place, slot, sign in zip(
        when.places, when.slots, trellis._signs(len(when.places), seed), strict=True
    ):
        register = np.zeros(len(paths), np.int64)
        for bit in range(place):
            register = (2 * register + paths[:, bit]) % (1 << log2_states)
        columns.append(sign * np.where(register & 1, -1, 1) * codebook[register >> 1, slot])
    return np.stack(columns, 1).astype(np.float32)


def test_the_cost_minimised_is_the_cost_of_what_a_decoder_makes(monkeypatch) -> None:
    least, trace = [], trellis._trace

    def spy(cost, *rest) -> None:
        least.append(float(cost.amin()))
        trace(cost, *rest)

    monkeypatch.setattr(trellis, "_trace", spy)
    for seed in range(4):
        terms, when = some_terms(200, seed), schedule(np.full(200, 700, np.int64), 70)
        assert found_cost(terms, when, 6, seed) == pytest.approx(least[-1], rel=1e-4)
    assert len(least) == 4


def test_paths_begin_with_zeros_in_the_register() -> None:
    when = schedule(np.full(12, 1000, np.int64))
    zeros = np.zeros(12, np.uint8)
    z = values(zeros, when, log2_states=8, seed=5)
    assert np.abs(z).tolist() == [abs(float(labels_of(8, 5, 1)[0, 0]))] * 12
    first = zeros.copy()
    first[0] = 1  # the highest bit that the first dimension sees is a zero, its lowest this one
    changed = values(first, when, log2_states=8, seed=5)
    assert changed[0] == -z[0]
    assert (changed[1:8] != z[1:8]).all()
    assert (changed[8:] == z[8:]).all()  # and L bits on it is forgotten


def test_siblings_are_antipodal() -> None:
    when = schedule(np.array([400, 300, 300, 900, 1000, 300, 300, 100, 100], np.int64))
    bits = np.array([1, 0, 1, 1], np.uint8)
    last = when.places == 4
    assert 2 <= last.sum() < len(last)
    z, flipped = (
        values(b, when, log2_states=7, seed=2) for b in (bits, bits ^ np.array([0, 0, 0, 1], np.uint8))
    )
    assert np.array_equal(flipped[last], -z[last])
    assert np.array_equal(flipped[~last], z[~last])


def test_over_seeds_what_any_bits_say_follows_the_law_of_labels_and_what_a_search_finds_does_not() -> None:
    when, random = schedule(np.full(30, 600, np.int64)), np.random.default_rng(1)
    common = {"log2_states": 9}
    blind, sought = [], []
    for seed in range(150):
        bits = random.integers(0, 2, when.num_bits).astype(np.uint8)
        blind.append(values(bits, when, seed=seed, **common))
        ones, zeros = np.ones(30, np.float32), np.zeros(30, np.float32)
        (bits,) = search([zeros], [ones], [when], seed=seed, **common)
        sought.append(values(bits, when, seed=seed, **common))
    assert stats.kstest(np.concatenate(blind), heavy_cdf).pvalue > 1e-2
    assert stats.kstest(np.concatenate(sought), heavy_cdf).pvalue < 1e-9
    both = np.stack(blind)
    correlations = np.corrcoef(both.T)[np.triu_indices(30, 1)] * math.sqrt(len(both))
    assert stats.kstest(correlations, "norm").pvalue > 1e-3  # nor do they say anything of each other


@pytest.mark.parametrize("log2_states", [6, 12, 18])
def test_the_labels_of_every_slot_are_the_same_quantiles_in_another_order(log2_states: int) -> None:
    labels = labels_of(log2_states, 9, 4)
    assert labels.dtype == np.float32
    assert (np.sort(labels, 1) == np.sort(labels[0])).all()
    assert (np.sort(labels[0]) == np.sort(labels_of(log2_states, 10, 1)[0])).all()
    assert not np.array_equal(labels[0], labels_of(log2_states, 10, 1)[0])
    both = np.concatenate([labels[0], -labels[0]])
    assert both.var() == pytest.approx(1, abs=0.2 if log2_states == 6 else 0.02)
    assert stats.kstest(both, heavy_cdf).statistic < 1.5 / len(labels[0])
    assert np.abs(np.corrcoef(labels)[np.triu_indices(4, 1)]).max() < 5 / math.sqrt(labels.shape[1])


def test_tiles_do_not_depend_on_each_other() -> None:
    sizes = [(30, 900), (200, 40), (400, 800), (1, 3000), (0, 1), (90, 2500)]
    whens = [schedule(np.full(n, rate, np.int64), 60 + n % 9) for n, rate in sizes]
    terms = [some_terms(n, n) for n, _ in sizes]
    common = {"log2_states": 6, "seed": 4}
    together = search([a for a, _ in terms], [b for _, b in terms], whens, **common)
    for (linear, quadratic), when, bits in zip(terms, whens, together, strict=True):
        assert len(bits) == when.num_bits
        assert search([linear], [quadratic], [when], **common)[0].tolist() == bits.tolist()


def test_nor_on_how_many_are_searched_at_once(monkeypatch) -> None:
    whens = [schedule(np.full(n, 800, np.int64)) for n in (50, 300, 120)]
    terms = [some_terms(n, n) for n in (50, 300, 120)]
    common = {"log2_states": 6, "seed": 4}
    expected = search([a for a, _ in terms], [b for _, b in terms], whens, **common)
    monkeypatch.setattr(trellis, "_STATES_AT_ONCE", 128)
    monkeypatch.setattr(trellis, "_SCORES_BYTES", 3000)
    found = search([a for a, _ in terms], [b for _, b in terms], whens, **common)
    assert [b.tolist() for b in found] == [b.tolist() for b in expected]


def test_a_window_as_long_as_ours_loses_nothing_and_one_too_short_does(monkeypatch) -> None:
    terms, when = some_terms(3000, 9), schedule(np.full(3000, 700, np.int64))
    cost = {}
    for window in (1, 6, ours := trellis._WINDOW, 1000):
        monkeypatch.setattr(trellis, "_WINDOW", window)
        cost[window] = found_cost(terms, when, 5, 1)
    whole = cost[1000]
    assert cost[ours] == pytest.approx(whole, rel=1e-6)
    assert cost[6] == pytest.approx(whole, rel=1e-2)
    assert cost[1] > whole + 0.01 * abs(whole)


def test_progress_is_told_of_every_bit() -> None:
    whens = [schedule(np.full(n, 800, np.int64)) for n in (50, 300)]
    terms, told = [some_terms(n, n) for n in (50, 300)], []
    search([a for a, _ in terms], [b for _, b in terms], whens, log2_states=6, seed=4, progress=told.append)
    assert sum(told) == sum(when.num_bits for when in whens)


@pytest.mark.parametrize("log2_states", [1, MAX_LOG2_STATES + 1])
def test_a_register_out_of_bounds_is_refused(log2_states: int) -> None:
    with pytest.raises(ValueError, match="register"):
        search([], [], [], log2_states=log2_states, seed=0)


def excess(log2_states: int, millibits: int, seed: int) -> float:
    """Rate over R(D) of the distortion reached, less 1, for a Gaussian source of variance 1."""
    n = 1_600_000 // millibits
    x = np.random.default_rng(seed).standard_normal(n)
    d = 4 ** (-millibits / 1000)
    scale = math.sqrt(1 - d)
    terms = (-scale * x / d).astype(np.float32), np.full(n, scale**2 / (2 * d), np.float32)
    when = schedule(np.full(n, millibits, np.int64))
    (bits,) = search([terms[0]], [terms[1]], [when], log2_states=log2_states, seed=seed)
    y = scale * values(bits, when, log2_states=log2_states, seed=seed)
    return when.num_bits / (n * 0.5 * math.log2(1 / np.mean((x - y) ** 2))) - 1


@pytest.mark.parametrize("millibits", [250, 1000])
def test_the_rate_comes_near_r_of_d_and_nearer_with_more_states(millibits: int) -> None:
    at = {
        states: np.mean([excess(states, millibits, seed) for seed in (1, 2, 3)]) for states in (6, 8, 10, 12)
    }
    assert 0 < at[10] < 0.15
    assert at[12] < at[8] < at[6]


def test_the_meaning_of_bits_is_the_one_that_files_rely_on() -> None:
    rates = np.array([0, 5, 1700, 64_000, 333, 333, 333, *([20] * 100), *([1] * 80), 2048], np.int64)
    when = schedule(rates, 77)
    bits = (np.arange(when.num_bits) ** 3 % 7 & 1).astype(np.uint8)
    z = values(bits, when, log2_states=11, seed=(3 << 40) + 7)
    assert when.num_bits == GOLDEN_BITS
    assert z.dtype == np.float32
    assert z[:8].tolist() == pytest.approx(GOLDEN_Z, abs=1e-6)
    whole = np.concatenate([when.places, when.slots, (1000 * z.astype(np.float64)).round().astype(np.int64)])
    assert hashlib.sha256(whole.astype("<i8").tobytes()).hexdigest() == GOLDEN_SHA256


GOLDEN_BITS = 86
GOLDEN_Z = [0.311034, -1.8469622, -0.311034, -1.9226816, 0.614774, 0.0562681, 0.1935111, -0.0644706]
GOLDEN_SHA256 = "7ae4cb382bcd07fc16b7e3d3c22a953e76d57febe97cbee2871061efc5ba4530"


def test_labels_shrink_with_the_bits_that_are_missing_and_the_error_with_them() -> None:
    rates = np.full(4000, 500)
    assert np.array_equal(shrinkage(rates, 255), np.ones(4000, np.float32))
    few = shrinkage(rates[:1], 32)[0]
    assert few == pytest.approx(np.sqrt((1 - 4.0**-0.23) / (1 - 4.0**-0.5)), rel=1e-6)
    assert (np.diff([shrinkage(rates[:1], m)[0] for m in (1, 16, 32, 48, 64)]) > 0).all()
    x = np.random.default_rng(3).standard_normal(4000)
    scale = np.sqrt(1 - 4.0**-0.5)
    when = schedule(rates, 32)
    errors = []
    for factor in (1.0, float(few)):
        s = np.full(4000, factor * scale)
        (bits,) = search(
            [(-2 * s * x).astype(np.float32)], [(s * s).astype(np.float32)], [when], log2_states=8, seed=1
        )
        errors.append(np.square(x - s * values(bits, when, log2_states=8, seed=1)).mean())
    assert errors[1] < 0.98 * errors[0]
