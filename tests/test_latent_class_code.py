"""The code of a tile's classes: round trips, lengths, refusals, and the integers that it stands on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.errors import FormatError
from rcccodec.latent import class_code
from rcccodec.latent.class_code import MOST_UNITS, TOP_BITS, UNITS_A_BIT, ClassCode, _powers, neighbours


def some_code(count: int, seed: int = 0, most: int = 200) -> ClassCode:
    random = np.random.default_rng(seed)
    left, up = (random.integers(-most, most + 1, (count + 1, count)).astype(np.int16) for _ in range(2))
    return ClassCode(left, up)


def likely(code: ClassCode, height: int, width: int, seed: int) -> np.ndarray:
    """Classes drawn from the code's own law, which it codes well."""
    random, classes = np.random.default_rng(seed), np.zeros((height, width), np.int64)
    for row in range(height):
        for column in range(width):
            left = classes[row, column - 1] if column else code.classes
            up = classes[row - 1, column] if row else code.classes
            odds = np.exp2((code.left[left].astype(float) + code.up[up]) / UNITS_A_BIT)
            classes[row, column] = random.choice(code.classes, p=odds / odds.sum())
    return classes


def ideal_bits(code: ClassCode, classes: np.ndarray) -> float:
    left, up = neighbours(classes, code.classes)
    return float(code.lengths_bits_of(left, up, classes).sum())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(1, 1), (1, 16), (16, 1), (2, 3), (16, 16)]),
    st.sampled_from([1, 2, 3, 64, 256]),
    st.sampled_from([0, 300, MOST_UNITS]),
    st.integers(0, 1 << 32),
)
def test_any_classes_come_back(size: tuple[int, int], count: int, most: int, seed: int) -> None:
    code = some_code(count, seed, most)
    classes = np.random.default_rng(seed).integers(0, count, size)
    found = code.decode(code.encode(classes), *size)
    assert found.dtype == np.int64
    assert np.array_equal(found, classes)


@pytest.mark.parametrize("count", [2, 17, 256])
def test_bytes_are_as_many_as_the_ideal_lengths_say_and_fewer_for_likely_classes(count: int) -> None:
    code = some_code(count)
    total = {True: 0.0, False: 0.0}
    for seed in range(3):
        for drawn in (True, False):
            classes = likely(code, 16, 16, seed)
            classes = (
                classes if drawn else np.random.default_rng(seed).permutation(classes.ravel()).reshape(16, 16)
            )
            bits = ideal_bits(code, classes)
            assert bits - 8 < 8 * len(code.encode(classes)) < bits * 1.0001 + 8
            total[drawn] += bits
    assert total[True] < 0.7 * total[False]  # so the neighbours matter


