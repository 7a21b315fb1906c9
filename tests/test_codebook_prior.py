"""The codebook prior: its constants, its example, quantised lengths, damaged levels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcccodec.errors import ModelError
from rcccodec.index_code import CodebookPrior, codebook_prior, decode_segments, encode_segments
from rcccodec.index_code.codebook_prior import BLOCK, EIGHTHS, block_sums, quantise
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder


def test_codebook_prior_constants_are_eighths_of_an_octave() -> None:
    assert tuple(round(2 ** (31 - i / 8)) for i in range(8)) == EIGHTHS


def test_codebook_prior_example_of_the_specification() -> None:
    code = CodebookPrior(np.array([5, 13, 21, 40], dtype=np.uint8))
    frequencies = [1392470869, 696235434, 348117717, 67108864]
    lengths = np.log2(sum(frequencies) / np.array(frequencies, dtype=float))
    np.testing.assert_array_equal(code.lengths_bits(np.arange(4)), lengths)
    assert block_sums(code.levels).tolist() == [sum(frequencies)]
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


def some_levels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(60, 200, count).astype(np.uint8)


@given(st.integers(1, 5 * BLOCK), st.data())
def test_intervals_tile_the_total_in_order_of_the_index(count: int, data: st.DataObject) -> None:
    levels = some_levels(count)
    frequencies = [max(1, EIGHTHS[q % 8] >> (q // 8)) for q in levels.tolist()]
    indices = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=50)), dtype=np.int64)
    plain = RangeEncoder()
    for index in indices.tolist():
        plain.encode(sum(frequencies[:index]), frequencies[index], sum(frequencies))
    payload = plain.finish(indices.size // 32)
    for code in (CodebookPrior(levels), CodebookPrior(levels, block_sums(levels))):
        assert encode_segments([(code, indices)]) == payload
        assert decode_segments(payload, [(code, indices.size)])[0].tolist() == indices.tolist()


def test_sums_of_blocks_do_not_depend_on_how_they_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = some_levels(10 * BLOCK + 7)
    whole = block_sums(levels)
    assert whole.dtype == np.int64
    monkeypatch.setattr(codebook_prior, "_SUMMED_AT_ONCE", 3 * BLOCK)
    np.testing.assert_array_equal(block_sums(levels), whole)


def test_only_the_blocks_of_the_indices_are_read() -> None:
    levels = some_levels(40 * BLOCK)
    sums, indices = block_sums(levels), np.array([3, 5 * BLOCK + 9, 6 * BLOCK - 1])
    payload = encode_segments([(CodebookPrior(levels), indices)])
    for block in range(40):
        changed = levels.copy()
        changed[block * BLOCK] += 8
        code = CodebookPrior(changed, sums)
        if block in (0, 5):
            with pytest.raises(ModelError, match="stored sum"):
                code.get(RangeDecoder(payload), 3)
            with pytest.raises(ModelError, match="stored sum"):
                code.put(RangeEncoder(), indices)
        else:
            assert decode_segments(payload, [(code, 3)])[0].tolist() == indices.tolist()


@pytest.mark.parametrize(
    "sums",
    [
        np.array([1 << 20, 1 << 20]),
        np.array([[1 << 20]]),
        np.array([1 << 20], dtype=np.uint64),
        np.array([0]),
        np.array([-5]),
        np.array([(1 << 40) + 1]),
        np.array([]),
    ],
)
def test_sums_that_are_no_sums_are_refused(sums: np.ndarray) -> None:
    with pytest.raises(ModelError):
        CodebookPrior(some_levels(BLOCK), sums)


def test_codebook_prior_spans_4_million_candidates() -> None:
    code = CodebookPrior(np.full(1 << 22, 176, dtype=np.uint8))
    assert code.lengths_bits(np.array([123]))[0] == pytest.approx(22)
    indices = np.random.default_rng(0).integers(0, 1 << 22, 50)
    assert decode_segments(encode_segments([(code, indices)]), [(code, 50)])[0].tolist() == indices.tolist()
