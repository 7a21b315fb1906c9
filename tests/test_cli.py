"""The command line: what it writes, prints and returns, in every good and bad case that it documents."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcccodec import cli, codec
from rcccodec.bundle import load_model, read_card
from rcccodec.commands import console
from rcccodec.images import read_image

COMPRESS_KEYS = [
    "file_bytes", "payload_bits", "bpp", "psnr_db", "distortion", "blocks", "rate_bits_per_block",
    "rd_estimate_bits", "guarantee_bits", "certified_fraction", "log2_num_candidates", "encode_s",
    "model", "rung", "beta",
]  # fmt: skip
INFO_KEYS = [
    "format_version", "model", "model_sha256", "model_status", "coder", "index_code", "seed",
    "num_candidates", "images", "payload_bits", "file_bytes",
]  # fmt: skip


@pytest.fixture
def work(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a colour ramp in.png and a digit-like grey.png."""
    monkeypatch.chdir(tmp_path)
    ramp = np.add.outer(np.arange(20) * 6, np.arange(30) * 4)[..., None] + np.array([0, 10, 20])
    Image.fromarray(ramp.astype(np.uint8)).save("in.png")
    Image.fromarray(ramp[:8, :8, 0].astype(np.uint8)).save("grey.png")
    return tmp_path


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    """A fresh interpreter with the package on its path."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, env=environment, check=False, **options
    )


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_picture_goes_there_and_back(work: Path, rcc):
    assert rcc("compress", "in.png", "-o", "in.rcc", "-m", "colour")[0] == 0
    code, out, _ = rcc("decompress", "in.rcc", "-o", "out.png")
    assert (code, out) == (0, "out.png: 30x20 rgb\n")
    x_hat, _ = read_image("out.png")
    np.testing.assert_array_equal(x_hat, codec.decompress(Path("in.rcc").read_bytes())[0])
    assert names(work) == ["grey.png", "in.png", "in.rcc", "out.png"]


def test_the_summary_says_costs_guarantee_and_margin(work: Path, rcc):
    _, out, err = rcc("compress", "in.png", "-o", "in.rcc", "-m", "colour", "--coder", "pfr")
    assert f"in.rcc: 1 image, {(work / 'in.rcc').stat().st_size} bytes" in out
    for word in ("bpp", "PSNR", "payload", "guarantee", "log2 N - R", "certified"):
        assert word in out
    assert "exact channel simulation" not in out
    _, out, _ = rcc("compress", "in.png", "-o", "in.rcc", "-m", "colour")
    assert "not an exact channel simulation" in out
    assert err == ""


def test_saturation_is_one_warning_line(work: Path, rcc):
    _, _, err = rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour", "--candidates", "8")
    assert err.count("\n") == 1
    assert err.startswith("rcc: warning: saturated: log2 N - R")
    assert rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour", "--candidates", "8", "--quiet")[2] == ""


def test_compress_json_has_the_documented_keys(work: Path, rcc):
    code, out, _ = rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour", "--json", "--quiet")
    report = json.loads(out)
    assert code == 0
    assert list(report) == COMPRESS_KEYS
    assert report["file_bytes"] == (work / "a.rcc").stat().st_size
    assert (report["model"], report["rung"], report["beta"]) == ("colour", 0, 0.5)
    _, out, _ = rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour", "--json", "--beta", "3")
    assert (json.loads(out)["rung"], json.loads(out)["beta"]) == (2, 4.0)


def test_info_json_has_the_documented_keys(work: Path, rcc, tiny: Path):
    rcc("compress", "in.png", "grey.png", "grey.png", "-o", "a.rcc", "-m", "colour", "--seed", "77")
    facts = json.loads(rcc("info", "a.rcc", "--json")[1])
    assert list(facts) == INFO_KEYS
    assert facts["model"] == "colour"
    assert facts["model_sha256"] == load_model("colour").sha256
    assert (facts["coder"], facts["index_code"]) == ("mincost", "fitted")
    assert (facts["seed"], facts["num_candidates"], facts["format_version"]) == (77, 256, 5)
    assert facts["images"] == [
        {"count": 1, "width": 30, "height": 20, "mode": "rgb"},
        {"count": 2, "width": 8, "height": 8, "mode": "grey"},
    ]
    assert facts["file_bytes"] == (work / "a.rcc").stat().st_size
    assert "30x20 rgb; 2 x 8x8 grey" in rcc("info", "a.rcc")[1]


def test_files_of_a_model_decode_after_its_folder_is_renamed(
    work: Path, rcc, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tiny / "grey", work / "shipped" / "before")
    monkeypatch.setenv("RCC_MODELS", str(work / "shipped"))
    assert rcc("compress", "grey.png", "-o", "a.rcc", "-m", "before")[0] == 0
    assert json.loads(rcc("info", "a.rcc", "--json")[1])["model"] == "before"
    (work / "shipped" / "before").rename(work / "shipped" / "after")
    assert json.loads(rcc("info", "a.rcc", "--json")[1])["model"] == "after"
    assert rcc("decompress", "a.rcc", "-o", "a.png")[0] == 0
    assert rcc("compress", "grey.png", "-o", "b.rcc", "-m", "before")[0] == 5
    assert rcc("compress", "grey.png", "-o", "b.rcc", "-m", "after")[0] == 0
    assert Path("a.rcc").read_bytes() == Path("b.rcc").read_bytes()


def test_info_does_without_the_model(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    sha256 = load_model("grey").sha256
    monkeypatch.setenv("RCC_MODELS", str(work))
    facts = json.loads(rcc("info", "a.rcc", "--json")[1])
    assert (facts["model"], facts["model_sha256"]) == (None, sha256[:12])
    assert rcc("info", "a.rcc")[0] == 0
    code, _, err = rcc("decompress", "a.rcc", "-o", "x.png")
    assert code == 5
    assert sha256[:12] in err


def test_several_inputs_make_an_archive_and_a_folder(work: Path, rcc):
    assert rcc("compress", "in.png", "grey.png", "-o", "both.rcc", "-m", "colour")[0] == 0
    assert rcc("decompress", "both.rcc", "-o", "both")[0] == 0
    assert names(work / "both") == ["0000.png", "0001.png"]
    assert [read_image(work / "both" / n)[0].shape for n in names(work / "both")] == [(20, 30, 3), (8, 8)]


def test_an_archive_is_not_decoded_before_its_output_has_a_good_name(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    rcc("compress", "in.png", "grey.png", "-o", "both.rcc", "-m", "colour")
    rcc("compress", "grey.png", "-o", "one.rcc", "-m", "grey")
    before = names(work)

    def refused(source: str, output: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(codec, "decompress", None)
            code, out, err = rcc("decompress", source, "-o", output)
        assert (code, out, err.count("\n")) == (6, "", 1)
        assert names(work) == before
        return err

    hint = "2 images need a folder here, as in -o new/\n"
    for name in ("new.png", "new.JPG"):
        assert refused("both.rcc", name) == f"rcc: error: {name} names a file: {hint}"
    assert "in.png is a file: 2 images need a folder here, as in -o in/" in refused("both.rcc", "in.png")
    assert "one.rcc is a file: 2 images need" in refused("both.rcc", "one.rcc")
    assert "1 image needs a folder here" in refused("one.rcc", "in.png/")
    assert "standard output" in refused("both.rcc", "-")
    assert "no folder" in refused("both.rcc", "nowhere/new")
    assert "no folder" in refused("one.rcc", "nowhere/new.png")
    assert "without loss" in refused("one.rcc", "new.jpg")
    for name in ("new.png/", "new"):  # the control: names that are fine
        assert rcc("decompress", "both.rcc", "-o", name)[0] == 0
        assert names(work / name) == ["0000.png", "0001.png"]


def test_more_pixels_than_allowed_are_one_line(work: Path, rcc):
    rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour")
    code, _, err = rcc("decompress", "a.rcc", "-o", "a.png", "--max-pixels", "599")
    assert (code, err) == (
        7,
        "rcc: error: a.rcc: 600 pixels, more than the 599 that max-pixels allows\n",
    )
    assert not (work / "a.png").exists()
    assert rcc("decompress", "a.rcc", "-o", "a.png", "--max-pixels", "600")[0] == 0
    assert rcc("decompress", "a.rcc", "-o", "a.png", "--max-pixels", "0")[0] == 2


def test_one_image_goes_into_a_folder_that_exists(work: Path, rcc):
    rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    (work / "there").mkdir()
    assert rcc("decompress", "a.rcc", "-o", "there")[0] == 0
    assert names(work / "there") == ["0000.png"]


def test_pipes_carry_images_and_files(work: Path):
    arguments = ["-m", "rcccodec.cli", "compress", "-", "-o", "-", "-m", "grey", "--json"]
    compressed = python(*arguments, input=(work / "grey.png").read_bytes())
    assert compressed.returncode == 0
    assert json.loads(compressed.stderr)["file_bytes"] == len(compressed.stdout)
    back = python("-m", "rcccodec.cli", "decompress", "-", "-o", "-", input=compressed.stdout)
    assert back.returncode == 0
    pixels = np.asarray(Image.open(io.BytesIO(back.stdout)))
    np.testing.assert_array_equal(pixels, codec.decompress(compressed.stdout)[0])


def test_beta_and_quality_choose_the_rung(work: Path, rcc):
    def rung(*options: str) -> int:
        assert rcc("compress", "in.png", "-o", "a.rcc", "-m", "colour", *options)[0] == 0
        return (work / "a.rcc").read_bytes()[10] >> 4

    assert rung() == 0
    assert [rung("--beta", b) for b in ("0.1", "1.1", "99")] == [0, 1, 2]
    assert [rung("--quality", q) for q in ("0", "50", "100")] == [0, 1, 2]


def test_targets_are_met_by_real_encodes(work: Path, rcc):
    sizes, psnrs = [], []
    for beta in ("0.5", "1", "4"):
        arguments = ["compress", "in.png", "-o", "a.rcc", "-m", "colour", "--beta", beta, "--json"]
        report = json.loads(rcc(*arguments)[1])
        sizes.append(8 * report["file_bytes"])
        psnrs.append(report["psnr_db"])
    target = max(sizes)
    arguments = ["compress", "in.png", "-o", "t.rcc", "-m", "colour", "--json"]
    report = json.loads(rcc(*arguments, "--target-bits", str(target))[1])
    assert 8 * report["file_bytes"] <= target
    assert report["psnr_db"] == psnrs[2]
    report = json.loads(rcc(*arguments, "--target-psnr", str(min(psnrs)))[1])
    assert report["psnr_db"] >= min(psnrs)
    before = (work / "t.rcc").read_bytes()
    for impossible in (["--target-bits", "8"], ["--target-psnr", "90"]):
        code, _, err = rcc(*arguments, *impossible)
        assert code == 7
        assert err.count("\n") == 1
    assert (work / "t.rcc").read_bytes() == before


def test_models_lists_the_ladders(tiny: Path, rcc):
    out = rcc("models")[1]
    assert f"colour: colour, trained on nothing, N 256, {load_model('colour').sha256[:12]}\n" in out
    assert "rung 2  beta 4" in out
    cards = json.loads(rcc("models", "--json")[1])
    assert cards["grey"] == read_card("grey") | {"sha256": load_model("grey").sha256}


def test_samples_are_drawn_as_a_grid(work: Path, rcc):
    words = ["samples", "colour", "-o", "grid.png", "--count", "5", "--beta", "4", "--seed", "3"]
    assert rcc(*words) == (0, "written: grid.png\n", "")
    assert rcc(*words, "--quiet") == (0, "", "")
    grid, _ = read_image("grid.png")
    assert grid.shape == (2 * 16, 3 * 8, 3)
    assert (grid[16:, 16:] == 255).all()
    tiles = codec.draw_samples(load_model("colour"), 2, 5, 3)
    np.testing.assert_array_equal(grid[:16, 8:16], tiles[1])


def test_no_overwrite_keeps_what_is_there(work: Path, rcc):
    (work / "a.rcc").write_bytes(b"mine")
    code, _, err = rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey", "--no-overwrite")
    assert code == 6
    assert "a.rcc: exists" in err
    assert (work / "a.rcc").read_bytes() == b"mine"
    rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    assert rcc("decompress", "a.rcc", "-o", "in.png", "--no-overwrite")[0] == 6
    assert rcc("samples", "grey", "-o", "in.png", "--no-overwrite")[0] == 6


BAD = [
    (3, ["compress", "missing.png", "-o", "a.rcc", "-m", "grey"], "missing.png"),
    (3, ["compress", "noise", "-o", "a.rcc", "-m", "grey"], "noise"),
    (3, ["decompress", "missing.rcc", "-o", "a.png"], "missing.rcc"),
    (4, ["decompress", "noise", "-o", "a.png"], "noise"),
    (4, ["decompress", "cut.rcc", "-o", "a.png"], "cut.rcc"),
    (4, ["info", "cut.rcc"], "cut.rcc"),
    (4, ["info", "empty"], "empty"),
    (5, ["compress", "grey.png", "-o", "a.rcc", "-m", "nobody"], "nobody"),
    (5, ["decompress", "good.rcc", "-o", "a.png", "-m", "colour"], "made with model grey ("),
    (5, ["samples", "nobody", "-o", "a.png"], "nobody"),
    (3, ["train", "no-such-source", "-o", "m"], "no-such-source"),
    (6, ["compress", "grey.png", "-o", "nowhere/a.rcc", "-m", "grey"], "nowhere/a.rcc"),
    (6, ["compress", "grey.png", "-o", "/dev/full", "-m", "grey"], "No space left"),
    (6, ["decompress", "good.rcc", "-o", "nowhere/a.png"], "nowhere/a.png"),
    (6, ["decompress", "good.rcc", "-o", "a.jpg"], "a.jpg"),
    (7, ["compress", "grey.png", "-o", "a.rcc", "-m", "grey", "--candidates", "0"], "0 candidates"),
    (7, ["compress", "grey.png", "-o", "a.rcc", "-m", "grey", "--seed", "-1"], "seed -1"),
    (7, ["compress", "grey.png", "-o", "a.rcc", "-m", "grey", "--quality", "101"], "quality 101"),
    (7, ["compress", "grey.png", "-o", "a.rcc", "-m", "grey", "--beta", "0"], "beta 0"),
]


@pytest.mark.parametrize(("exit_code", "arguments", "cause"), BAD, ids=lambda v: str(v)[:50])
def test_bad_input_is_one_clear_line_and_nothing_is_left(
    work: Path, rcc, exit_code: int, arguments: list[str], cause: str
):
    rcc("compress", "grey.png", "-o", "good.rcc", "-m", "grey")
    (work / "cut.rcc").write_bytes((work / "good.rcc").read_bytes()[:-1])
    (work / "noise").write_bytes(b"\x89PNG but not really")
    (work / "empty").write_bytes(b"")
    before = names(work)
    code, out, err = rcc(*arguments)
    assert code == exit_code
    assert out == ""
    assert err.startswith("rcc: error: ")
    assert err.count("\n") == 1
    assert cause in err
    assert names(work) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress"],
        ["compress", "in.png"],
        ["compress", "in.png", "-o", "a.rcc", "--coder", "best"],
        ["compress", "in.png", "-o", "a.rcc", "--beta", "1", "--quality", "5"],
        ["compress", "-", "-", "-o", "a.rcc"],
        ["unknown"],
        ["train", "sample-digits"],
        ["train", "sample-digits", "-o", "m", "--minutes", "-1"],
        ["train", "sample-digits", "-o", "m", "--coordinates", "a"],
    ],
)
def test_wrong_usage_is_exit_code_2(work: Path, rcc, arguments: list[str]):
    code, out, err = rcc(*arguments)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert names(work) == ["grey.png", "in.png"]


@pytest.mark.parametrize("command", [[], *([c] for c in cli.rcc.commands)])
def test_every_help_page_documents_exit_codes_and_ends_in_examples(rcc, command: list[str]):
    code, out, _ = rcc(*command, "--help")
    assert code == 0
    assert "130 interrupted" in out
    assert "143 terminated" in out
    examples = out.split("Examples:")[1].strip().splitlines()
    assert examples
    assert all("rcc " in line for line in examples)


def test_the_readme_documents_the_exit_codes():
    readme = (Path(cli.__file__).parents[1] / "README.md").read_text()
    for line in console.EXIT_CODES.splitlines()[2:]:
        code = line.split()[0]
        assert f"| {code} |" in readme


def test_help_and_info_load_no_torch(work: Path, rcc):
    rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    for arguments in (["--help"], ["compress", "--help"], ["info", "a.rcc"], ["models"], ["--version"]):
        code = (
            f"import sys; from rcccodec import cli; cli.run({arguments}); assert 'torch' not in sys.modules"
        )
        done = python("-c", code)
        assert done.returncode == 0, done.stderr.decode()


def test_a_reader_that_goes_away_is_an_output_error(work: Path, rcc):
    rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "rcccodec.cli", "info", "a.rcc"],
        stdout=writer, stderr=subprocess.PIPE, env=environment, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 6
    assert done.stderr.decode().count("\n") == 1


@pytest.mark.parametrize(
    ("kill", "exit_code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupt_leaves_nothing_behind(work: Path, kill: signal.Signals, exit_code: int, word: str):
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    marker = work / "started"
    code = (
        "import pathlib, rcccodec.stages as c, rcccodec.cli as cli\n"
        "search = c.select\n"
        f"def begin(*a, **k):\n    pathlib.Path({str(marker)!r}).touch()\n    return search(*a, **k)\n"
        "c.select = begin\n"
        "cli.main()\n"
    )
    arguments = ["compress", "in.png", "-o", "a.rcc", "-m", "colour", "--candidates", str(1 << 24)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(kill)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    assert err.lstrip("\n") == f"rcc: {word}\n"  # click ends the line that shows ^C
    assert names(work) == ["grey.png", "in.png", "started"]


def test_an_unexpected_failure_is_one_line_unless_debugging(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(codec, "compress", broken)
    code, _, err = rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")
    assert (code, err) == (1, "rcc: error: unexpected ZeroDivisionError: a bug\n")
    monkeypatch.setenv("RCC_DEBUG", "1")
    assert "Traceback" in rcc("compress", "grey.png", "-o", "a.rcc", "-m", "grey")[2]


def test_notes_on_the_input_go_to_standard_error(work: Path, rcc):
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save("clear.png")
    _, out, err = rcc("compress", "clear.png", "-o", "a.rcc", "-m", "grey")
    assert "rcc: note: clear.png: transparency" in err
    assert "transparency" not in out
    assert rcc("compress", "clear.png", "-o", "a.rcc", "-m", "grey", "--quiet")[1:] == ("", "")


TRAIN = [
    "train", "sample-digits", "-o", "made", "--stage", "32:0.2,0.4", "--width", "16", "--vae-steps", "12",
    "--nerd-steps", "6", "--candidates", "32", "--quiet",
]  # fmt: skip


def test_train_makes_a_model_that_compresses(work: Path, rcc):
    assert rcc(*TRAIN)[0] == 0
    assert [rung["beta"] for rung in read_card("made")["rungs"]] == [0.2, 0.4]
    assert rcc("compress", "grey.png", "-o", "a.rcc", "-m", "made")[0] == 0
    assert rcc("decompress", "a.rcc", "-o", "b.png", "-m", "made")[0] == 0


def test_training_interrupted_and_resumed_is_training_uninterrupted(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    from rcccodec.training import trainer

    step = trainer._step_loss

    def interrupt(*arguments: object) -> object:
        if arguments[2] == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    rcc(*TRAIN)
    os.rename("made", "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_step_loss", interrupt)
        code, _, err = rcc(*TRAIN)
    assert code == 130
    assert "--resume" in err
    assert names(work / "made") == ["checkpoint-0.safetensors"]
    assert rcc(*TRAIN, "--resume")[0] == 0
    weights = [(work / folder / "weights.safetensors").read_bytes() for folder in ("made", "whole")]
    assert weights[0] == weights[1]


def test_training_terminated_writes_its_checkpoint(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    from rcccodec.training import trainer

    step, before = trainer._step_loss, signal.getsignal(signal.SIGTERM)

    def kill(*arguments: object) -> object:
        if arguments[2] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(trainer, "_step_loss", kill)
    code, _, err = rcc(*TRAIN)
    assert code == 143
    assert "--resume" in err
    assert err.count("\n") == 1
    assert names(work / "made") == ["checkpoint-0.safetensors"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("gaussian:m=4,decay=0.5", ["--arch", "fc", "--distortion", "2", "--width", "8"]),
        ("sample-photos", ["--stage", "8:1,2", "--stage", "4:4", "--width", "8", "--coordinates", "6,4"]),
        ("sample-digits", ["--arch", "dcgan", "--width", "2", "--method", "nerd", "--stage", "32:0.3"]),
    ],
)
def test_every_kind_of_training_runs(work: Path, rcc, source: str, options: list[str]):
    quick = ["--vae-steps", "2", "--nerd-steps", "2", "--step-candidates", "8", "--candidates", "16"]
    code, _, err = rcc("train", source, "-o", "made", *quick, *options)
    assert code == 0, err
    assert (work / "made" / "model.json").exists()


def test_the_demo_prints_costs_and_guarantees_and_writes_a_picture(
    work: Path, rcc, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, model in (("photo", "colour"), ("mnist", "grey")):
        shutil.copytree(tiny / model, work / "shipped" / name)
    monkeypatch.setenv("RCC_MODELS", str(work / "shipped"))
    code, out, err = rcc("demo", "-o", "side.png")
    assert (code, err) == (0, "")
    for word in ("coffee.png: 384x256", "digit.png: 32x32", "bits", "bpp", "PSNR", "R + log2(R + 1) + 5"):
        assert word in out
    assert "stage 1  8x8 blocks: R 2.50 bits, guarantee R + log2(R + 1) + 5 = 9.31 bits" in out
    picture, _ = read_image("side.png")
    assert picture.shape[1] > 2 * 384
    assert picture.shape[0] > 2 * 256


def test_file_names_need_not_be_utf8(work: Path, rcc):
    name = os.fsdecode(b"\xff\xe9.rcc")
    assert rcc("compress", "in.png", "-o", name, "--model", "colour")[0] == 0
    assert rcc("decompress", name, "-o", name.replace("rcc", "png"))[0] == 0


@pytest.mark.parametrize("command", ["compress", "decompress", "samples"])
def test_an_empty_output_name_is_wrong_usage(work: Path, rcc, command: str):
    assert rcc(command, "in.png", "-o", "")[0] == 2


@pytest.mark.parametrize("damage", [lambda w: w.unlink(), lambda w: w.write_bytes(w.read_bytes()[:-1])])
def test_a_model_with_damaged_weights_is_not_listed_as_sound(
    work: Path, rcc, tiny: Path, monkeypatch: pytest.MonkeyPatch, damage
):
    shutil.copytree(tiny, work / "all")
    monkeypatch.setenv("RCC_MODELS", str(work / "all"))
    assert "grey:" in rcc("models")[1]
    damage(work / "all" / "grey" / "weights.safetensors")
    code, out, err = rcc("models")
    assert code == 0
    assert "grey:" not in out
    assert "colour:" in out
    assert "grey/weights.safetensors" in err


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ('{"bundle_version": 1}', "broken: damaged model description"),
        ('{"bundle_version": 1, "channels": 1, "rungs": 3}', "broken: damaged model description"),
        ("{", "broken/model.json: not a model description"),
    ],
)
def test_a_damaged_model_is_a_warning_beside_the_list(
    work: Path, rcc, tiny: Path, monkeypatch: pytest.MonkeyPatch, content: str, cause: str
):
    shutil.copytree(tiny, work / "all")
    monkeypatch.setenv("RCC_MODELS", str(work / "all"))
    _, whole_list, _ = rcc("models")
    _, whole_json, _ = rcc("models", "--json")
    (work / "all" / "broken").mkdir()
    (work / "all" / "broken" / "model.json").write_text(content)
    for words, expected in ((["models"], whole_list), (["models", "--json"], whole_json)):
        code, out, err = rcc(*words)
        assert (code, out) == (0, expected)
        assert err.startswith("rcc: warning: ")
        assert cause in err
        assert err.count("\n") == 1
    assert "broken" not in whole_list + whole_json
    code, _, err = rcc("samples", "broken", "-o", "a.png")
    assert code == 5
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [("info - <&-", 3, "standard input"), ("info a.rcc >&-", 6, "standard output")],
)
def test_a_closed_stream_is_one_clear_line(work: Path, rcc, command: str, exit_code: int, message: str):
    assert rcc("compress", "in.png", "-o", "a.rcc", "--model", "colour", "--quiet")[0] == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    result = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m rcccodec.cli {command}'],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == exit_code
    assert result.stderr.startswith(f"rcc: error: {message}: ")
    assert result.stderr.count("\n") == 1


def test_an_input_without_end_is_refused(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "MAX_INPUT_BYTES", 1 << 21)
    code, _, err = rcc("decompress", "/dev/zero", "-o", "out.png")
    assert code == 7
    assert err == "rcc: error: /dev/zero: more than the 2097152 bytes that are read\n"
