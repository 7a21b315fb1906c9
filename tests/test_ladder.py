"""Ladder: which rung a slope, a quality or a target means."""

from types import SimpleNamespace

import pytest

from rcccodec import ladder
from rcccodec.errors import LimitError

BETAS = [4.0, 1.0, 2.0, 8.0]  # on purpose not in order
BITS = {4.0: 400, 1.0: 104, 2.0: 200, 8.0: 808}
PSNRS = {4.0: 24.0, 1.0: 18.0, 2.0: 21.0, 8.0: 27.0}


def encode(rung: int) -> SimpleNamespace:
    beta = BETAS[rung]
    return SimpleNamespace(
        report=SimpleNamespace(file_bytes=BITS[beta] // 8, psnr_db=PSNRS[beta], rung=rung), beta=beta
    )


@pytest.mark.parametrize(("beta", "nearest"), [(1, 1), (1.4, 1), (1.5, 2), (0.01, 1), (1e9, 8), (2.83, 4)])
def test_a_slope_takes_the_nearest_rung_in_ratio(beta: float, nearest: float):
    assert BETAS[ladder.rung_of_slope(BETAS, beta)] == nearest


def test_of_equal_slopes_the_deepest_rung_is_taken():
    assert ladder.rung_of_slope([1.0, 12.0, 20.0, 12.0, 20.0], 12.0) == 3


@pytest.mark.parametrize(("quality", "beta"), [(0, 1), (16, 1), (17, 2), (50, 4), (84, 8), (100, 8)])
def test_quality_walks_the_ladder(quality: float, beta: float):
    assert BETAS[ladder.rung_of_quality(BETAS, quality)] == beta


def test_a_ladder_of_one_rung_serves_any_quality():
    assert [ladder.rung_of_quality([3.0], q) for q in (0, 50, 100)] == [0, 0, 0]


@pytest.mark.parametrize(("bits", "beta"), [(104, 1), (199, 1), (200, 2), (807, 4), (808, 8), (10**9, 8)])
def test_target_bits_takes_the_best_rung_that_fits(bits: int, beta: float):
    assert ladder.encode_to_bits(encode, BETAS, bits).beta == beta


@pytest.mark.parametrize(("psnr", "beta"), [(-5, 1), (18, 1), (18.01, 2), (24, 4), (27, 8)])
def test_target_psnr_takes_the_cheapest_rung_that_reaches_it(psnr: float, beta: float):
    assert ladder.encode_to_psnr(encode, BETAS, psnr).beta == beta


def test_targets_out_of_reach_say_how_near_the_model_gets():
    with pytest.raises(LimitError, match="104"):
        ladder.encode_to_bits(encode, BETAS, 103)
    with pytest.raises(LimitError, match=r"27\.00 dB"):
        ladder.encode_to_psnr(encode, BETAS, 27.5)


@pytest.mark.parametrize("beta", [0, -1, float("nan"), float("inf")])
def test_slopes_that_are_none_are_refused(beta: float):
    with pytest.raises(LimitError):
        ladder.rung_of_slope(BETAS, beta)


@pytest.mark.parametrize("quality", [-1, 100.5, float("nan")])
def test_qualities_off_the_scale_are_refused(quality: float):
    with pytest.raises(LimitError):
        ladder.rung_of_quality(BETAS, quality)
