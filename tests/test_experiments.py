"""The experiments of the paper: each script at a toy size, and what its rows must obey whatever the model."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))  # where scripts find each other

pytestmark = pytest.mark.usefixtures("tiny")


def run(name: str, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a script of bench/ and read its result; its figure must be there too."""
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, "-o", str(folder / "out")])
    script.main()
    assert (folder / "out.png").stat().st_size > 3000
    return json.loads((folder / "out.json").read_text())


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """A folder with 8x8 grey images in train/ and test/."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:8, :8]
    for split, count in (("train", 60), ("test", 40)):
        (tmp_path / "blobs" / split).mkdir(parents=True)
        for i, (a, b) in enumerate(rng.uniform(2, 5, (count, 2))):
            blob = np.rint(255 * np.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 4)).astype(np.uint8)
            Image.fromarray(blob).save(tmp_path / "blobs" / split / f"{i:03}.png")
    return tmp_path / "blobs"


def test_effect_of_n_adds_candidates_to_one_codebook(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--model", "grey", "--source", str(blobs), "--log2-candidates", "7", "3", "10"]
    result = run("effect_of_n", [*words, "--rungs", "0", "1", "--seeds", "2"], tmp_path, monkeypatch)
    assert len(result["rows"]) == 2 * 3 * 3
    for beta in (0.5, 2.0):
        estimates = [e for e in result["estimates"] if e["beta"] == beta]
        assert [e["num_candidates"] for e in estimates] == [8, 128, 1024]
        assert all(e["rate_bits"] <= np.log2(e["num_candidates"]) for e in estimates)
        for coder in ("pfr", "orc", "mincost"):
            rows = [r for r in result["rows"] if (r["beta"], r["coder"]) == (beta, coder)]
            assert {r["rd_rate_bits"] for r in rows} == {estimates[-1]["rate_bits"]}  # one reference for all
            for row in rows:
                spent = row["payload_bits_per_image"] + beta * row["distortion"] / np.log(2)
                ideal = row["rd_rate_bits"] + beta * row["rd_distortion"] / np.log(2)
                assert row["excess_bits"] == pytest.approx(spent - ideal)


def test_a_shared_codebook_codes_as_the_model_does(blobs: Path):
    from dataclasses import replace

    from rcccodec import codec
    from rcccodec.bundle import load_model

    effect_of_n = importlib.import_module("effect_of_n")
    model, images = (
        load_model("grey"),
        [np.asarray(Image.open(p)) for p in sorted((blobs / "test").iterdir())],
    )
    stage = model.rungs[1].stages[0]
    codebook = effect_of_n.Codebook(stage, "cpu")
    rung = replace(model.rungs[1], stages=(effect_of_n.SharedStage(**vars(stage), codebook=codebook),))
    shared = replace(model, rungs=(model.rungs[0], rung))
    for n in (300, 4096, 5000):
        options = {"rung": 1, "coder": "pfr", "seed": 3, "num_candidates": n, "index_code": "fitted"}
        assert codec.compress(images, shared, **options).data == codec.compress(images, model, **options).data


def test_gaussian_nerd_is_an_upper_bound_and_its_codes_cost_more_than_rd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--dims", "20", "--betas", "0.5", "1", "--fixed-d", "1", "--steps", "12", "--candidates", "2048"]
    sizes = ["--test-vectors", "200", "--seeds", "3", "--blocks", "40"]
    result = run("gaussian_nerd", [*words, *sizes], tmp_path, monkeypatch)
    forms = [(e["beta"], e["form"]) for e in result["estimates"]]
    assert forms == [
        (0.5, "exact Q_Y"), (0.5, "fixed slope"), (1, "exact Q_Y"), (1, "fixed slope"), (1, "fixed D"),
    ]  # fmt: skip
    exact = {e["beta"]: e for e in result["estimates"] if e["form"] == "exact Q_Y"}
    for e in result["estimates"]:
        lagrangian, best = (
            x["rate_bits"] + x["beta"] * x["distortion"] / np.log(2) for x in (e, exact[e["beta"]])
        )
        assert lagrangian >= best - 0.1  # the same vectors: nothing beats the exact law, a draw's luck aside
    assert len(result["rows"]) == 2 * 2 * 2
    for row in result["rows"]:
        assert row["payload_bits_per_block"] > row["rd_at_own_distortion_bits"]
        assert row["excess_bits"] == pytest.approx(
            row["payload_bits_per_block"] - row["rd_at_own_distortion_bits"]
        )
