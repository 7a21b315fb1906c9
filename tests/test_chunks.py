"""Chunks of Gaussian latents: where they are cut, what is chosen, its law, and the index's bytes."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rcccodec.channel.weights import LogWeights
from rcccodec.errors import FormatError, ModelError
from rcccodec.index_code import FittedCode
from rcccodec.index_code.fitted import FREQUENCY_TOTAL, class_starts, fit
from rcccodec.latent import chunks as chunks_module
from rcccodec.latent.chunk_codes import (
    chunk_bits,
    code_for,
    costs_nats,
    decode_indices,
    encode_indices,
    fit_frequencies,
)
from rcccodec.latent.chunks import MAX_CHUNK_DIMS, best_in_ranges, choose, cut, values
from rcccodec.randomness import standard_normals

CODERS = ("pfr", "orc", "mincost")
RATES = st.lists(st.one_of(st.integers(0, 30), st.integers(0, 9000)), max_size=1500)


def gaussian_terms(rate_bits: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear and quadratic terms of n unit Gaussians on their rate-distortion channel."""
    distortion = 2 ** (-2 * rate_bits)
    x = np.random.default_rng(seed).standard_normal(n)
    quadratic = np.full(n, (1 / distortion - 1) / 2, np.float32)
    return (-x / distortion * math.sqrt(1 - distortion)).astype(np.float32), quadratic


def some_cost(start: int, stop: int) -> np.ndarray:
    return 0.9 * np.log1p(np.arange(start, stop))


def brute_force(linear, quadratic, starts, offset, num_candidates, seed, stream) -> np.ndarray:
    """All scores in float64 from candidates made at full width, one chunk at a time."""
    z = standard_normals(seed, torch.arange(num_candidates), MAX_CHUNK_DIMS, stream).double().numpy()
    best = []
    for start, stop in pairwise(starts):
        part = z[:, : stop - start]
        scores = part**2 @ quadratic[start:stop].astype(float) + part @ linear[start:stop].astype(float)
        best.append(int(np.argmin(scores + np.asarray(offset(0, num_candidates)))))
    return np.array(best)


@given(RATES, st.integers(0, 20000))
def test_chunks_are_as_long_as_the_budget_and_the_largest_width_allow(rates: list[int], budget: int) -> None:
    starts = cut(np.array(rates, np.int64), budget)
    assert starts.dtype == np.int64
    assert starts[0] == 0
    assert starts[-1] == len(rates)
    for start, stop in pairwise(starts.tolist()):
        assert 0 < stop - start <= MAX_CHUNK_DIMS
        assert sum(rates[start:stop]) <= budget or stop - start == 1
        if stop < len(rates) and stop - start < MAX_CHUNK_DIMS:
            assert sum(rates[start : stop + 1]) > budget


def test_cut_keeps_to_integers_beyond_the_precision_of_floats() -> None:
    big = (1 << 53) + 1
    assert cut(np.array([big, 1, big, 1]), big).tolist() == [0, 1, 2, 3, 4]
    assert cut(np.array([big, 1, big, 1]), big + 1).tolist() == [0, 2, 4]


def test_cut_refuses_negative_rates_and_budgets_and_sums_that_overflow() -> None:
    for rates, budget in (([-1], 5), ([1], -1), ([1 << 61] * 8, 5)):
        with pytest.raises(ValueError, match="rate"):
            cut(np.array(rates), budget)


@pytest.mark.parametrize("coder", CODERS)
def test_the_choice_is_that_of_brute_force_in_float64(coder: str) -> None:
    num_candidates, seed, stream = 9000, 7, 3
    widths = [1, 2, 8, 9, 30, 31, 64, 100, 200, 512, 3]
    starts = np.concatenate(([0], np.cumsum(widths)))
    parts = [gaussian_terms(10 / width if width > 2 else 2.0, width, width) for width in widths]
    linear, quadratic = (np.concatenate(one) for one in zip(*parts, strict=True))
    cost = some_cost if coder == "mincost" else None
    offset = cost or LogWeights(coder, num_candidates, seed=seed, stage=stream)
    common = {"num_candidates": num_candidates, "seed": seed, "stream": stream}
    chosen = choose(linear, quadratic, starts, coder=coder, cost_nats=cost, **common)
    assert chosen.tolist() == brute_force(linear, quadratic, starts, offset, **common).tolist()


