"""bench/gpu.py: nothing without a GPU; its rows, tried on the CPU at toy sizes."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
gpu = importlib.import_module("gpu")


def test_without_a_gpu_one_line_is_said_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "-o", str(tmp_path / "gpu.json")])
    gpu.main()
    assert capsys.readouterr().out == "no GPU here: nothing measured, nothing written\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny")
def test_every_search_has_a_rate_its_shares_of_the_peaks_and_a_largest_number() -> None:
    args = argparse.Namespace(
        blocks=3,
        dims=9,
        candidates=256,
        generated=128,
        repeats=2,
        limit_s=0.05,
        peak_size=32,
        models=["grey"],
    )
    result = gpu.measure(args, "cpu")
    assert [row["row"] for row in result["rows"]] == [
        "latents, plain torch", "gaussian search", "grey search",
    ]  # fmt: skip
    assert [row["row"] for row in result["largest"]] == ["gaussian search", "grey search"]
    for row in result["rows"]:
        assert 0 < row["rate_low"] <= row["rate"] <= row["rate_high"]
        assert row["repeats"] == 2
    flop = 2 * 9 * (3 + 1)
    row = result["rows"][1]
    peak = result["peaks_flop_a_second"]["bfloat16"]
    assert row["share_of_bfloat16_peak"] == pytest.approx(row["rate"] * flop / peak)
    assert row["candidates"] == 256


@pytest.mark.parametrize(("limit_s", "largest"), [(1e9, None), (-1.0, 0)])
def test_the_largest_number_doubles_until_time_is_up(limit_s: float, largest: int | None) -> None:
    asked = []

    def search(n: int) -> None:
        asked.append(n)
        if n > 40:
            raise TimeoutError

    if largest is None:
        with pytest.raises(TimeoutError):
            gpu.largest_within(search, 10, limit_s)
        assert asked == [10, 20, 40, 80]
    else:
        assert gpu.largest_within(search, 10, limit_s) == (largest, 0.0)
        assert asked == [10]


def test_work_is_counted_from_the_layers() -> None:
    class Layer:
        latent_dim, weight = 5, torch.ones(5, 7)

        def candidates(self, z: torch.Tensor) -> torch.Tensor:
            return z @ self.weight

    assert gpu.multiply_adds(Layer(), "cpu") == 5 * 7
