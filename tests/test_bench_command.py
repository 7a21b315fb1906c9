"""``rcc bench`` as a user meets it: results, remarks, and one line for every mistake."""

import errno
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_comparison import FakeBaseline, blobs

from rcccodec import cli
from rcccodec.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of 8x8 images with a split."""
    for split, seed, count in (("train", 0, 60), ("test", 1, 12)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i, x in enumerate(blobs(count, 8, seed)):
            Image.fromarray(x).save(tmp_path / "data" / split / f"{i:03}.png")
    return tmp_path / "data"


@pytest.fixture
def baselines(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for rcccodec.baselines; what it was asked for is in ``names``."""
    stub = SimpleNamespace(names=[], error=None)

    def load_baseline(name: str) -> FakeBaseline:
        stub.names.append(name)
        if stub.error:
            raise stub.error
        return FakeBaseline()

    module = ModuleType("rcccodec.baselines")
    module.load_baseline = load_baseline
    monkeypatch.setitem(sys.modules, "rcccodec.baselines", module)
    return stub


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


def test_a_run_writes_results_figure_and_report(
    data: Path, tmp_path: Path, baselines: SimpleNamespace, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    out.mkdir()
    words = ["bench", "--data", str(data), "--models", "grey", "--images", "8", "--seeds", "2"]
    words += ["--against", "ntc", "--against", "ecsq", "--against", "ba", "--against", "jpeg"]
    words += ["--json", str(out / "r.json"), "--plot", str(out / "r.svg"), "--report", str(out / "r.html")]
    assert cli.run(words) == 0
    said = capsys.readouterr()
    assert "left out: jpeg: only for images of at least 64 pixels a side" in one_line(said.err)
    assert baselines.names == ["mnist-ntc"]
    assert said.out.count("grey-mincost ") == 2 + 2  # two rungs, two references
    main = json.loads((out / "r.json").read_text())
    assert main["codebook_seeds"] == {"grey": [5, 6]}
    assert len(main["image_sha256"]) == 8
    assert set(main["files"]) == {"grey-pfr", "grey-orc", "fake-ntc", "ecsq", "ba-train", "ba"}
    assert {p.name for p in out.iterdir()} == {"r.json", "r.svg", "r.html", *main["files"].values()}
    assert [d["reference"] for d in main["bjontegaard"][:2]] == ["fake-ntc", "ecsq"]
    ((limits),) = main["theory"].values()
    assert [limit["on_these_images"] for limit in limits] == [True, True]


def test_coders_candidates_and_index_code_are_those_asked_for(data: Path, tmp_path: Path):
    words = ["bench", "--data", str(data), "--models", "grey", "--coder", "orc", "--index-code", "zipf"]
    words += ["--candidates", "100", "--images", "6", "--quiet", "--json", str(tmp_path / "r.json")]
    assert cli.run([*words, "--against", "ba"]) == 0
    main = json.loads((tmp_path / "r.json").read_text())
    assert main["name"] == "grey orc (zipf)"
    assert main["num_candidates"] == {"grey": 100}
    assert main["results"]["index_code"] == ["zipf", "zipf"]
    ((limits),) = main["theory"].values()
    assert {limit["num_candidates"] for limit in limits} == {100}


def test_photographs_are_counted_by_whole_files(tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        planes = [blobs(1, 72, 3 * i + c)[0] for c in range(3)]
        Image.fromarray(np.stack(planes, axis=2)).save(folder / f"{i}.png")
    words = ["bench", "--data", str(folder), "--models", "colour", "--quiet", "--against", "jpeg"]
    assert cli.run([*words, "--json", str(tmp_path / "r.json")]) == 0
    main = json.loads((tmp_path / "r.json").read_text())
    assert main["results"]["bits_per_image"] == main["results"]["file_bits_per_image"]
    assert set(main["files"]) == {"jpeg"}
    assert main["name"].startswith("colour mincost")


def test_mistakes_are_one_line_with_an_exit_code_and_leave_nothing(
    data: Path, tmp_path: Path, baselines: SimpleNamespace, capsys: pytest.CaptureFixture[str]
):
    common = ["bench", "--data", str(data), "--models", "grey", "--images", "5"]
    baselines.error = InputError("needs CompressAI: pip install 'rcccodec[bench]'")
    missing = str(tmp_path / "no" / "r.json")
    for words, code, text in (
        ([*common, "--against", "magic"], 5, "magic: no such reference; choose from ntc, ntc-block"),
        ([*common, "--against", "ntc"], 3, "pip install 'rcccodec[bench]'"),
        (["bench", "--data", str(tmp_path / "none")], 3, "no such file or folder"),
        (["bench", "--data", "mnist", "--data-root", str(tmp_path)], 3, "its test files are missing"),
        (["bench", "--data", "gaussian:m=4"], 3, "vectors are not images"),
        ([*common, "--json", missing], 6, "no folder"),
        ([*common, "--report", str(tmp_path)], 6, "directory"),
        ([*common[:3], "--models", "nothing"], 5, "no such model"),
        ([*common, "--coder", "orc", "--index-code", "prior"], 5, "prior"),
    ):
        assert cli.run(words) == code, words
        error = capsys.readouterr().err
        assert text in one_line(error), error
    assert cli.run([*common, "--plot", str(tmp_path / "r.bmp")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*args: object, **options: object) -> None:  # as for root too, who may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    words = ["bench", "--data", str(data), "--models", "grey", "--json", str(tmp_path / "r.json")]
    assert cli.run(words) == 6
    said = capsys.readouterr()
    assert "Permission denied" in one_line(said.err)
    assert said.out == ""


def test_a_missing_matplotlib_is_said_before_the_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["bench", "--data", str(data), "--models", "grey", "--plot", str(tmp_path / "r.png")]
    assert cli.run(words) == 3
    said = capsys.readouterr()
    assert "pip install 'rcccodec[bench]'" in one_line(said.err)
    assert said.out == ""


def test_help_is_quick_and_ends_with_examples():
    code = "import sys; from rcccodec import cli; cli.run(['bench', '-h']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python -m compressai.utils.plot" in done.stdout
    assert "rcc bench --against ntc --data mnist --images 1000" in done.stdout
