"""FORMAT.md against the package: a reader written from the document alone reads the same from every file."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

import golden_files
import independent_codes
import independent_latents
import independent_reader
import numpy as np
import pytest
from golden_files import file_bytes, package_model
from golden_mutants import mutants, take_apart
from independent_codes import Rejected

from rcccodec import codec
from rcccodec.errors import RccError

FACTS = golden_files.facts()
OWN = [name for name, fact in FACTS.items() if fact["model"] not in golden_files.SHIPPED]


def read(name: str, data: bytes) -> tuple[list, np.ndarray]:
    """As the independent reader reads ``data`` with the model of a golden file; JSON's form of it."""
    integers, z = golden_files.reader_integers(FACTS[name], data)
    return json.loads(json.dumps(integers)), z


@pytest.mark.parametrize("name", FACTS)
def test_the_document_alone_gives_the_same_integers_and_normals(name: str) -> None:
    integers, z = read(name, file_bytes(name))
    assert integers == FACTS[name]["integers"]
    np.testing.assert_allclose(z, golden_files.pixels(name)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FACTS)
def test_the_document_alone_sees_every_flipped_bit(name: str) -> None:
    data = file_bytes(name)
    for bit in (
        range(8 * len(data)) if len(data) < 200 else random.Random(0).sample(range(8 * len(data)), 800)
    ):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Rejected):
            independent_reader.parse(bytes(damaged))


def test_with_right_checksums_document_and_package_refuse_the_same_files() -> None:
    rng = random.Random(1)
    accepted = refused = 0
    for name in rng.sample(OWN, 30):
        model = package_model(FACTS[name]["model"])
        for data, _ in zip(mutants(take_apart(file_bytes(name)), rng), range(8), strict=False):
            try:
                codec.decompress(data, model)
                made = json.loads(json.dumps(golden_files.package_integers(FACTS[name], data)[0]))
            except RccError:
                made = None
            try:
                integers = read(name, data)[0]
            except Rejected:
                integers = None
            assert integers == made, (name, data.hex())
            accepted += made is not None
            refused += made is None
    assert accepted > 20  # the control: both happen
    assert refused > 20


def test_files_taken_apart_and_sealed_are_the_same() -> None:
    for name in FACTS:
        assert take_apart(file_bytes(name)).sealed() == file_bytes(name)


def _moved_label(seed: int, w: int, k: int, j: int) -> float:
    return golden_label(seed, w, k, j) * math.sqrt((1 + 6 / 16 + 15 / 256) / (1 + 6 / 16 + 15 / 255))


def millibits(n: int) -> int:
    """1000 log2 n, rounded down."""
    return (n**1000).bit_length() - 1


PRIOR = independent_reader.PRIOR
golden_label = independent_latents.label
WRONG: dict[str, tuple[Any, str, Any]] = {
    **{
        f"frequency {i} of priors": (
            independent_reader, "PRIOR", (*PRIOR[:i], PRIOR[i] + 1, *PRIOR[i + 1 :])
        )
        for i in range(8)
    },
    "a multiplier of Philox": (
        independent_latents, "PHILOX", (0xD2511F53, 0xCD9E8D59, *independent_latents.PHILOX[2:])
    ),
    "coders exchanged": (independent_reader, "CODERS", ("orc", "pfr", "mincost", "trellis")),
    **{
        f"a margin of {margin} thousandths for shared indices": (
            independent_reader, "shared_blocks",
            lambda rate, n, margin=margin: min(16, max(1, (millibits(n) - margin) // max(1, rate))),
        )
        for margin in (2999, 3001)
    },
    "the scale of labels": (independent_latents, "label", _moved_label),
    "steps of chunks the other way": (
        independent_latents, "moved", lambda f, steps, right=independent_latents.moved: right(f, -steps)
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_reader_with_one_wrong_constant_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WRONG[what])
    independent_latents.philox.cache_clear()
    wrong = []
    for name in OWN:
        try:
            integers, z = read(name, file_bytes(name))
            right = golden_files.pixels(name)[1]
            if integers != FACTS[name]["integers"] or not np.allclose(z, right, rtol=0, atol=1e-6):
                wrong.append(name)
        except Rejected:
            wrong.append(name)
    independent_latents.philox.cache_clear()
    assert wrong


@pytest.mark.parametrize("change", [lambda s: s + 1, lambda s: s - 1])
def test_a_reader_with_another_table_of_fitted_classes_is_caught(change: Callable[[int], int]) -> None:
    """Frequencies one off in one class: no file of the fitted code may be read as before."""
    fitted = [name for name in OWN if FACTS[name]["index_code"] == "fitted" and FACTS[name]["version"] == 1]
    frequencies = golden_files.reader_model("grey")[0]["rungs"][0]["stages"][0]["fitted"]["pfr"]
    kept, read_wrongly = frequencies[0], 0
    try:
        frequencies[0] = change(kept)
        independent_codes.fitted_classes.cache_clear()
        for name in fitted:
            try:
                read_wrongly += read(name, file_bytes(name))[0] != FACTS[name]["integers"]
            except Rejected:
                read_wrongly += 1
    finally:
        frequencies[0] = kept
    assert read_wrongly
