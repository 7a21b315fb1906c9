"""``rcc train`` from its words to a bundle that codes, and every way it can be refused or interrupted."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rcccodec import cli, codec
from rcccodec.bundle import load_model, read_card
from rcccodec.channel import candidates_at
from rcccodec.checkpoint import load_checkpoint
from rcccodec.commands import console
from rcccodec.errors import InputError, LimitError, ModelError, OutputError
from rcccodec.images import read_image
from rcccodec.proposals.generator import GeneratorSpec, build_generator
from rcccodec.sources import Source, load_source
from rcccodec.sources.samples import sample_bytes
from rcccodec.training import plan as planning
from rcccodec.training import run, rungs
from rcccodec.training.blocks import residuals, source_blocks
from rcccodec.training.card import write_card
from rcccodec.training.plan import make_plan, parse_stage
from rcccodec.training.trainer import Progress, TrainingPlan

DIGITS = ["sample-digits", "-o", "made", "--width", "8", "--vae-steps", "4", "--nerd-steps", "3",
          "--step-candidates", "16", "--candidates", "32"]  # fmt: skip
VECTORS = ["gaussian:m=3,decay=0.5", "-o", "made", "--width", "8", "--vae-steps", "4", "--nerd-steps", "3",
           "--step-candidates", "32", "--candidates", "64"]  # fmt: skip


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run ``rcc train`` in an empty folder: (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCC_DATA", raising=False)

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.run(["train", *arguments])
        out, err = capfd.readouterr()
        assert out == ""
        return code, err

    return call


def test_a_trained_model_compresses_its_digits(train):
    code, err = train(*DIGITS, "--stage", "32:0.2,0.4")
    assert code == 0, err
    assert err.count("Lagrangian") == 2
    model = load_model("made")
    assert [rung.beta for rung in model.rungs] == [0.2, 0.4]
    assert (model.channels, model.default_num_candidates, model.default_seed) == (1, 32, 0)
    digit, _ = read_image(sample_bytes("digit.png"), name="digit.png")
    for coder, index_code in (("pfr", "zipf"), ("orc", "fitted"), ("mincost", "prior")):
        for rung in (0, 1):
            encoded = codec.compress([digit] * 3, model, rung=rung, coder=coder, index_code=index_code)
            decoded = codec.decompress(encoded.data, model)
            assert all(np.array_equal(a, b) for a, b in zip(decoded, encoded.images, strict=True))
            assert len(decoded) == 3


def test_the_card_says_what_was_trained_how_long_and_what_it_reaches(train):
    assert train(*DIGITS, "--stage", "32:0.4", "--data-root", "/nowhere", "--threads", "1", "--quiet") == (
        0,
        "",
    )
    card, model = Path("made/README.md").read_text(), read_card("made")
    assert load_model("made").sha256 in card
    assert (
        "`rcc train sample-digits --stage 32:0.4 --vae-steps 4 --nerd-steps 3 --candidates 32 "
        "--step-candidates 16 --width 8 --threads 1 -o made`" in card
    )
    assert "/nowhere" not in card + json.dumps(model)
    stage = model["rungs"][0]["stages"][0]
    assert stage["held_out_blocks"] == 64  # all the digits that there are, fewer than usual
    assert stage["held_out_codebooks"] == 3
    assert stage["num_candidates"] == 32
    assert stage["saturated"] is False
    assert 0 <= stage["rate_bits"] <= 5
    assert stage["lagrangian_se_bits"] > 0 < stage["lagrangian_se_codebooks_bits"]
    assert f"| 0 | 0 | 32x32 | 0.4 | {stage['rate_bits']:.2f} ± {stage['rate_se_bits']:.2f} |" in card
    assert model["training"][0]["vae_steps"] == 4
    assert model["training_seconds"] >= 0


def test_the_command_on_the_card_trains_the_same_model(train):
    train(*DIGITS, "--stage", "32:0.4", "--quiet")
    first = load_model("made")
    words = read_card("made")["command"].split()
    os.rename("made", "first")
    assert words[:2] == ["rcc", "train"]
    assert train(*words[2:], "--quiet")[0] == 0
    assert load_model("made").rungs[0].stages[0].rate_bits == first.rungs[0].stages[0].rate_bits
    assert Path("made/weights.safetensors").read_bytes() == Path("first/weights.safetensors").read_bytes()


def test_photographs_are_coded_coarse_to_fine(train):
    code, err = train(
        "sample-photos", "-o", "made", "--stage", "8:2@1-4", "--stage", "4:8,16", "--coordinates", "5,4",
        "--blocks", "120", "--width", "8", "--vae-steps", "3", "--nerd-steps", "2", "--candidates", "16",
    )  # fmt: skip
    assert code == 0, err
    model = load_model("made")
    assert [[s.block for s in rung.stages] for rung in model.rungs] == [
        [(8, 8)],
        [(8, 8), (4, 4)],
        [(8, 8), (4, 4)],
    ]
    assert [[s.beta for s in rung.stages] for rung in model.rungs] == [[2], [2, 8], [2, 16]]
    assert model.default_rung == 2
    photo = load_source("sample-photos", "test").images()[0][:21, :30]
    encoded = codec.compress(photo, model, rung=1)
    assert np.array_equal(codec.decompress(encoded.data, model)[0], encoded.images[0])


COARSE = [
    "sample-photos", "--stage", "8:2@1-4", "--stage", "4:8,16", "--coordinates", "5,4", "--blocks", "120",
    "--width", "8", "--vae-steps", "3", "--nerd-steps", "2", "--candidates", "16",
]  # fmt: skip
FINER = [
    "sample-photos", "--stage", "4:20,30", "--coordinates", "6", "--blocks", "120", "--width", "8",
    "--vae-steps", "3", "--nerd-steps", "2",
]  # fmt: skip


def test_a_model_is_extended_and_its_own_rungs_stay_as_they_were(train):
    assert train(*COARSE, "-o", "coarse")[0] == 0
    code, err = train(*FINER, "--extend", "coarse", "-o", "longer")
    assert code == 0, err
    assert err.count("Lagrangian") == 2
    coarse, longer = load_model("coarse"), load_model("longer")
    assert [len(rung.stages) for rung in longer.rungs] == [1, 2, 2, 3, 3]
    assert (longer.default_rung, longer.default_num_candidates) == (coarse.default_rung, 16)
    photo = load_source("sample-photos", "test").images()[0][:21, :30]
    for rung in range(3):
        for coder in ("pfr", "mincost"):
            files = [codec.compress(photo, m, rung=rung, coder=coder) for m in (coarse, longer)]
            assert np.array_equal(files[0].images[0], files[1].images[0])
    finest = codec.compress(photo, longer, rung=4)
    assert np.array_equal(codec.decompress(finest.data, longer)[0], finest.images[0])
    card = Path("longer/README.md").read_text()
    assert "--coordinates 5,4" in card
    assert "--extend coarse" in card


def test_an_extension_sees_what_the_model_leaves(train, monkeypatch: pytest.MonkeyPatch):
    """Its blocks are those that a run of all stages at once would train the same stage on."""
    seen: list[torch.Tensor] = []
    original = run.train

    def spy(x: torch.Tensor, *arguments: object, **options: object) -> object:
        seen.append(x)
        return original(x, *arguments, **options)

    monkeypatch.setattr(run, "train", spy)
    whole = [*COARSE[:5], "--stage", "4:20,30", "--coordinates", "5,4,6", *COARSE[7:]]
    assert train(*whole, "-o", "whole")[0] == 0
    assert train(*COARSE, "-o", "coarse")[0] == 0
    assert train(*FINER, "--extend", "coarse", "-o", "longer")[0] == 0
    assert torch.equal(seen[2], seen[5])
    assert not torch.equal(seen[1][: len(seen[2])], seen[2])  # the control


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["sample-digits"], "of the model's own kind"),
        (["sample-photos", "--stage", "8:4"], "must divide"),
        (["sample-photos", "--stage", "4:" + ",".join("1" * 14)], "at most"),
        (["sample-photos", "--extend", "nothing"], "nothing"),
    ],
)
def test_what_cannot_extend_a_model_is_one_line(train, changes: list[str], reason: str):
    assert train(*COARSE, "-o", "coarse")[0] == 0
    code, err = train("--extend", "coarse", "-o", "longer", *changes)
    assert code != 0
    assert reason in err.splitlines()[-1]
    assert not Path("longer/model.json").exists()


def test_the_slope_of_a_wanted_distortion_is_solved_and_printed(train):
    code, err = train(*VECTORS, "--arch", "fc", "--distortion", "7.6")
    assert code == 0, err
    card = read_card("made")
    beta = card["rungs"][0]["beta"]
    assert f"distortion 7.6 is met at slope beta {beta:g}" in err
    assert card["rungs"][0]["stages"][0]["distortion"] == pytest.approx(7.6, rel=0.1)
    assert card["channels"] == 0


def test_a_distortion_out_of_range_is_said(train):
    code, err = train(*VECTORS, "--distortion", "1e9", "--quiet")
    assert code == 7
    assert "without sending anything" in err
    code, err = train(*VECTORS, "--distortion", "1e-9", "-o", "other")
    assert code == 0
    assert "out of reach" in err
    assert read_card("other")["rungs"][0]["stages"][0]["saturated"] is True


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(VECTORS, "vectors"), ([*DIGITS, "--metric", "lp:1"], "trained for distortion lp:1")],
)
def test_what_no_codec_can_use_is_refused_by_compress(train, capfd, arguments: list[str], reason: str):
    assert train(*arguments, "--quiet") == (0, "")
    Path("in.png").write_bytes(sample_bytes("digit.png"))
    assert cli.run(["compress", "in.png", "-o", "out.rcc", "-m", "made"]) == 5
    assert reason in capfd.readouterr().err
    assert not Path("out.rcc").exists()
    assert load_model("made", for_images=False).rungs[0].stages[0].fitted == {}


def test_minutes_scale_both_phases_and_resuming_keeps_them(train, monkeypatch: pytest.MonkeyPatch):
    ticks = iter(range(1 << 30))
    a_second_a_step = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(planning, "time", a_second_a_step)
    words = [*VECTORS, "--vae-steps", "200", "--nerd-steps", "100", "--minutes", "0.5", "--quiet"]
    assert train(*words)[0] == 0
    steps = load_checkpoint(Path("made/checkpoint-0.safetensors"))[1]["plan"]
    assert (steps["vae_steps"], steps["nerd_steps"]) == (20, 10)
    monkeypatch.setattr(planning, "time", None)  # not asked again
    assert train(*words, "--resume")[0] == 0


def interrupted_at(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, kill: signal.Signals = signal.SIGINT
) -> None:
    """Send Ctrl-C, or another signal, to this process when ``module.name`` is called."""
    function = getattr(module, name)

    def call(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), kill)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, call)


def test_an_interrupt_between_measurements_keeps_the_training(train, monkeypatch: pytest.MonkeyPatch):
    words = [*DIGITS, "--stage", "32:0.2,0.4"]
    with monkeypatch.context() as patch:
        interrupted_at(patch, rungs, "estimate_nerd")
        code, err = train(*words)
    assert code == 130
    assert "--resume" in err
    assert os.listdir("made") == ["checkpoint-0.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with monkeypatch.context() as patch:
        patch.setattr(run, "train", no_more_steps(run.train))
        assert train(*words, "--resume")[0] == 0
    assert len(load_model("made").rungs) == 2


def no_more_steps(function: Callable) -> Callable:
    def call(*arguments: object, **options: object) -> object:
        def report(_: Progress) -> None:
            raise AssertionError("a finished training went on")

        return function(*arguments, **{**options, "report": report})

    return call


@pytest.mark.parametrize(
    ("kill", "exit_code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_second_interrupt_aborts_at_once(
    train, monkeypatch: pytest.MonkeyPatch, kill: signal.Signals, exit_code: int, word: str
):
    interrupted_at(monkeypatch, rungs, "estimate_nerd")
    interrupted_at(monkeypatch, rungs, "fit_histograms", kill)
    code, err = train(*DIGITS)
    assert code == exit_code
    assert err.endswith(f"rcc: {word}\n")
    assert "--resume" not in err
    assert "Traceback" not in err


def test_a_checkpoint_of_other_settings_is_refused_and_kept(train):
    train(*VECTORS, "--quiet")
    before = Path("made/checkpoint-0.safetensors").read_bytes()
    code, err = train(*VECTORS, "--latent-dim", "2", "--resume")
    assert code == 5
    assert "other settings" in err
    assert Path("made/checkpoint-0.safetensors").read_bytes() == before
    Path("made/checkpoint-0.safetensors").write_bytes(before[:1000])
    for words in ([], ["--minutes", "1"]):
        code, err = train(*VECTORS, *words, "--resume")
        assert code == 5
        assert "not a readable checkpoint" in err


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--minutes", "0"], 2, "--minutes"),
        (["--minutes", "nan"], 2, "--minutes"),
        (["--coordinates", "a"], 2, "--coordinates"),
        (["--candidates", "3"], 2, "--candidates"),
        (["--candidates", "33554432"], 2, "--candidates"),
        (["--seed", "-1"], 2, "--seed"),
        (["--metric", "ssim"], 3, "lp:P"),
        (["--distortion", "-1"], 3, "positive"),
        (["--distortion", "nan"], 3, "positive"),
        (["--stage", "32"], 2, "SIDE:SLOPE"),
        (["--stage", "32:0.4@0.5-1"], 2, "SIDE:SLOPE"),
        (["--stage", "16:0.4"], 3, "images are 32x32x1"),
        (["--stage", "32:0.4", "--stage", "12:1"], 3, "must divide"),
        (["--stage", "32:0.2,0.4", "--arch", "dcgan"], 3, "one slope"),
        (["--stage", "32:0.4@0.2-1", "--distortion", "9"], 3, "one slope"),
        (["--stage", "32:" + ",".join(["0.4"] * 17)], 3, "16 slopes"),
        (["--stage", "256:0.4"], 3, "more than"),
        (["--width", "1000000"], 3, "more than"),
        (["--coordinates", "3,4"], 3, "--coordinates"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_training(
    train, words: list[str], code: int, reason: str
):
    got, err = train(*DIGITS, *words)
    assert (got, "Traceback" in err) == (code, False)
    assert reason in err
    assert not os.path.exists("made/model.json")


def test_another_run_can_be_the_warm_start(train):
    words = [*DIGITS, "--stage", "32:0.2,0.4", "--quiet"]
    assert train(*words)[0] == 0
    os.rename("made", "first")
    start = ["--start-from", os.path.abspath("first/checkpoint-0.safetensors"), "--default-rung", "0"]
    assert train(*words, *start, "--jitter", "0.5")[0] == 0
    card = read_card("made")
    assert "--start-from checkpoint-0.safetensors" in card["command"]
    assert (card["default_rung"], card["training"][0]["vae_steps"], card["training"][0]["jitter"]) == (
        0,
        0,
        0.5,
    )
    assert train(*words, *start, "--jitter", "0.5", "--resume")[0] == 0
    code, err = train(*words, *start[:2], "--width", "9", "-o", "wider")
    assert code == 5
    assert "other sizes" in err
    assert train(*words, "--start-from", "none", "-o", "third")[0] == 5
    for more in (["--default-rung", "2"], ["--nerd-steps", "1,2"], [*start[:2], "--stage", "16:1"]):
        assert train(*words, *more, "-o", "third")[0] == 3


def test_a_source_or_an_output_that_is_not_there_is_one_line(train):
    code, err = train("mnist", "-o", "made")
    assert code == 3
    assert "mnist" in err
    Path("made").write_text("a file")
    code, err = train(*DIGITS)
    assert code == 6
    assert "made: cannot write" in err


def test_stages_are_read_as_written():
    assert parse_stage("32:0.15,0.2,0.4") == (32, (0.15, 0.2, 0.4), (0.15, 0.4))
    assert parse_stage("16:3,6@2-10") == (16, (3, 6), (2, 10))
    for text in (
        "",
        ":",
        "a:1",
        "8:",
        "8:0",
        "8:-1",
        "8:nan",
        "8:inf",
        "8:1,nan",
        "8:1@2-1",
        "8:1@2",
        "0:1",
        "8:1@1-2-3",
    ):
        with pytest.raises(InputError, match="SIDE:SLOPE"):
            parse_stage(text)


def test_a_stage_that_cannot_be_read_is_wrong_usage(train):
    code, err = train(*DIGITS, "--stage", "32:x")
    assert code == 2
    assert "SIDE:SLOPE" in err


def test_defaults_follow_the_kind_of_source():
    digits = make_plan("sample-digits", "m", data_root=None).stages[0]
    assert (digits.block, digits.betas, digits.training.generator.output) == ((32, 32), (0.4,), "sigmoid")
    photos = make_plan("sample-photos", "m", data_root=None).stages[0]
    assert (photos.block, photos.training.generator.output) == ((8, 8), "linear")
    assert photos.training.generator.num_coordinates == 192  # none is left out
    vectors = make_plan("gaussian:m=7,decay=0.5", "m", data_root=None, arch="fc").stages[0].training.generator
    assert (vectors.shape, vectors.latent_dim, vectors.width, vectors.output) == ((7,), 7, 7, "linear")
    paper = (
        make_plan("sample-digits", "m", data_root=None, arch="dcgan", from_scratch=True).stages[0].training
    )
    assert (paper.generator.latent_dim, paper.generator.width, paper.vae_steps) == (128, 32, 0)


def test_blocks_of_sources():
    photos, shape = source_blocks(load_source("sample-photos", "train"), (4, 6), channels=3, count=50, seed=1)
    assert (photos.shape, photos.dtype, shape) == ((50, 72), torch.uint8, (4, 6, 3))
    vectors, shape = source_blocks(Source("v", np.ones((5, 2))), (1, 1), channels=0)
    assert (vectors.dtype, shape) == (torch.float32, (2,))
    digits, shape = source_blocks(load_source("sample-digits", "test"), (32, 32), channels=1)
    assert torch.equal(
        digits[0].view(32, 32), torch.from_numpy(load_source("sample-digits", "test").x[0, :, :, 0])
    )


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_residuals_are_what_the_codec_will_see(count: int):
    """x minus the chosen candidate, cut into the next stage's blocks, each share with its own codebook."""
    generator = build_generator(GeneratorSpec("fc", (4, 4, 3), 3, 6)).eval()
    proposal = run.GeneratorProposal(generator.at_slope(1.0))
    x = (torch.rand(count, 48, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    seen: list[tuple[int, int]] = []

    def select(coordinates: torch.Tensor, seed: int) -> torch.Tensor:
        seen.append((len(coordinates), seed))
        return torch.arange(len(coordinates)) * 3 % 5

    left = residuals(x, (4, 4, 3), proposal, select, seeds=[5, 6, 7], stage=1, sub_block=(2, 4))
    assert sum(n for n, _ in seen) == count
    assert [seed for _, seed in seen] == [5, 6, 7][:count]
    y = candidates_at(proposal, torch.tensor([0]), seed=5, stage=1)[0]
    first = (x[0].double() / 255 - y).view(2, 2 * 4 * 3)  # two halves of four rows
    torch.testing.assert_close(left[:2].double(), first, rtol=0, atol=1e-6)
    assert left.shape == (2 * count, 24)


def test_a_slope_is_solved_by_many_blocks():
    plan = TrainingPlan(GeneratorSpec("fc", (2,), 2, 4, 2, "linear"), (1.0, 1.0), 0, 1, target_distortion=1.0)
    generator = build_generator(plan.generator).eval()
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    with pytest.raises(LimitError, match="ask for less"):
        run.solved_slope(x / 10, generator, plan, 64)
    assert run.solved_slope(x * 100, generator, plan, 64) == 1e4
    assert torch.equal(torch.get_rng_state(), before)


def test_a_card_copes_with_errors_that_one_sample_cannot_give():
    stage = {"block": [8, 8], "beta": 1.0, "rate_bits": 2.0, "rate_se_bits": None, "distortion": 3.0,
             "distortion_se": None, "lagrangian_bits": 4.0, "lagrangian_se_codebooks_bits": None,
             "num_candidates": 24, "saturated": True}  # fmt: skip
    text = write_card(
        {"name": "m", "source": "s", "channels": 1, "command": "c", "training_seconds": 1, "default_rung": 0,
         "default_num_candidates": 24, "default_seed": 0, "rungs": [{"beta": 1.0, "stages": [stage]}]}
    )  # fmt: skip
    assert "| 0 | 0 | 8x8 | 1 | 2.00 | 3 | 4.000 | 2.6 | yes |" in text  # log2 24 - 2 = 2.58


def progress(step: int, steps: int = 10) -> Progress:
    return Progress(step, steps, "nerd", 9.0, 0.4, 1.0, 7.5, 21.25)


def test_progress_without_a_terminal_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with console.training_progress(quiet=False) as (tell, say):
        for step in range(4, 11):  # resumed at step 4, half a minute a step
            tell(1, progress(step))
            clock[0] += 30
        say("a result")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stage 1 nerd 6/10: R 7.50 bits, D 21.25, beta 0.4, 2.0 min left"
    assert len(lines) == 4
    assert lines[-1] == "a result"


def test_progress_on_a_terminal_is_a_bar_with_rate_and_distortion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with console.training_progress(quiet=False) as (tell, say):
        for stage in (0, 1):
            for step in range(6, 11):
                tell(stage, progress(step))
        say("a result")
    err = capsys.readouterr().err
    assert "a result\n" in err
    assert "R 7.50 bits, D 21.25, beta 0.4" in err
    assert "stage 1 nerd" in err


def test_quiet_progress_is_silent(capsys: pytest.CaptureFixture[str]):
    with console.training_progress(quiet=True) as (tell, say):
        tell(0, progress(1))
        say("a result")
    assert capsys.readouterr() == ("", "")


def test_the_help_names_every_option_and_its_default():
    text = CliRunner().invoke(cli.rcc, ["train", "--help"], prog_name="rcc").output
    for word in ("--stage", "--minutes", "--blocks", "[60000]", "--resume", "32:0.4", "Examples:"):
        assert word in text


def test_damaged_steps_in_a_checkpoint_are_named(tmp_path: Path):
    (tmp_path / "checkpoint-0.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="checkpoint-0"):
        make_plan("sample-digits", "m", data_root=None, minutes=1.0, checkpoints=tmp_path)
    assert math.isfinite(make_plan("sample-digits", "m", data_root=None).stages[0].training.steps)


def test_an_earlier_run_is_not_replaced_unawares(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.json").write_text("kept")
    done = CliRunner().invoke(cli.rcc, ["train", "sample-digits", "-o", str(folder)])
    assert isinstance(done.exception, OutputError)
    assert "--resume" in str(done.exception)
    assert (folder / "model.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["-o", "coarse", "--resume"], "is the model to extend"),
        (["-o", "longer", "--candidates", "32"], "its N is 16"),
        (["-o", "longer", "--arch", "patches"], "--arch patches"),
    ],
)
def test_an_extension_does_not_change_what_it_extends(train, changes: list[str], reason: str):
    assert train(*COARSE, "-o", "coarse")[0] == 0
    before = Path("coarse/model.json").read_bytes()
    code, err = train(*FINER, "--extend", "coarse", *changes)
    assert code != 0
    assert reason in err.splitlines()[-1]
    assert Path("coarse/model.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        ["--stage", "32:1e12"], ["--minutes", "inf"], ["--jitter", "nan"], ["--coordinates", "5"],
        ["--extend", "made", "--candidates", "inf"],
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused_before_any_training(train, changes: list[str]):
    code, err = train(*DIGITS, *changes)
    assert code in (InputError.exit_code, 2)
    assert "unexpected" not in err
    assert not Path("made/model.json").exists()
