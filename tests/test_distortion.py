"""Distortions between blocks, against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.distortion import hamming, paired, parse_distortion, squared_error, squared_lp
from rcccodec.errors import InputError


def blocks(seed: int, rows: int, dim: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(rows, dim, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def by_numpy(x: torch.Tensor, y: torch.Tensor, p: float) -> np.ndarray:
    gaps = np.abs(x.numpy()[:, None, :] - y.numpy()[None, :, :])
    return np.linalg.norm(gaps, ord=p, axis=2) ** 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_squared_error_is_the_sum_of_squares(seed: int, n: int, m: int, dim: int):
    x, y = blocks(seed, n, dim), blocks(seed + 1, m, dim)
    np.testing.assert_allclose(squared_error(x, y), by_numpy(x, y, 2), atol=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 8, np.inf])
def test_lp_distances_are_squared_norms(p: float):
    x, y = blocks(0, 5, 11), blocks(1, 4, 11)
    np.testing.assert_allclose(parse_distortion(f"lp:{p}")(x, y), by_numpy(x, y, p), rtol=1e-9)
    if p != 2:
        assert not np.allclose(squared_lp(x, y, p), by_numpy(x, y, 2))  # the control


def test_a_large_common_offset_does_not_drown_small_distances():
    y = blocks(2, 6, 8, torch.float32) * 1e-2 + 100
    x = y[:3] + 1e-3
    exact = by_numpy(x.double(), y.double(), 2)
    np.testing.assert_allclose(squared_error(x, y), exact, rtol=1e-3, atol=1e-8)
    naive = (x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.T
    assert np.abs(naive.numpy() - exact).max() > 1e-3  # the control: without centring they do


@pytest.mark.parametrize("text", ["mse", "lp:1", "lp:1.5", "lp:3", "lp:inf"])
def test_gradients_are_finite_even_at_distance_zero(text: str):
    y = blocks(3, 4, 5).requires_grad_()
    distances = parse_distortion(text)(torch.cat([y.detach()[:1], blocks(4, 2, 5)]), y)
    assert distances.min() >= 0
    distances.sum().backward()
    assert torch.isfinite(y.grad).all()
    assert y.grad.abs().max() > 0


@pytest.mark.parametrize("text", ["mse", "lp:1", "lp:4"])
def test_gradients_agree_with_finite_differences(text: str):
    x, y = blocks(5, 3, 4), blocks(6, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: parse_distortion(text)(x, b), y)


@pytest.mark.parametrize("text", ["mse", "l1", "lp:1", "lp:2", "lp:4"])
def test_pairs_are_the_diagonal(text: str):
    x, y = blocks(5, 6, 4), blocks(6, 6, 4)
    torch.testing.assert_close(paired(text)(x, y), parse_distortion(text)(x, y).diagonal())
    assert paired(text)(x[:, None], y).shape == (6, 6)
    bits = (x > 0).to(x.dtype), (y > 0).to(x.dtype)
    torch.testing.assert_close(paired("hamming")(*bits), hamming(*bits).diagonal())


def test_two_names_of_the_squared_error_are_one_function():
    assert parse_distortion("mse") is parse_distortion("lp:2") is squared_error


@pytest.mark.parametrize("text", ["", "lp", "lp:", "lp:0.5", "lp:nan", "lp:-1", "lp:x", "MSE", "ssim"])
def test_anything_else_is_refused_by_name(text: str):
    with pytest.raises(InputError, match="expected 'mse', 'l1' or 'lp:P'"):
        parse_distortion(text)
