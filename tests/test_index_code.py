"""What every index code promises: round trips, lengths that are the bits written, hostile payloads."""

import contextlib
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.errors import FormatError
from rcccodec.index_code import (
    CodebookPrior,
    FittedCode,
    IndexCode,
    ZipfHuffman,
    decode_segments,
    encode_segments,
)
from rcccodec.index_code.codebook_prior import quantise
from rcccodec.index_code.fitted import fit

SIZES = [
    1,
    2,
    3,
    7,
    63,
    64,
    65,
    127,
    128,
    131,
    1000,
    30000,
    1 << 16,
    1 << 24,
    (1 << 24) - 1,
    (1 << 40) - 3,
    1 << 40,
]


def draw_indices(num_candidates: int, count: int, seed: int = 0) -> np.ndarray:
    """Indices whose logarithm is spread evenly, as those of a channel simulation roughly are."""
    exponents = np.random.default_rng(seed).uniform(0, math.log2(num_candidates + 1), count)
    return np.minimum(np.exp2(exponents).astype(np.int64), num_candidates) - 1


def make_code(kind: int, num_candidates: int, seed: int = 0) -> IndexCode:
    if kind == 0:
        return ZipfHuffman(num_candidates, 1000 * (seed % 13))
    if kind == 1:
        return FittedCode(
            fit(draw_indices(num_candidates, 500, seed), num_candidates=num_candidates), num_candidates
        )
    return CodebookPrior(quantise(np.random.default_rng(seed).normal(12, 4, num_candidates)))


def make_codes(kinds: tuple[int, ...] = (0, 1, 2)) -> list[IndexCode]:
    codes = [
        make_code(kind, n, seed) for kind in kinds for seed, n in enumerate(SIZES) if kind < 2 or n <= 1 << 16
    ]
    return codes


def code_name(code: IndexCode) -> str:
    return f"{type(code).__name__}-{code.num_candidates}"


@pytest.mark.parametrize("code", make_codes(), ids=code_name)
@pytest.mark.parametrize("count", [0, 1, 2, 333])
def test_indices_survive_the_round_trip(code: IndexCode, count: int) -> None:
    indices = draw_indices(code.num_candidates, count)
    indices[-1:] = code.num_candidates - 1
    payload = encode_segments([(code, indices)])
    (decoded,) = decode_segments(payload, [(code, count)])
    assert decoded.dtype == np.int64
    assert decoded.tolist() == indices.tolist()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 2))
def test_segments_of_one_kind_share_one_stream(data: st.DataObject, kind: int) -> None:
    segments = []
    for seed in range(data.draw(st.integers(0, 4))):
        num_candidates = data.draw(st.one_of(st.integers(1, 20), st.sampled_from([100, 4096, 30000])))
        indices = data.draw(st.lists(st.integers(0, num_candidates - 1), max_size=30))
        segments.append((make_code(kind, num_candidates, seed), np.array(indices, dtype=np.int64)))
    payload = encode_segments(segments)
    decoded = decode_segments(payload, [(code, indices.size) for code, indices in segments])
    assert [d.tolist() for d in decoded] == [indices.tolist() for _, indices in segments]