def test_one_class_takes_no_bytes() -> None:
    code = some_code(1)
    assert code.encode(np.zeros((16, 16), np.int64)) == b""
    assert ideal_bits(code, np.zeros((16, 16), np.int64)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_the_lengths_of_all_classes_fill_kraft_s_inequality_for_every_pair_of_neighbours(count: int) -> None:
    code = some_code(count, 3)
    left, up, classes = (a.ravel() for a in np.mgrid[: count + 1, : count + 1, :count])
    sums = np.exp2(-code.lengths_bits_of(left, up, classes)).reshape(-1, count).sum(1)
    assert sums == pytest.approx(np.ones((count + 1) ** 2), abs=1e-9)


def test_frequencies_are_those_that_the_ideal_lengths_say() -> None:
    code = some_code(40, 4)
    for left, up in ((0, 0), (40, 3), (7, 40), (40, 40)):
        starts = code._row(left, up)
        frequencies = np.diff(starts)
        lengths = code.lengths_bits_of(np.full(40, left), np.full(40, up), np.arange(40))
        assert np.log2(starts[-1] / np.array(frequencies)) == pytest.approx(lengths, abs=0.02)
        assert max(frequencies) == 1 << TOP_BITS
        assert len(starts) == 41
        assert starts[0] == 0


def test_frequencies_are_those_of_the_format() -> None:
    code = some_code(30, 8, MOST_UNITS)
    for left, up in ((0, 0), (30, 3), (7, 30), (30, 30)):
        units = [int(a) + int(b) for a, b in zip(code.left[left], code.up[up], strict=True)]
        below = [max(units) - u for u in units]
        wanted = [max(1, int(_powers()[d % UNITS_A_BIT]) >> d // UNITS_A_BIT) for d in below]
        assert np.diff(code._row(left, up)).tolist() == wanted
        assert 1 in wanted  # the least there is


def test_memory_does_not_grow_with_the_pairs_of_neighbours_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = np.random.default_rng(2).integers(0, 64, (16, 16))
    wanted = some_code(64).encode(classes)
    monkeypatch.setattr(class_code, "MOST_ROWS", 10)
    code = some_code(64)
    assert code.encode(classes) == wanted
    assert np.array_equal(code.decode(wanted, 16, 16), classes)
    assert 0 < len(code._rows) <= 10


def test_a_class_far_less_likely_than_another_can_still_be_coded() -> None:
    left = np.zeros((3, 2), np.int16)
    left[:, 0], left[:, 1] = MOST_UNITS, -MOST_UNITS
    code = ClassCode(left, left.copy())
    classes = np.ones((4, 4), np.int64)
    assert np.array_equal(code.decode(code.encode(classes), 4, 4), classes)
    assert len(code.encode(classes)) == pytest.approx(16 * TOP_BITS / 8, abs=1)


def test_damaged_bytes_are_refused_or_are_other_classes_written_so() -> None:
    code, random, refused = some_code(20, 5), np.random.default_rng(6), 0
    data = code.encode(likely(code, 6, 6, 1))
    damaged = [data + b"\0", data + b"\1", data[:-1], b"", b"\xff" * len(data)]
    damaged += [
        bytes([*data[:i], data[i] ^ 1 << bit, *data[i + 1 :]]) for i in range(len(data)) for bit in range(8)
    ]
    damaged += [random.bytes(len(data)) for _ in range(50)]
    for other in damaged:
        try:
            classes = code.decode(other, 6, 6)
        except FormatError:
            refused += 1
            continue
        assert code.encode(classes) == other
        assert classes.max() < 20
    assert 3 <= refused < len(damaged)
    with pytest.raises(FormatError):
        code.decode(data + b"\0", 6, 6)


def test_the_powers_of_two_are_exact_integers() -> None:
    powers = _powers().tolist()
    assert len(powers) == UNITS_A_BIT
    for j, p in enumerate(powers):  # p = floor(2^(30 - j/32)), both sides to the 32nd power
        assert p**32 <= 1 << (32 * TOP_BITS - j) < (p + 1) ** 32


def test_neighbours_are_those_on_the_left_and_above() -> None:
    classes = np.arange(6).reshape(1, 2, 3)
    left, up = neighbours(classes, 9)
    assert left.tolist() == [[[9, 0, 1], [9, 3, 4]]]
    assert up.tolist() == [[[9, 9, 9], [0, 1, 2]]]


@pytest.mark.parametrize(
    ("left", "up"),
    [
        (np.zeros((3, 2), np.int32), np.zeros((3, 2), np.int16)),
        (np.zeros((3, 2), np.int16), np.zeros((3, 3), np.int16)),
        (np.zeros((3, 2), np.int16), np.zeros((4, 3), np.int16)),
        (np.zeros((1, 0), np.int16), np.zeros((1, 0), np.int16)),
        (np.zeros((258, 257), np.int16), np.zeros((258, 257), np.int16)),
        (np.full((3, 2), MOST_UNITS + 1, np.int16), np.zeros((3, 2), np.int16)),
        (np.zeros((3, 2), np.int16), np.full((3, 2), -32768, np.int16)),
    ],
)
def test_tables_of_another_form_are_refused(left: np.ndarray, up: np.ndarray) -> None:
    with pytest.raises(ValueError, match="class"):
        ClassCode(left, up)


def test_a_uniform_code_takes_log2_of_the_classes() -> None:
    code = ClassCode(np.zeros((9, 8), np.int16), np.zeros((9, 8), np.int16))
    classes = np.random.default_rng(0).integers(0, 8, (16, 16))
    assert ideal_bits(code, classes) == pytest.approx(256 * math.log2(8))
    assert len(code.encode(classes)) == 96
