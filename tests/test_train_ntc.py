"""Training of the baselines, and ``rcc train-ntc`` from its words to a bundle that codes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rcccodec import cli
from rcccodec.baselines import load_baseline
from rcccodec.baselines.run import CHECKPOINT, make_run, measure
from rcccodec.baselines.spec import NtcSpec
from rcccodec.baselines.training import NtcPlan, train
from rcccodec.errors import InputError, ModelError
from rcccodec.sources import load_source

TINY = NtcPlan(NtcSpec("image", (4, 4, 1), (0.5, 2.0), 3, 8, 1, 16), 12, batch_size=4)
DIGITS = ["sample-digits", "-o", "made", "--width", "8", "--latent-dim", "4", "--steps", "4"]
VARIANCES = (4.0, 1.0)


@pytest.fixture(scope="module")
def gaussian() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, np.sqrt(VARIANCES), (40_000, 2))).float()


@pytest.fixture(scope="module")
def trained(gaussian) -> list[dict[str, float]]:
    """Held-out points of a Gaussian's code at a slope where nothing is worth sending, and at two others."""
    plan = NtcPlan(NtcSpec("vector", (2,), (0.02, 1.0, 6.0), 2, 24), 500, batch_size=48)
    network = train(gaussian[:30_000], plan).network.eval()
    tables = network.tables()
    return [measure(network, tables, gaussian[30_000:], k) for k in range(3)]


def _shannon_lagrangian_bits(beta: float) -> float:
    """min R + beta D of independent Gaussians: water level 1 / (2 beta)."""
    level = 1 / (2 * beta)
    rate = sum(max(0.0, 0.5 * math.log2(v / level)) for v in VARIANCES)
    return rate + beta * sum(min(v, level) for v in VARIANCES) / math.log(2)


def test_no_point_beats_shannon_and_steep_slopes_come_close(trained):
    for row in trained:
        assert row["lagrangian_bits"] > _shannon_lagrangian_bits(row["beta"]) - 0.02
    assert (
        trained[2]["lagrangian_bits"] < _shannon_lagrangian_bits(6.0) + 1.2
    )  # scalar quantisers lose 1/4 each
    assert trained[1]["lagrangian_bits"] < 1.0 * sum(VARIANCES) / math.log(2) - 1  # control: sending nothing


def test_only_a_slope_that_is_not_worth_a_bit_collapses(trained):
    nothing, some, more = trained
    assert nothing["rate_bits"] < 0.05
    assert nothing["distortion"] == pytest.approx(sum(VARIANCES), rel=0.05)
    assert some["rate_bits"] > 1
    assert more["rate_bits"] > some["rate_bits"] + 1
    assert more["distortion"] < 0.5 * some["distortion"]


