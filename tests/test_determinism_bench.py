"""What bench/determinism.py measures: planted differences are counted, and small runs find none."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rcccodec.latent import windows
from rcccodec.latent.network import LatentNetwork

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import determinism
import other_decoders
from tiny_latent import smooth_picture


def test_differences_are_counted() -> None:
    assert determinism.differing_bytes(b"abcd", b"abcd") == 0
    assert determinism.differing_bytes(b"abcd", b"xbcdef") == 3
    x = np.zeros((4, 5), np.uint8)
    y = x.copy()
    y[1, 2:4] = 1
    assert determinism.differing_samples([x, x], [x, y]) == 2
    assert determinism.differing_samples([x], [x[:2]]) == 20


@pytest.mark.parametrize("alone", [True, False])
def test_networks_that_feel_the_threads_are_noticed(
    latent_model, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    plain = LatentNetwork.latents_of
    monkeypatch.setattr(
        LatentNetwork,
        "latents_of",
        lambda self, y, slope: plain(self, y, slope) + 0.1 * (torch.get_num_threads() - 1),
    )
    if not alone:
        monkeypatch.setattr(windows, "each_alone", lambda work, items: [work(i, None) for i in items])
    images = [smooth_picture(60, 270, 1), smooth_picture(40, 50, 2)]
    row = determinism.compare_threads(images, latent_model, (1, 2), coder="trellis", effort=1)
    assert (row["files"], row["samples"]) == (1, 3 * sum(x.size for x in images))
    assert row["differing_bytes"] == 0
    assert (row["differing_samples"] == 0) == alone


def test_regions_and_company_of_a_tiny_model(latent_model) -> None:
    images = [smooth_picture(300, 290, 1), smooth_picture(40, 50, 2)]
    parts = determinism.compare_parts(images[0], latent_model, 10, 0)
    assert parts["regions"] == 10
    assert parts["samples"] > 1000
    assert parts["differing_samples"] == 0
    company = determinism.compare_company(images, latent_model, coder="pfr", num_candidates=64)
    assert company["bytes"] > 100
    assert company["differing_bytes"] == 0


def photograph() -> np.ndarray:
    return np.ascontiguousarray(determinism.load_source("sample-photos", "test").images()[0][:100, :120])


def test_another_decoder() -> None:
    row = determinism.compare_blocks("mnist", 3, 1)
    assert row["samples"] == 8 * 3 * 1024
    assert row["samples_apart"] == 0
    model = determinism.load_model("photo")
    x = photograph()
    row = determinism.compare_photographs([x], model)
    assert row["samples"] == 6 * x.size
    assert row["largest_difference_grey_levels"] <= 1
    assert row["samples_apart"] <= 1e-4 * row["samples"]


def test_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_decoders, "PROCESSORS", other_decoders.PROCESSORS[1:])
    model = determinism.load_model("photo")
    row = determinism.compare_processors([photograph()], model, tmp_path, num_candidates=64)
    assert row["samples"] == 100 * 120 * 3
    assert row["largest_difference_grey_levels"] <= 1
    assert row["samples_apart"] <= 1e-4 * row["samples"]
