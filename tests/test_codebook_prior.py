"""The codebook prior: its constants, its example, quantised lengths, damaged levels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcccodec.errors import ModelError
from rcccodec.index_code import CodebookPrior, decode_segments, encode_segments
from rcccodec.index_code.codebook_prior import EIGHTHS, quantise


def test_codebook_prior_constants_are_eighths_of_an_octave() -> None:
    assert tuple(round(2 ** (31 - i / 8)) for i in range(8)) == EIGHTHS


def test_codebook_prior_example_of_the_specification() -> None:
    code = CodebookPrior(np.array([5, 13, 21, 40], dtype=np.uint8))
    assert code._frequencies.tolist() == [1392470869, 696235434, 348117717, 67108864]
    assert encode_segments([(code, np.array([2, 0, 1]))]) == bytes.fromhex("e1")


@given(st.lists(st.floats(0, 60) | st.just(math.inf), min_size=1, max_size=200), st.floats(-50, 50))
def test_quantised_lengths_are_normalised_and_near_those_wanted(lengths: list[float], shift: float) -> None:
    wanted = np.array(lengths) + shift
    if not np.isfinite(wanted).any():
        with pytest.raises(ValueError, match="finite"):
            quantise(wanted)
        return
    code = CodebookPrior(quantise(wanted))
    got = code.lengths_bits(np.arange(len(lengths)))
    assert float(np.exp2(-got).sum()) == pytest.approx(1)
    shortest = wanted.min()
    ideal = np.minimum(wanted - shortest + np.log2(np.exp2(shortest - wanted).sum()), 255 / 8)
    common = ideal < 24  # beyond, the shift in the table costs precision
    assert np.abs(got - ideal)[common].max() < 0.13


@pytest.mark.parametrize(
    "levels",
    [
        np.zeros(4, dtype=np.int64),
        np.zeros((2, 2), dtype=np.uint8),
        np.zeros(0, dtype=np.uint8),
        np.zeros(600, np.uint8),
    ],
)
def test_codebook_prior_refuses_damaged_levels(levels: np.ndarray) -> None:
    with pytest.raises(ModelError):
        CodebookPrior(levels)


def test_codebook_prior_spans_4_million_candidates() -> None:
    code = CodebookPrior(np.full(1 << 22, 176, dtype=np.uint8))
    assert code.lengths_bits(np.array([123]))[0] == pytest.approx(22)
    indices = np.random.default_rng(0).integers(0, 1 << 22, 50)
    assert decode_segments(encode_segments([(code, indices)]), [(code, 50)])[0].tolist() == indices.tolist()
