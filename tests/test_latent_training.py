"""``rcc train --arch latent`` on a few small pictures: bundles, resuming, slopes, refusals."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_latent import smooth_picture

from rcccodec import codec
from rcccodec.baselines.compressai import import_compressai
from rcccodec.baselines.run import CHECKPOINT
from rcccodec.bundle import load_model
from rcccodec.errors import InputError, ModelError
from rcccodec.latent.fit import CLASSES, fit_chunk_codes
from rcccodec.latent.model import LatentModel
from rcccodec.training import latent
from rcccodec.training.latent import (
    BETA_OF_LAMBDA,
    DEFAULT_LAMBDAS,
    LatentRun,
    make_run,
    standard_error,
    train_latent,
)

STEPS, BETAS = 4, (1e4, 1e6)  # steep, so that the first weights say something


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small crops, pictures and budgets."""
    for name, value in (("CROPS", 16), ("TABLE_PICTURES", 2), ("HELD_OUT_PICTURES", 2), ("CODE_PICTURES", 1)):
        monkeypatch.setattr(latent, name, value)
    monkeypatch.setattr(latent, "CROP_SIDE", 64)
    monkeypatch.setattr(latent, "HELD_OUT_EFFORT", 1)
    monkeypatch.setattr(latent, "fit_chunk_codes", partial(fit_chunk_codes, budgets=(6,)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        Image.fromarray(smooth_picture(260, 280, seed)).save(folder / f"{seed}.png")
    return str(folder)


def small_run(source: str, **options: object) -> LatentRun:
    fields = {"data_root": None, "betas": BETAS, "steps": STEPS, "latent_dim": 6, "width": 4, **options}
    return make_run(source, "tiny", **fields)


@pytest.fixture(scope="module")
def bundles(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the whole run of ``test_a_run_ends_in_a_bundle_that_codes`` and its resumed twin are written."""
    return tmp_path_factory.mktemp("bundles")


def test_a_run_ends_in_a_bundle_that_codes(pictures: str, bundles: Path) -> None:
    said, steps = [], []
    folder = train_latent(
        small_run(pictures, note="small"),
        bundles / "whole",
        command="rcc train x",
        say=said.append,
        report=steps.append,
    )
    assert folder == bundles / "whole"
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    assert [step.phase for step in steps] == ["noise", "noise", "soft", "soft"]
    assert len(said) == 2 + 3 + 2
    model = load_model(folder)
    assert isinstance(model, LatentModel)
    assert (model.spec.betas, model.spec.latent_dim, model.spec.width) == (BETAS, 6, 4)
    assert (model.spec.classes, model.default_rung) == (CLASSES, 1)
    x = smooth_picture(50, 90, 9)
    made = codec.compress(x, model, effort=1)
    assert np.array_equal(codec.decompress(made.data, model)[0], made.images[0])
    card = json.loads((folder / "model.json").read_bytes())
    assert (card["command"], card["note"], card["training"]["steps"]) == ("rcc train x", "small", STEPS)
    text = (folder / "README.md").read_text()
    assert model.sha256 in text
    for row, rung in zip(card["held_out"], model.rungs, strict=True):
        assert row["rate_bpp"] == rung.rate_bpp > 0
        assert row["ideal_bpp"] == pytest.approx(row["rate_bpp"], rel=0.2)
        assert f"{row['psnr_db']:.2f}" in text
        assert f"| {row['beta'] / BETA_OF_LAMBDA:.2g} |" in text
    assert card["held_out"][0]["rate_bpp"] < card["held_out"][1]["rate_bpp"]


def test_resuming_changes_nothing(pictures: str, bundles: Path) -> None:
    asked = iter(range(100))
    halted = []
    stop = lambda: bool(halted) or (next(asked) == 2 and not halted.append(1))  # noqa: E731
    assert train_latent(small_run(pictures), bundles / "halted", stop=stop) is None
    assert sorted(p.name for p in (bundles / "halted").iterdir()) == [CHECKPOINT]
    train_latent(small_run(pictures), bundles / "halted", resume=True)
    whole = bundles / "whole" / "weights.safetensors"
    if not whole.exists():  # run alone
        train_latent(small_run(pictures), bundles / "whole")
    assert (bundles / "halted" / "weights.safetensors").read_bytes() == whole.read_bytes()
    train_latent(small_run(pictures, seed=1), bundles / "other")  # control
    assert (bundles / "other" / "weights.safetensors").read_bytes() != whole.read_bytes()
    with pytest.raises(ModelError, match="other settings"):
        train_latent(small_run(pictures, seed=1), bundles / "halted", resume=True)


def test_a_run_that_begins_with_latents_chooses_classes_at_once(pictures: str, tmp_path: Path) -> None:
    stop_at = iter(range(100))
    train_latent(small_run(pictures), tmp_path / "first", stop=lambda: next(stop_at) >= 2)
    start = tmp_path / "first" / CHECKPOINT
    plan = small_run(pictures, start_from=start).plan
    assert (plan.rounding_at(0).mode, plan.rate_weight_at(0)) == ("soft", 1.0)
    assert plan.learning_rate < small_run(pictures).plan.learning_rate
    start.write_bytes(b"x")
    with pytest.raises(ModelError):
        small_run(pictures, start_from=start)


def test_lambda_and_beta_are_the_same_slopes(pictures: str) -> None:
    by_lambda = make_run(pictures, "a", data_root=None, lambdas=(0.001, 0.02), steps=1).plan
    by_beta = make_run(
        pictures, "a", data_root=None, betas=(0.001 * BETA_OF_LAMBDA, 0.02 * BETA_OF_LAMBDA), steps=1
    ).plan
    assert by_lambda == by_beta
    default = make_run(pictures, "a", data_root=None).plan.spec.betas
    assert default == tuple(BETA_OF_LAMBDA * one for one in DEFAULT_LAMBDAS)


def nats_and_loss(bits: float, x: torch.Tensor, made: torch.Tensor, lmbda: float) -> tuple[float, float]:
    """Our Lagrangian, and bits a pixel + lambda 255^2 times the mean squared error of all values."""
    pixels = x[:, :1].numel()
    ours = math.log(2) * bits + lmbda * BETA_OF_LAMBDA * float((x - made).square().sum())
    return ours, bits / pixels + lmbda * 255**2 * float((x - made).square().mean())


def test_beta_weighs_errors_as_lambda_does() -> None:
    random = torch.Generator().manual_seed(0)
    x, made = (torch.rand(2, 3, 16, 24, generator=random) for _ in range(2))
    for bits, lmbda in ((1000.0, 0.01), (0.0, 0.3), (77.0, 0.0)):
        ours, theirs = nats_and_loss(bits, x, made, lmbda)
        assert ours == pytest.approx(theirs * math.log(2) * 2 * 16 * 24, rel=1e-5)


def test_that_is_the_loss_of_compressai() -> None:
    try:
        losses = import_compressai("compressai.losses")
    except InputError:
        pytest.skip("CompressAI, an extra, is not installed")
    random = torch.Generator().manual_seed(0)
    x, made = (torch.rand(2, 3, 16, 24, generator=random) for _ in range(2))
    likelihoods = torch.rand(2, 5, 4, 6, generator=random)
    found = losses.RateDistortionLoss(0.013)({"x_hat": made, "likelihoods": {"y": likelihoods}}, x)["loss"]
    assert float(found) == pytest.approx(
        nats_and_loss(-float(likelihoods.log2().sum()), x, made, 0.013)[1], rel=1e-5
    )


def test_what_is_no_photograph_and_sizes_out_of_bounds_are_refused(pictures: str) -> None:
    with pytest.raises(InputError, match="latents are for photographs"):
        small_run("sample-digits")
    for options in ({"latent_dim": 400}, {"width": -1}, {"betas": (3.0, 2.0)}):
        with pytest.raises(InputError):
            small_run(pictures, **options)


def test_minutes_become_steps(pictures: str) -> None:
    steps = small_run(pictures, steps=None, minutes=0.02).plan.steps
    assert 1 <= steps < latent.DEFAULT_STEPS
    assert small_run(pictures, minutes=0.02).plan.steps == STEPS  # which goes first


def test_standard_errors_are_those_of_a_mean() -> None:
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
    assert standard_error(np.array([5.0])) == 0.0