def test_scores_that_float32_cannot_tell_apart_are_decided_in_float64() -> None:
    """A common shift of 2^23 nats leaves float32 steps of a nat."""
    starts = np.arange(0, 1601, 8)
    linear, quadratic = gaussian_terms(1.0, 1600, 1)
    common = {"num_candidates": 9000, "seed": 2, "stream": 0}
    shifted = lambda start, stop: some_cost(start, stop) + 2.0**23  # noqa: E731
    expected = brute_force(linear, quadratic, starts, some_cost, **common)
    assert choose(linear, quadratic, starts, coder="mincost", cost_nats=shifted, **common).tolist() == (
        expected.tolist()
    )
    z = standard_normals(2, torch.arange(9000), 8, 0)
    row = torch.as_tensor(shifted(0, 9000)).float()
    in_float32 = [
        int(
            (row + z.square() @ torch.from_numpy(quadratic[a:b]) + z @ torch.from_numpy(linear[a:b])).argmin()
        )
        for a, b in pairwise(starts)
    ]
    assert in_float32 != expected.tolist()  # else this test would pass without the second look


def test_the_lowest_index_wins_ties() -> None:
    flat = np.zeros(10, np.float32)
    cost = lambda start, stop: np.where(np.arange(start, stop) < 4097, np.inf, 1.0)  # noqa: E731
    chosen = choose(
        flat,
        flat,
        np.array([0, 1, 10]),
        coder="mincost",
        num_candidates=9000,
        seed=1,
        stream=0,
        cost_nats=cost,
    )
    assert chosen.tolist() == [4097, 4097]


@pytest.mark.parametrize("coder", CODERS)
def test_the_choice_does_not_depend_on_the_size_of_blocks_and_tiles(coder: str, monkeypatch) -> None:
    linear, quadratic = gaussian_terms(0.4, 600, 3)
    starts = cut(np.full(600, 400), 11000)
    terms = {"coder": coder, "num_candidates": 5000, "seed": 5, "stream": 0}
    terms["cost_nats"] = some_cost if coder == "mincost" else None
    expected = choose(linear, quadratic, starts, **terms)
    monkeypatch.setattr(chunks_module, "default_chunk", lambda device: 611)
    monkeypatch.setattr(chunks_module, "_TILE_SCORES_CPU", 2000)
    monkeypatch.setattr(chunks_module, "_TERMS_AT_ONCE", 64)
    assert choose(linear, quadratic, starts, **terms).tolist() == expected.tolist()


def test_chunks_of_several_kinds_pay_their_own_costs() -> None:
    linear, quadratic = gaussian_terms(1.0, 80, 4)
    starts, kinds = np.arange(0, 81, 8), np.arange(10) % 2
    common = {"coder": "mincost", "num_candidates": 2000, "seed": 6, "stream": 0}
    costs = [some_cost, lambda start, stop: 0.1 * some_cost(start, stop)]
    both = choose(linear, quadratic, starts, cost_nats=costs, kinds=kinds, **common)
    alone = [choose(linear, quadratic, starts, cost_nats=cost, **common) for cost in costs]
    assert both.tolist() == np.where(kinds == 0, *alone).tolist()
    assert alone[0].tolist() != alone[1].tolist()


def test_terms_that_do_not_fit_are_refused() -> None:
    starts, terms = np.array([0, 3]), {"num_candidates": 8, "seed": 0, "stream": 0}
    good, bad = np.zeros(3, np.float32), np.array([0, np.nan, 0], np.float32)
    for linear, quadratic in ((bad, good), (good, bad), (good[:2], good)):
        with pytest.raises(ValueError, match="terms must be finite"):
            choose(linear, quadratic, starts, coder="pfr", **terms)
    for coder, cost in (("mincost", None), ("pfr", some_cost)):
        with pytest.raises(ValueError, match="needs the cost"):
            choose(good, good, starts, coder=coder, cost_nats=cost, **terms)
    with pytest.raises(ValueError, match="1 to 512 dimensions"):
        choose(np.zeros(513), np.zeros(513), np.array([0, 513]), coder="pfr", **terms)


