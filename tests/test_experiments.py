"""The experiments of the paper: each script at a toy size, and what its rows must obey whatever the model."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_baselines import write_tiny_baselines

from rcccodec import codec
from rcccodec.bundle import load_model
from rcccodec.comparison.image_set import ImageSet

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


def test_lp_distortions_are_ordered_and_the_check_of_it_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--parts", "0.5", "--steps", "3", "--step-candidates", "64", "--candidates", "256"]
    result = run("lp_distortion", [*words, "--test-vectors", "60"], tmp_path, monkeypatch)
    ends = {r["p"]: r["distortion"] for r in result["rows"] if r["rate_bits"] == 0}
    assert ends[1] > ends[2] > ends[3]  # the norms themselves
    assert [(r["p"], r["q"]) for r in result["ordered"]] == [(1, 2), (2, 3)]

    lp_distortion = importlib.import_module("lp_distortion")
    rows = [
        {"p": p, "distortion": d, "rate_bits": bits}
        for p, d, bits in ((1.0, 2.0, 4.0), (1.0, 6.0, 0.0), (2.0, 2.0, 3.5), (2.0, 4.0, 0.0))
    ]
    assert lp_distortion.rate_at(5.0, rows[:2]) == pytest.approx(1)  # half way down from 4 to 0 over 4
    assert lp_distortion.rate_at(1.9, rows[:2]) is None
    (pair,) = lp_distortion.ordering(rows, [1.0, 2.0])
    assert (pair["least_gap_bits"], pair["ordered"]) == (0, True)  # 0.5 at D = 2, 2 at 4, 0 at 6
    rows[2]["rate_bits"] = 4.5
    (pair,) = lp_distortion.ordering(rows, [1.0, 2.0])
    assert (pair["least_gap_bits"], pair["ordered"]) == (-0.5, False)


def test_samples_show_the_small_network_and_every_rung(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--model", "grey", "--source", str(blobs), "--low-slopes", "0.01", "0.02", "--steps", "4"]
    result = run("samples", [*words, "--candidates", "64", "--draws", "20"], tmp_path, monkeypatch)
    assert [(r["model"], r["beta"]) for r in result["rows"]] == [
        ("small network", 0.01), ("small network", 0.02), ("grey", 0.5), ("grey", 2.0),
    ]  # fmt: skip
    test = np.stack([np.asarray(Image.open(p)) for p in sorted((blobs / "test").iterdir())]) / 255
    train = np.stack([np.asarray(Image.open(p)) for p in sorted((blobs / "train").iterdir())]) / 255
    assert result["d_max"] == pytest.approx(np.square(test - train.mean(0)).sum((1, 2)).mean())
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width == 16 * 18 + 2  # 16 draws of 8x8, twice as large


def test_reconstructions_are_shown_with_what_their_files_cost(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--model", "grey", "--source", str(blobs), "--rungs", "0", "1", "--columns", "4"]
    write_tiny_baselines(tmp_path / "baselines")
    words += ["--baseline", str(tmp_path / "baselines" / "image")]
    result = run("reconstructions", words, tmp_path, monkeypatch)
    names = ["grey pfr", "grey mincost", result["baseline"]["name"]]
    assert [r["codec"] for r in result["rows"]] == 2 * names
    images = [np.asarray(Image.open(p)) for p in sorted((blobs / "test").iterdir())]
    row, encoded = result["rows"][0], codec.compress(images, load_model("grey"), rung=0, coder="pfr")
    assert row["payload_bits_per_image"] == pytest.approx(encoded.report.payload_bits / len(images))
    assert row["distortion"] == pytest.approx(encoded.report.distortion)


def test_the_mosaic_gives_every_image_its_own_tile(monkeypatch: pytest.MonkeyPatch):
    colour_32 = importlib.import_module("colour_32")
    monkeypatch.setattr(colour_32, "QUALITIES", {"JPEG": (95,)})
    levels = [np.full((32, 32, 3), 5 * i, np.uint8) for i in range(47)]
    assert colour_32.mosaic(levels).shape == (3 * 32, 20 * 32, 3)
    (point,) = colour_32.mosaic_curve(ImageSet("levels", levels, True), "JPEG").points
    assert (np.sqrt(point.squared_error / 3072) < 2 / 255).all()
    assert len(set(point.payload_bits)) == 1


def test_colour_32_trains_a_model_once_and_codes_with_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 24)):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for i in range(count):
            level = rng.integers(30, 220, 3)
            x = np.clip(level + rng.normal(0, 9, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(x).save(tmp_path / "flat" / split / f"{i:03}.png")
    trained = []

    def train_model(plan: Any, output: Path, **_: Any) -> None:
        trained.append(plan)
        shutil.copytree(tiny / "colour", output)

    colour_32 = importlib.import_module("colour_32")
    monkeypatch.setattr(colour_32, "train_model", train_model)
    words = ["--source", str(tmp_path / "flat"), "--model", str(tmp_path / "model"), "--stage", "16:0.1"]
    sizes = ["--vae-steps", "3", "--nerd-steps", "2", "--seeds", "1", "--candidates", "64", "--images", "20"]
    for _ in range(2):  # the second time the model is there
        result = run("colour_32", [*words, *sizes], tmp_path, monkeypatch)
    (plan,) = trained
    assert (plan.candidates, plan.stages[0].betas, plan.stages[0].training.steps) == (64, (0.1,), 5)
    names = [json.loads((tmp_path / name).read_text())["name"] for name in result["files"].values()]
    assert result["name"] == "model mincost (fitted, shared)"
    assert names == ["model pfr (fitted, shared)", "KLT + ECSQ", "JPEG, one mosaic", "WebP, one mosaic"]


def test_generator_width_compares_at_equal_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--source", "sample-digits", "--widths", "1", "2", "--vae-steps", "1", "--nerd-steps", "1"]
    sizes = ["--batch-size", "4", "--candidates", "32", "--test-images", "8"]
    result = run("generator_width", [*words, *sizes], tmp_path, monkeypatch)
    small, large = result["rows"]
    assert (small["width"], large["width"]) == (1, 2)
    assert small["parameters"] < large["parameters"]
    assert all(r["rate_bits"] <= 5 for r in result["rows"])  # log2 N


def test_mnist_figure_copies_the_comparison_and_adds_blahut_arimoto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["--source", "sample-digits", "--images", "20", "--samples", "16", "--betas", "0.1", "1", "5"]
    result = run("mnist_figure", words, tmp_path, monkeypatch)
    main = json.loads((ROOT / "bench" / "results" / "mnist_comparison.json").read_text())
    assert result["codecs"][0]["bits"] == main["results"]["bits_per_image"]
    inside, outside = result["blahut_arimoto"]
    assert max(inside["bits"]) == pytest.approx(4, abs=0.05)  # log2 16: every sample its own candidate
    assert min(inside["distortion"]) < 0.5 < min(outside["distortion"])


def test_block_codes_are_held_against_the_one_shot_code(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_tiny_baselines(tmp_path / "baselines")
    folders = [str(tmp_path / "baselines" / kind) for kind in ("image", "block")]
    words = ["--one-shot", folders[0], "--block", folders[1], "--source", str(blobs)]
    result = run("block_codes", words, tmp_path, monkeypatch)
    assert [len(result[name]["bits"]) for name in ("one_shot", "block")] == [2, 2]
    block_codes = importlib.import_module("block_codes")
    one_shot = {"distortion": [9.0, 4.0, 1.0], "bits": [1.0, 5.0, 9.0]}
    block = {"distortion": [10.0, 2.0], "bits": [1.0, 5.0]}
    assert [s["saving_bits"] for s in block_codes.savings(one_shot, block)] == pytest.approx([-0.5, 1])
    monkeypatch.setattr(
        sys, "argv", ["block_codes.py", "--block", "no-such-baseline", "--source", str(blobs)]
    )
    with pytest.raises(SystemExit, match=r"^block_codes.py: "):
        block_codes.main()