def test_resuming_changes_nothing_and_leaves_the_global_stream_alone(tmp_path):
    x = torch.randint(0, 256, (50, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    whole = train(x, TINY).network.state_dict()
    assert torch.equal(before, torch.get_rng_state())
    path = tmp_path / "c.safetensors"
    steps = iter(range(100))
    assert train(x, TINY, checkpoint=path, stop=lambda: next(steps) == 5).step == 5
    resumed = train(x, TINY, checkpoint=path, resume=True)
    assert resumed.step == 12
    assert all(torch.equal(value, resumed.network.state_dict()[name]) for name, value in whole.items())
    other = train(x, replace(TINY, seed=1)).network.state_dict()  # control
    assert not torch.equal(other["log_gain"], whole["log_gain"])
    with pytest.raises(ModelError, match="other settings"):
        train(x, replace(TINY, seed=1), checkpoint=path, resume=True)
    path.write_bytes(b"x")
    with pytest.raises(ModelError):
        train(x, TINY, checkpoint=path, resume=True)


def test_bfloat16_trains_other_weights_of_the_same_precision_and_ends_near_them():
    x = torch.rand((200, 16), generator=torch.Generator().manual_seed(1))
    plan = replace(TINY, spec=replace(TINY.spec, maps=2), steps=60)
    whole, half = train(x, plan).network.eval(), train(x, replace(plan, bfloat16=True)).network.eval()
    assert all(value.dtype == torch.float32 for value in half.parameters())
    assert not torch.equal(half.log_gain, whole.log_gain)
    a, b = (measure(network, network.tables(), x, 1)["lagrangian_bits"] for network in (whole, half))
    assert b == pytest.approx(a, rel=0.1)


def test_too_few_items_are_refused():
    with pytest.raises(InputError, match="too few"):
        train(torch.zeros(1, 16), TINY)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run ``rcc train-ntc`` in an empty folder: (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCC_DATA", raising=False)

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.run(["train-ntc", *arguments])
        return code, capfd.readouterr().err

    return call


@pytest.mark.parametrize("kind", ["image", "block"])
def test_a_trained_baseline_codes_its_digits(command, kind):
    code, err = command(*DIGITS, "--beta", "0.2,0.4", "--kind", kind, "--threads", "1", "--compact")
    assert code == 0, err
    baseline = load_baseline("made")
    assert (baseline.kind, baseline.betas, baseline.name) == (kind, (0.2, 0.4), "made")
    digits = load_source("sample-digits", "test", limit=5).images()
    decoded = baseline.decompress(baseline.compress(digits, 0.4))
    assert [image.shape for image in decoded] == [(32, 32)] * 5
    card = Path("made/README.md").read_text()
    assert f"--kind {kind} --beta 0.2,0.4" in card
    assert "--compact --threads 1 -o made" in card
    assert baseline.sha256 in card
    held_out = json.loads(Path("made/baseline.json").read_text())["held_out"]
    assert [row["beta"] for row in held_out] == [0.2, 0.4]
    assert all(0 < row["rate_bits"] < 200 and 1 < row["distortion"] < 1024 for row in held_out)
    searched = json.loads(Path("made/baseline.json").read_text())["held_out_searched"]
    for plain, better in zip(held_out, searched, strict=True):
        assert better["lagrangian_bits"] < plain["lagrangian_bits"]


def test_photographs_and_vectors_train_too(command):
    rng = np.random.default_rng(0)
    from PIL import Image

    Path("pictures").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(f"pictures/{i}.png")
    options = ["--width", "4", "--latent-dim", "4", "--steps", "2", "--beta", "10"]
    assert command("pictures", "-o", "first", *options)[0] == 0
    start = ["--start-from", f"first/{CHECKPOINT}"]
    code, err = command("pictures", "-o", "photo", "--kind", "hyperprior", *options, *start)
    assert code == 0, err
    assert (load_baseline("first").kind, load_baseline("photo").kind) == ("factorized", "hyperprior")
    card = Path("photo/README.md").read_text()
    assert f"--start-from {CHECKPOINT} " in card
    code, err = command("sample-digits", "-o", "digits", "--steps", "1", *start)
    assert code == 5
    assert "do not fit" in err
    code, err = command("gaussian:m=3,decay=0.5", "-o", "vectors", "--steps", "3", "--beta", "1,2")
    assert code == 0, err
    assert load_baseline("vectors").kind == "vector"


def test_an_interrupted_run_resumes_and_an_earlier_one_is_not_replaced(command, monkeypatch):
    from rcccodec.baselines import run

    whole = run.train
    monkeypatch.setattr(run, "train", lambda *a, **k: whole(*a, **{**k, "stop": lambda: True}))
    asked: list[int] = []
    monkeypatch.setattr(run, "load_items", lambda *a, f=run.load_items: asked.append(1) or f(*a))
    code, _ = command(*DIGITS)
    assert code == 0  # nobody pressed Ctrl-C: the training alone was cut short
    code, err = command(*DIGITS)
    assert code == 6
    assert "holds an earlier run" in err
    monkeypatch.setattr(run, "train", whole)
    code, err = command(*DIGITS, "--resume")
    assert code == 0, err
    code, err = command(*DIGITS, "--resume", "--seed", "1")
    assert code == 5
    assert "other settings" in err


def test_a_block_code_begins_where_a_one_shot_code_ended(tmp_path):
    x = torch.randint(0, 256, (400, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "one.safetensors"
    one = train(x, replace(TINY, steps=60), checkpoint=path).network.eval()
    spec = replace(TINY.spec, kind="block", latent_dim=12, images_per_code=4)
    start = {"start_from": path, "stop": lambda: True}
    block = train(x, replace(TINY, spec=spec, start="x"), **start).network.eval()
    for k in range(2):
        wanted = measure(one, one.tables(), x, k)
        found = measure(block, block.tables(), x, k)
        assert found["rate_bits"] == pytest.approx(wanted["rate_bits"], abs=1e-6)
        assert found["distortion"] == pytest.approx(wanted["distortion"], abs=1e-4)
        fresh = train(x, replace(TINY, spec=spec), stop=lambda: True).network.eval()  # control
        assert measure(fresh, fresh.tables(), x, k)["distortion"] != pytest.approx(
            wanted["distortion"], abs=1e-4
        )
    image = train(x, replace(TINY, start="x"), **start).network
    assert all(torch.equal(v, image.state_dict()[n]) for n, v in one.state_dict().items())
    for other in ({"latent_dim": 16}, {"betas": (0.5, 3.0)}, {"width": 9}):
        with pytest.raises(ModelError, match="do not fit"):
            train(x, replace(TINY, spec=replace(spec, **other)), **start)


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (["sample-digits", "-o", "x", "--kind", "hyperprior"], 3),
        (["sample-digits", "-o", "x", "--kind", "vector"], 3),
        (["gaussian:m=2", "-o", "x", "--kind", "image"], 3),
        (["gaussian:m=2", "-o", "x", "--jitter", "1"], 3),
        (["sample-digits", "-o", "x", "--width", "100000"], 3),
        (["nothing-there", "-o", "x"], 3),
        (["sample-digits", "-o", "x", "--beta", "2,1"], 2),
        (["sample-digits", "-o", "x", "--beta", "a"], 2),
        (["sample-digits", "-o", "x", "--minutes", "0"], 2),
        (["sample-digits", "-o", "x", "--minutes", "1", "--steps", "1"], 2),
        (["sample-digits"], 2),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(command, words, exit_code):
    code, err = command(*words)
    assert code == exit_code
    assert err
    assert not Path("x").exists()


def test_a_missing_extra_is_said_in_one_line(command, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "compressai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "compressai", None)
    code, err = command(*DIGITS)
    assert code == 3
    assert "pip install 'rcccodec[bench]'" in err
    assert err.count("\n") == 1


def test_minutes_become_steps_and_a_checkpoint_keeps_its_own(command, tmp_path):
    run = make_run("sample-digits", "x", data_root=None, minutes=0.01, width=8, latent_dim=4, betas=(0.4,))
    assert run.plan.steps >= 1
    assert command(*DIGITS)[0] == 0
    again = make_run("sample-digits", "x", data_root=None, minutes=9, checkpoint=Path("made") / CHECKPOINT)
    assert again.plan.steps == 4
