"""Known answers for whoever writes a decoder: the package and the NumPy of FORMAT.md both give them."""

from collections.abc import Callable

import numpy as np
import numpy_philox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.latent import trellis
from rcccodec.randomness import normal_table, philox4x32, standard_normals


def package_words(counter: list[int], seed: int) -> list[int]:
    return philox4x32(torch.tensor(counter), seed).tolist()


def numpy_words(counter: list[int], seed: int) -> list[int]:
    return [int(word) for word in numpy_philox.philox4x32(np.array([counter], np.uint64), seed)[0]]


@pytest.mark.parametrize("words", [package_words, numpy_words])
@pytest.mark.parametrize(
    ("counter", "seed", "answer"),
    [
        ("00000000 00000000 00000000 00000000", 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_vectors_of_random123(words: Callable, counter: str, seed: int, answer: str) -> None:
    given_words = [int(word, 16) for word in counter.split()]
    assert [f"{word:08x}" for word in words(given_words, seed)] == answer.split()
    assert [f"{word:08x}" for word in words(given_words, seed ^ 1)] != answer.split()


@pytest.mark.parametrize("table", [lambda: normal_table().double().numpy(), numpy_philox.normal_table])
def test_places_of_the_normal_map(table: Callable[[], np.ndarray]) -> None:
    """The whole table's SHA-256 is in test_randomness.py."""
    places = [0, 1, 255, 16384, 32767, 32768, 65535]
    expected = [-283438, -267138, -174373, -44202, -1, 1, 283438]
    assert (65536 * table()[places]).tolist() == expected


def test_both_normal_maps_are_the_same() -> None:
    assert np.array_equal(normal_table().double().numpy(), numpy_philox.normal_table())


CANDIDATES = [  # seed, candidate, stream, first ten dimensions times 2^16
    (0, 0, 0, [87669, -16766, 48787, 77173, 29382, 41299, 70439, 17534, -89730, 2742]),
    (0, 1, 0, [55013, 125484, -177699, -23125, -7124, 33228, 185471, -117017, 117377, 53069]),
    (2**64 - 1, 2**40 - 1, 3,
     [109332, 24493, -159848, -49151, 179021, 105465, -35329, 49101, -57149, -87553]),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "candidate", "stream", "expected"), CANDIDATES)
def test_latents_of_candidates(seed: int, candidate: int, stream: int, expected: list[int]) -> None:
    ours = standard_normals(seed, torch.tensor([candidate]), 10, stream)[0]
    theirs = numpy_philox.normals(seed, np.array([candidate]), 0, 10, stream)[0]
    assert (65536 * ours).tolist() == expected
    assert (65536 * theirs).tolist() == expected


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**62),
    st.integers(0, 40),
    st.integers(1, 30),
    st.integers(0, 9),
)
def test_both_give_any_dimensions_of_any_candidate(
    seed: int, candidate: int, first: int, count: int, stream: int
) -> None:
    ours = standard_normals(seed, torch.tensor([candidate]), first + count, stream)[0, first:]
    theirs = numpy_philox.normals(seed, np.array([candidate]), first, count, stream)[0]
    assert np.array_equal(ours.double().numpy(), theirs)


LABELS = {  # L: labels of the half-states 0, 1 and the last, in slots 0, 5 and 63, seed 7
    2: [-0.579328, -0.579328, 0.579369],
    8: [0.763622, 0.123300, 0.763622],
    12: [0.984431, -0.360614, -0.398147],
    16: [-0.157097, -0.553411, 0.318069],
    17: [-2.547441, 0.218192, -0.061613],
    20: [-0.310302, -0.580324, -0.873697],
}


@pytest.mark.parametrize("log2_states", LABELS)
def test_labels_of_the_trellis(log2_states: int) -> None:
    half_states, slots = np.array([0, 1, (1 << (log2_states - 1)) - 1]), np.array([0, 5, 63])
    ours = trellis._labels_at(torch.from_numpy(half_states), torch.from_numpy(slots), log2_states, 7)
    assert ours.numpy() == pytest.approx(LABELS[log2_states], abs=1e-6)
    theirs = numpy_philox.trellis_labels(half_states, slots, log2_states, 7)
    assert theirs == pytest.approx(LABELS[log2_states], abs=1e-6)


def test_signs_of_the_trellis() -> None:
    expected = "+---+++-++----------++---+++++-++-+---++"
    for signs in (trellis._signs(300, 7), numpy_philox.trellis_signs(300, 7)):
        assert "".join("-+"[int(sign > 0)] for sign in signs[:40]) == expected
        assert int((signs > 0).sum()) == 150


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9000) | st.integers(1, 100), min_size=1, max_size=150),
    st.integers(1, 255),
    st.integers(2, 20),
    st.integers(0, 2**64 - 1),
)
def test_both_read_a_path_alike(rates: list[int], measure: int, log2_states: int, seed: int) -> None:
    array = np.array(rates, np.int64)
    when = trellis.schedule(array, measure)
    bits = np.random.default_rng(len(rates)).integers(0, 2, when.num_bits).astype(np.uint8)
    ours = trellis.values(bits, when, log2_states=log2_states, seed=seed)
    theirs = numpy_philox.trellis_values(bits, array, measure, log2_states, seed)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)
    np.testing.assert_allclose(
        trellis.shrinkage(array, measure), numpy_philox.trellis_shrinkage(array, measure), rtol=1e-6
    )
