"""The seed's meaning is frozen: pinned tables, an oracle, statistics; more is in test_known_answers.py."""

import hashlib

import numpy as np
import numpy_philox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rcccodec.randomness import (
    ARRIVAL_STREAM,
    exponentials,
    normal_table,
    philox4x32,
    standard_normals,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


def uniforms_oracle(k: int, dim: int, stream: int, seed: int) -> list[int]:
    """The sixteen-bit numbers of one candidate, one dimension at a time."""
    numbers = []
    for i in range(dim):
        counter = np.array([[k % 2**32, k >> 32, i // 8, stream]], dtype=np.uint64)
        word = int(numpy_philox.philox4x32(counter, seed)[0, (i % 8) // 2])
        numbers.append(word >> 16 if i % 2 else word & 0xFFFF)
    return numbers


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(U32, U32, U32, U32), min_size=1, max_size=8), U64)
def test_philox_agrees_with_the_numpy_oracle(counters: list[tuple[int, int, int, int]], seed: int) -> None:
    expected = numpy_philox.philox4x32(np.array(counters, dtype=np.uint64), seed)
    counter = torch.tensor(counters)
    before = counter.clone()
    assert np.array_equal(philox4x32(counter, seed).numpy(), expected.astype(np.int64))
    assert torch.equal(counter, before), "the caller's counters are left alone"


def test_the_normal_table_is_pinned() -> None:
    table = normal_table()
    assert table.dtype == torch.float32
    assert table.shape == (65536,)
    digest = hashlib.sha256(table.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "8422cf312998f0a9b1a53e8c310b44117c100408dbcf920220ca232c9852b413"


def test_the_normal_table_is_exact_symmetric_and_far_from_rounding_ties() -> None:
    table = normal_table().to(torch.float64)
    scaled = table * 65536
    assert torch.equal(scaled, scaled.round())
    assert torch.equal(table, -table.flip(0))
    assert bool((table[1:] > table[:-1]).all())
    exact = 65536 * stats.norm.ppf((np.arange(32768) + 0.5) / 65536)
    assert np.array_equal(np.floor(exact + 0.5), scaled[:32768].numpy())
    # the nearest half-integer is millions of ulps away, so another libm cannot change an entry
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7
    assert abs(float(table.square().mean()) - 1) < 1e-4


def test_latents_are_pinned() -> None:
    z = standard_normals(20240229, torch.tensor([0, 1, 2**20, 2**33 + 5]), 11, 3)
    digest = hashlib.sha256(z.numpy().astype("<f4").tobytes()).hexdigest()
    assert (z[0, :3] * 65536).int().tolist() == [-99, -109413, 56278]
    assert digest == "7f709122ab36549dd0d8e0ca87ad5f6ccdddd656dc026780ba1ffcc11e9c5785"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(1, 20), U32, U64)
def test_latents_follow_the_counter_layout(k: int, dim: int, stream: int, seed: int) -> None:
    expected = normal_table()[torch.tensor(uniforms_oracle(k, dim, stream, seed))]
    assert torch.equal(standard_normals(seed, torch.tensor([k]), dim, stream)[0], expected)


@settings(max_examples=20, deadline=None)
@given(U64, st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 3))
def test_a_candidate_is_the_same_alone_and_in_a_batch(seed: int, first: int, dim: int, extra: int) -> None:
    k = torch.arange(first, first + 7)
    batch = standard_normals(seed, k, dim + extra, 0)
    for row in (0, 3, 6):
        assert torch.equal(standard_normals(seed, k[row : row + 1], dim, 0)[0], batch[row, :dim])
    order = torch.tensor([5, 0, 6, 2])
    assert torch.equal(standard_normals(seed, k[order], dim + extra, 0), batch[order])


def test_batches_larger_than_one_pass_are_seamless() -> None:
    k = torch.arange(9000)
    z = standard_normals(1, k, 100, 0)
    for part in (0, 2500, 8999):
        assert torch.equal(z[part], standard_normals(1, k[part : part + 1], 100, 0)[0])
    assert z.is_contiguous()


def test_indices_streams_and_seeds_are_disjoint() -> None:
    k = torch.arange(2000)
    seen = [
        standard_normals(seed, k, 24, stream) for seed in (0, 1, 2**32, 2**63) for stream in (0, 1, 65535)
    ]
    rows = torch.cat(seen)
    assert torch.unique(rows, dim=0).shape == rows.shape
    blocks = torch.cat([rows[:, :8], rows[:, 8:16], rows[:, 16:]])
    assert torch.unique(blocks, dim=0).shape == blocks.shape


def test_nothing_wraps_at_32_bits() -> None:
    big = torch.tensor([7, 2**31 + 7, 2**32 + 7, 2**33 + 7, 2**62 + 7])
    z = standard_normals(5, big, 16, 0)
    assert torch.unique(z, dim=0).shape[0] == 5
    # k * dim just beyond int32 would alias k = 2^24 - 2 and a small k if offsets were 32 bits wide
    k, dim = 2**24 - 2, 256
    assert k * dim > 2**31
    wide = standard_normals(5, torch.tensor([k, (k * dim - 2**32) // dim % 2**24]), dim, 0)
    assert normal_table()[torch.tensor(uniforms_oracle(k, dim, 0, 5))].equal(wide[0])
    assert exponentials(5, 2**32 + 7, 1, 0) != exponentials(5, 7, 1, 0)


def test_empty_requests_are_empty() -> None:
    assert standard_normals(0, torch.arange(3), 0, 0).shape == (3, 0)
    assert standard_normals(0, torch.arange(0), 5, 0).shape == (0, 5)
    assert exponentials(0, 0, 0, 0).shape == (0,)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        standard_normals(seed, torch.arange(1), 1, 0)
    with pytest.raises(ValueError, match="64-bit"):
        exponentials(seed, 0, 1, 0)


def test_wrong_shapes_dtypes_and_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="counter"):
        philox4x32(torch.zeros(3, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="counter"):
        philox4x32(torch.zeros(4), 0)
    with pytest.raises(ValueError, match="indices"):
        standard_normals(0, torch.zeros(2, dtype=torch.int32), 1, 0)
    with pytest.raises(ValueError, match="stream"):
        standard_normals(0, torch.arange(1), 1, 2**32)


def test_exponentials_are_pinned_by_their_uniforms_and_chunk_free() -> None:
    x = exponentials(9, 0, 1000, ARRIVAL_STREAM)
    pieces = torch.cat([exponentials(9, a, 125, ARRIVAL_STREAM) for a in range(0, 1000, 125)])
    assert torch.equal(x, pieces)
    assert x.dtype == torch.float64
    words = numpy_philox.philox4x32(
        np.array([[j, 0, 0, ARRIVAL_STREAM] for j in range(1000)], dtype=np.uint64), 9
    )
    mantissa = ((words[:, 1] & np.uint64(0x1FFFFF)) << np.uint64(32) | words[:, 0]) | np.uint64(1)
    np.testing.assert_allclose(x.numpy(), -np.log(mantissa.astype(np.float64) / 2.0**53), rtol=1e-14)


@pytest.mark.parametrize("rate", [1.0, 1.05])
def test_exponentials_are_exponential_and_a_wrong_rate_is_noticed(rate: float) -> None:
    x = exponentials(123, 0, 50_000, ARRIVAL_STREAM).numpy()
    p_value = stats.kstest(x * rate, "expon").pvalue
    assert (p_value > 1e-3) == (rate == 1.0)
    assert x.min() > 0
    assert np.isfinite(x).all()


def normality_p_values(z: np.ndarray) -> list[float]:
    """Marginal law, mean, variance, and correlation across dimensions and across neighbouring candidates."""
    n, dim = z.shape
    flat = z.ravel()
    cells = stats.norm.ppf(np.arange(1, 64) / 64)
    counts = np.bincount(np.searchsorted(cells, flat), minlength=64)
    gram = z.T @ z / np.sqrt(n)
    off_diagonal = gram[np.triu_indices(dim, 1)]
    lagged = (z[:-1] * z[1:]).sum() / np.sqrt((n - 1) * dim)
    return [
        float(stats.chisquare(counts).pvalue),
        float(2 * stats.norm.sf(abs(flat.mean()) * np.sqrt(flat.size))),
        float(min(1.0, 2 * off_diagonal.size * stats.norm.sf(np.abs(off_diagonal).max()))),
        float(2 * stats.norm.sf(abs(((flat**2).mean() - 1) * np.sqrt(flat.size / 2)))),
        float(2 * stats.norm.sf(abs(lagged))),
    ]


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (2**63 + 11, 3)])
def test_latents_are_independent_standard_normals(seed: int, stream: int) -> None:
    z = standard_normals(seed, torch.arange(20_000), 12, stream).numpy().astype(np.float64)
    assert min(normality_p_values(z)) > 1e-4


@pytest.mark.parametrize("fault", ["scale", "shift", "dimensions", "neighbours", "shape"])
def test_the_statistics_notice_a_broken_generator(fault: str) -> None:
    z = standard_normals(0, torch.arange(20_000), 12, 0).numpy().astype(np.float64)
    if fault == "scale":
        z = z * 1.01
    elif fault == "shift":
        z = z + 0.01
    elif fault == "dimensions":
        z[:, 1] = 0.08 * z[:, 0] + np.sqrt(1 - 0.08**2) * z[:, 1]
    elif fault == "neighbours":
        z[1:] = 0.02 * z[:-1] + np.sqrt(1 - 0.02**2) * z[1:]
    else:
        uniforms = z.reshape(len(z), 3, 4)
        z = (stats.norm.cdf(uniforms).sum(axis=2) - 2) * np.sqrt(3)
    assert min(normality_p_values(z)) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_latents_are_bit_identical_on_cuda() -> None:
    k = torch.arange(2**32 - 500, 2**32 + 500)
    on_gpu = standard_normals(77, k.cuda(), 131, 2)
    assert torch.equal(on_gpu.cpu(), standard_normals(77, k, 131, 2))