def test_nothing_at_all_is_no_chunk() -> None:
    starts, nothing = cut(np.empty(0, np.int64), 5), np.empty(0, np.float32)
    chosen = choose(nothing, nothing, starts, coder="pfr", num_candidates=8, seed=0, stream=0)
    assert starts.tolist() == [0]
    assert chosen.shape == values(chosen, starts, seed=0, stream=0).shape == (0,)
    assert decode_indices(encode_indices(chosen, chosen, {}, 8), chosen, {}, 8).shape == (0,)


def test_values_are_the_rows_of_the_candidate_matrix_however_large_the_index() -> None:
    starts = np.concatenate(([0], np.cumsum([1, 8, 9, 100, 512])))
    indices = np.array([5, (1 << 40) - 1, 0, 123456, 77])
    found = values(indices, starts, seed=9, stream=2)
    whole = standard_normals(9, torch.from_numpy(indices), MAX_CHUNK_DIMS, 2).numpy()
    expected = [whole[i, : stop - start] for i, (start, stop) in enumerate(pairwise(starts))]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize(("coder", "follows"), [("pfr", True), ("orc", True), ("mincost", False)])
def test_a_chunk_follows_its_channel_and_a_search_without_weights_does_not(coder: str, follows: bool) -> None:
    mean, noise, centre, scale = 0.7, 0.5, -0.2, 1.3
    linear = np.array([-scale * (mean - centre) / noise**2], np.float32)
    quadratic = np.array([(scale**2 / noise**2 - 1) / 2], np.float32)
    starts, cost = np.array([0, 1]), None if follows else lambda start, stop: np.zeros(stop - start)
    y = []
    for seed in range(500):
        common = {"seed": seed, "stream": 0}
        k = choose(linear, quadratic, starts, coder=coder, num_candidates=512, cost_nats=cost, **common)
        y.append(centre + scale * float(values(k, starts, **common)[0]))
    p_value = stats.kstest(y, "norm", args=(mean, noise)).pvalue
    assert p_value > 1e-2 if follows else p_value < 1e-9


def test_min_cost_is_cheaper_in_nats_and_bits_than_channel_simulation() -> None:
    num_candidates, dims, seeds = 1 << 11, 20, range(4)
    starts = np.arange(0, 60 * dims + 1, dims)
    linear, quadratic = gaussian_terms(0.4, 60 * dims, 8)
    total = {}
    for coder in CODERS:
        fitted = fit_frequencies(
            linear, quadratic, starts, coder=coder, num_candidates=num_candidates, seeds=range(10, 14)
        )
        costs, kinds = costs_nats(np.full(60, 8), {8: fitted}, num_candidates)
        code = FittedCode(fitted, num_candidates)
        nats = []
        for seed in seeds:
            common = {"num_candidates": num_candidates, "seed": seed, "stream": 0}
            costed = {"cost_nats": costs, "kinds": kinds} if coder == "mincost" else {}
            k = choose(linear, quadratic, starts, coder=coder, **costed, **common)
            z = values(k, starts, seed=seed, stream=0).astype(np.float64)
            scores = np.add.reduceat((quadratic * z + linear) * z, starts[:-1])
            nats.append(scores + math.log(2) * code.lengths_bits(k))
        total[coder] = np.mean(nats)
    assert total["mincost"] < min(total["pfr"], total["orc"]) - 0.2  # a shorter code on a freer choice


def test_the_best_of_every_class_holds_the_best_of_all() -> None:
    linear, quadratic = gaussian_terms(0.5, 160, 2)
    starts, common = np.arange(0, 161, 16), {"seed": 3, "stream": 1}
    ranges = [*class_starts(1500).tolist(), 1500]
    indices, scores = best_in_ranges(linear, quadratic, starts, ranges=ranges, **common)
    best = scores.argmin(1, keepdim=True)
    free = lambda start, stop: np.zeros(stop - start)  # noqa: E731
    chosen = choose(linear, quadratic, starts, coder="mincost", num_candidates=1500, cost_nats=free, **common)
    assert indices.gather(1, best)[:, 0].tolist() == chosen.tolist()
    assert all(
        (low <= indices[:, c]).all() and (indices[:, c] < high).all()
        for c, (low, high) in enumerate(pairwise(ranges))
    )