@pytest.mark.parametrize("code", make_codes((0,)), ids=code_name)
@pytest.mark.parametrize("count", [1, 2, 77])
def test_zipf_huffman_payload_is_the_sum_of_lengths_and_padding_to_a_byte(
    code: IndexCode, count: int
) -> None:
    indices = draw_indices(code.num_candidates, count)
    bits = int(code.lengths_bits(indices).sum())
    payload = encode_segments([(code, indices), (code, indices[:1])])
    bits += int(code.lengths_bits(indices[:1]).sum())
    assert len(payload) == max(-(-bits // 8), (count + 1) // 32)


@pytest.mark.parametrize("code", make_codes((1, 2)), ids=code_name)
def test_range_coded_payload_is_within_a_byte_of_the_sum_of_lengths(code: IndexCode) -> None:
    for seed in range(5):
        indices = draw_indices(code.num_candidates, 200, seed)
        bits = float(code.lengths_bits(indices).sum())
        payload = encode_segments([(code, indices)])
        assert len(payload) <= max(-(-(bits + 9) // 8), 200 // 32)
        if code.num_candidates > 1000:  # a few bits less are luck, 24 are not
            assert 8 * len(payload) > bits - 24


@pytest.mark.parametrize("code", make_codes(), ids=code_name)
def test_an_index_outside_the_code_is_refused(code: IndexCode) -> None:
    for wrong in (np.array([-1]), np.array([code.num_candidates]), np.array([0.0])):
        with pytest.raises(ValueError, match="ind"):
            encode_segments([(code, wrong)])
        with pytest.raises(ValueError, match="ind"):
            code.lengths_bits(wrong)


def test_unsigned_and_narrow_indices_encode_like_int64() -> None:
    for kind in (0, 1, 2):
        code = make_code(kind, 4096)
        indices = draw_indices(4096, 50)
        for dtype in (np.uint64, np.uint16, np.int32):
            assert encode_segments([(code, indices.astype(dtype))]) == encode_segments([(code, indices)])


def test_kinds_do_not_mix_in_a_payload() -> None:
    with pytest.raises(ValueError, match="different index codes"):
        encode_segments([(make_code(0, 10), np.array([1])), (make_code(1, 10), np.array([1]))])


@pytest.mark.parametrize("num_candidates", [0, -1, (1 << 40) + 1])
def test_the_number_of_candidates_is_limited(num_candidates: int) -> None:
    with pytest.raises(ValueError, match="candidates"):
        ZipfHuffman(num_candidates, 1000)
    with pytest.raises(ValueError, match="candidates"):
        FittedCode(fit(np.array([0]), num_candidates=1), num_candidates)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_payload_cut_short_or_added_to_never_gives_the_same_indices(kind: int) -> None:
    code = make_code(kind, 30000, seed=6)
    indices = draw_indices(30000, 60)
    payload = encode_segments([(code, indices)])
    for tail in (b"\0", b"\1", b"\0\0\0", b"x" * 20, payload):
        with pytest.raises(FormatError):
            decode_segments(payload + tail, [(code, 60)])
    for size in range(len(payload)):
        try:  # short of a checksum, a range-coded payload cut short is that of other indices
            (decoded,) = decode_segments(payload[:size], [(code, 60)])
        except FormatError:
            continue
        assert kind != 0
        assert decoded.tolist() != indices.tolist()
    for count in (0, 1, 30, 58):
        with pytest.raises(FormatError):
            decode_segments(payload, [(code, count)])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2), st.sampled_from([1, 5, 1000, 30000]), st.integers(0, 3000))
def test_a_hostile_payload_is_refused_or_has_no_other_form(
    payload: bytes, kind: int, num_candidates: int, count: int
) -> None:
    code = make_code(kind, num_candidates)
    try:
        (indices,) = decode_segments(payload, [(code, count)])
    except FormatError:
        return
    assert encode_segments([(code, indices)]) == payload


@pytest.mark.parametrize(
    "code", [c for c in make_codes() if c.num_candidates in (1, 3, 30000)], ids=code_name
)
def test_a_huge_count_is_refused_before_anything_is_allocated(code: IndexCode) -> None:
    code.lengths_bits(np.array([0]))  # the table is not what is measured
    for payload in (b"", bytes(1000), b"\xa5" * 1000):
        begin = time.process_time()
        tracemalloc.start()
        with pytest.raises(FormatError):
            decode_segments(payload, [(code, 1 << 40), (code, 1)])
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 20000
        assert time.process_time() - begin < 1


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_memory_of_a_reader_is_a_small_multiple_of_its_payload(kind: int) -> None:
    code = make_code(kind, 3)
    code.lengths_bits(np.array([0]))
    payload = bytes(2000)
    tracemalloc.start()
    with contextlib.suppress(FormatError):
        decode_segments(payload, [(code, 32 * len(payload))])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 32 * len(payload) * 160


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_indices_that_cost_nothing_still_take_a_bit_in_the_payload_now_and_then(kind: int) -> None:
    code = make_code(kind, 1)
    payload = encode_segments([(code, np.zeros(6400, dtype=np.int64))])
    assert payload == bytes(200)
    assert decode_segments(payload, [(code, 6400)])[0].tolist() == [0] * 6400


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_25000_indices_are_coded_in_a_moment(kind: int) -> None:
    code, indices = make_code(kind, 30000), draw_indices(30000, 25000)
    begin = time.process_time()
    payload = encode_segments([(code, indices)])
    middle = time.process_time()
    decode_segments(payload, [(code, 25000)])
    assert middle - begin < 1.0  # about 0.05 s on an idle core
    assert time.process_time() - middle < 2.0  # about 0.15 s
