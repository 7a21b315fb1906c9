"""bench/golden.py at a small size: what it counts, and that it counts what is wrong."""

import sys
from pathlib import Path

import golden_files
import pytest

from rcccodec import codec, container

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
import golden

FEW = ("v1-pfr-zipf", "v2-joint-prior", "v3-orc", "v4-apart")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = golden_files.facts()
    monkeypatch.setattr(golden_files, "facts", lambda: {name: dict(facts[name]) for name in FEW})


def test_all_is_well_with_golden_files() -> None:
    made = golden.measure_golden(altered=30)
    for count in ("files", "decoded", "written", "encoded", "read", "by_encoder"):
        assert made[count] == len(FEW), count
    assert made["samples"] > 0
    assert made["failures"] == []
    altered = made["alterations"]
    assert altered["both_refused"] + altered["both_read"] == altered["files"] == 30
    assert altered["disagreed"] == 0


def test_every_bit_is_flipped_and_seen() -> None:
    sizes = [len(golden_files.file_bytes(name)) for name in FEW]
    made = golden.measure_flips()
    assert made["flips"] == 8 * sum(sizes) == made["by_unpack"] == made["by_document"]
    assert made["unnoticed"] == made["by_decoding"] == 0
    assert golden.measure_flips(of_each=3)["flips"] == 3 * len(FEW)


def test_what_is_wrong_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = golden_files.facts()
    facts["v1-pfr-zipf"]["integers"][0][0][1][0] += 1
    monkeypatch.setattr(golden_files, "facts", lambda: facts)
    made = golden.measure_golden(altered=0)
    assert (made["decoded"], made["written"], made["read"]) == (3, 3, 3)
    assert made["encoded"] == 4
    assert len(made["failures"]) == 3


def test_flips_that_nothing_sees_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "unpack", lambda data: None)
    monkeypatch.setattr(codec, "decompress", lambda data, model: [])
    made = golden.measure_flips(of_each=2)
    assert made["unnoticed"] == made["flips"] == len(made["failures"]) == 8


def test_a_reader_that_disagrees_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_document", lambda fact, data: [])
    altered = golden.measure_agreement(20, 0)
    assert altered["disagreed"] == 20