def log_uniform_indices(octaves: float, count: int, seed: int) -> np.ndarray:
    return np.exp2(np.random.default_rng(seed).uniform(0, octaves, count)).astype(np.int64) - 1


def test_chunk_bits_are_sums_rounded_to_whole_bits() -> None:
    rates = np.array([499, 0, 500, 1000, 1499, 99_000])
    assert chunk_bits(rates, np.array([0, 1, 2, 4, 5, 6])).tolist() == [0, 0, 2, 1, 40]


@given(st.integers(0, 40), st.integers(1, 1 << 20))
def test_the_code_of_any_bits_is_a_code(bits: int, num_candidates: int) -> None:
    fitted = {10: fit(log_uniform_indices(12, 300, 1), num_candidates=1 << 13)}
    frequencies = code_for(bits, fitted, num_candidates).frequencies
    assert sum(frequencies) == FREQUENCY_TOTAL
    assert min(frequencies) >= 1


def test_a_code_shifted_by_some_bits_suits_indices_so_much_larger_or_smaller() -> None:
    indices, more = log_uniform_indices(12, 4000, 1), np.random.default_rng(2)
    fitted, num_candidates = {10: fit(indices, num_candidates=1 << 13)}, 1 << 17
    larger = indices * 8 + more.integers(0, 8, len(indices))
    for bits, shifted in ((13, larger), (7, indices // 8)):
        own = (
            FittedCode(fit(shifted, num_candidates=num_candidates), num_candidates)
            .lengths_bits(shifted)
            .mean()
        )
        assert code_for(bits, fitted, num_candidates).lengths_bits(shifted).mean() < own + 0.06
        assert code_for(10, fitted, num_candidates).lengths_bits(shifted).mean() > own + 0.2


def test_a_model_without_codes_or_with_a_malformed_one_is_refused() -> None:
    for fitted in ({}, {10: [1, 2, 3]}):
        with pytest.raises(ModelError):
            code_for(10, fitted, 1024)


def bytes_of_chunks() -> tuple[bytes, np.ndarray, np.ndarray, dict[int, list[int]], int]:
    num_candidates = 1 << 15
    indices = np.minimum(log_uniform_indices(15, 200, 3), num_candidates - 1)
    bits = np.random.default_rng(4).integers(0, 18, 200)
    fitted = {b: fit(log_uniform_indices(b, 300, b), num_candidates=num_candidates) for b in (10, 12, 14)}
    return encode_indices(indices, bits, fitted, num_candidates), indices, bits, fitted, num_candidates


def test_index_bytes_come_back_and_are_as_many_as_the_code_lengths_say() -> None:
    payload, indices, bits, fitted, num_candidates = bytes_of_chunks()
    assert decode_indices(payload, bits, fitted, num_candidates).tolist() == indices.tolist()
    lengths = [
        float(code_for(int(b), fitted, num_candidates).lengths_bits(k))
        for b, k in zip(bits, indices, strict=True)
    ]
    assert sum(lengths) / 8 - 1 <= len(payload) <= sum(lengths) / 8 + 1.1
    assert len(encode_indices(indices, np.sort(bits), fitted, num_candidates)) != len(payload)


def test_bytes_that_the_encoder_does_not_write_are_refused() -> None:
    payload, _, bits, fitted, num_candidates = bytes_of_chunks()
    with pytest.raises(FormatError):
        decode_indices(payload + b"\0", bits, fitted, num_candidates)
    with pytest.raises(FormatError):
        decode_indices(payload + b"\1", bits, fitted, num_candidates)


def test_an_index_out_of_range_and_missing_bits_are_refused() -> None:
    _, indices, bits, fitted, num_candidates = bytes_of_chunks()
    with pytest.raises(ValueError, match="outside"):
        encode_indices(indices + num_candidates, bits, fitted, num_candidates)
    with pytest.raises(ValueError, match="indices of chunks"):
        encode_indices(indices, bits[1:], fitted, num_candidates)


def test_fitting_needs_chunks_and_seeds() -> None:
    for starts, seeds in ((np.array([0]), [1]), (np.array([0, 2]), [])):
        with pytest.raises(ValueError, match="no chunks"):
            fit_frequencies(
                np.zeros(starts[-1]), np.zeros(starts[-1]), starts, coder="pfr", num_candidates=8, seeds=seeds
            )
