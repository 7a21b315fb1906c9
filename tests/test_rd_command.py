"""``rcc rd`` as a user meets it: results, figures, going on after a stop, and one line for every mistake."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from rcccodec import cli
from rcccodec.errors import InputError, LimitError
from rcccodec.rd import estimate
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import Settings

SMALL = ["--train", "50", "--test", "20"]
LAW = "gaussian:m=1,decay=0,variance=1"


class FakeMethods:
    """A stand-in for `rcccodec.rd.estimate.trace`: the exact curve moved up, or down as lines."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[float, ...]]] = []
        self.fail_at: float | None = None

    def trace(
        self, method: str, problem: Problem, betas: Sequence[float], settings: Settings, run: Run
    ) -> Iterator[RatePoint]:
        self.calls.append((method, tuple(betas)))
        for beta in betas:
            if beta == self.fail_at:
                raise LimitError("stopped here")
            g = gaussian_point_at_slope([1.0], beta)
            level = g.rate_bits + beta * g.distortion / math.log(2)
            assert run.folder is not None
            (run.folder / f"{method}.part").write_bytes(b"1")
            run.progress(method, 1, 1)
            if method == "exact":
                raise InputError("no closed form")
            if method == "sandwich":
                yield RatePoint("sandwich-lower", "lower", beta, math.nan, math.nan, level - 0.2)
            else:
                yield RatePoint(
                    method, "upper", beta, g.rate_bits + 0.1, g.distortion, level + 0.1, rate_se_bits=0.01,
                    num_samples=8, saturated=beta > 5,
                )  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeMethods:
    methods = FakeMethods()
    monkeypatch.setattr(estimate, "trace", methods.trace)
    return methods


def codec_file(path: Path, content: object = None) -> Path:
    lists = {"bits_per_image": [3.0, 0.9], "distortion": [0.1, 0.5]}
    path.write_text(json.dumps({"name": "my codec", "results": lists} if content is None else content))
    return path


def test_all_methods_bounds_gaps_and_figure_come_out(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, plot = tmp_path / "r.json", tmp_path / "r.png"
    codec = codec_file(tmp_path / "codec.json")
    words = ["rd", LAW, "--method", "exact,nerd,sandwich", "--beta", "1:8:log3", *SMALL]
    assert cli.run([*words, "--json", str(out), "--plot", str(plot), "--codec", str(codec)]) == 0
    printed = capsys.readouterr()
    assert "exact is left out: no closed form" in printed.err
    assert printed.out.count("nerd ") == 3
    assert printed.out.count("saturated") == 1
    assert "my codec: 0.90 bits at 0.5: +" in printed.out
    assert plot.read_bytes().startswith(b"\x89PNG")
    result = json.loads(out.read_text())
    assert set(result["methods"]) == {"nerd", "sandwich"}
    assert result["methods"]["nerd"]["betas"] == [1.0, 2.82843, 8.0]
    assert {"commit", "versions", "device", "threads", "seed", "zero_rate_distortion"} <= set(result)
    for gap in result["codecs"]["my codec"]:
        upper, lower = gap["upper_bits"], gap["lower_bits"]
        true = 0.5 * math.log2(1 / gap["distortion"])
        assert lower <= true <= upper + 1e-9
        assert gap["above_upper_bits"] == pytest.approx(gap["rate_bits"] - upper)
        assert gap["above_lower_bits"] == pytest.approx(gap["rate_bits"] - lower)
    assert not list(tmp_path.glob("*.checkpoints"))


def test_a_stopped_run_goes_on_and_other_slopes_and_methods_add_to_it(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "r.json"
    words = ["rd", LAW, *SMALL, "--json", str(out), "--beta"]
    fake.fail_at = 2.0
    assert cli.run([*words, "1,2,3", "--method", "nerd,wgd"]) == LimitError.exit_code
    assert (tmp_path / "r.json.checkpoints" / "nerd.part").exists()
    assert json.loads(out.read_text())["methods"]["nerd"]["betas"] == [1.0]
    fake.fail_at, fake.calls = None, []
    assert cli.run([*words, "1,2,3", "--method", "nerd,wgd"]) == 0
    assert fake.calls == [("nerd", (2.0,)), ("nerd", (3.0,)), *(("wgd", (b,)) for b in (1.0, 2.0, 3.0))]
    assert not (tmp_path / "r.json.checkpoints").exists()
    fake.calls = []
    assert cli.run([*words, "1,4", "--method", "ais,nerd"]) == 0
    assert fake.calls == [("ais", (1.0, 4.0)), ("nerd", (4.0,))]  # one run gives a whole curve of ais
    methods = json.loads(out.read_text())["methods"]
    assert {name: entry["betas"] for name, entry in methods.items()} == {
        "nerd": [1.0, 2.0, 3.0, 4.0], "wgd": [1.0, 2.0, 3.0], "ais": [1.0, 4.0],
    }  # fmt: skip
    capsys.readouterr()
    fake.calls = []
    assert cli.run([*words, "1", "--method", "nerd", "--fresh"]) == 0
    assert fake.calls == [("nerd", (1.0,))]
    assert set(json.loads(out.read_text())["methods"]) == {"nerd"}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (["--seed", "1"], "its seed is 0, not 1"),
        (["--test", "21"], "its test is 20, not 21"),
        (["--set", "wgd.particles=7"], "other settings"),
        (["--distortion", "l1"], "its distortion is 'mse'"),
    ],
)
def test_results_of_another_run_are_never_overwritten(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], cause: str
):
    out = tmp_path / "r.json"
    words = ["rd", LAW, *SMALL, "--json", str(out), "--beta", "1", "--method", "wgd"]
    assert cli.run(words) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert cli.run([*words, *change]) == 6
    error = capsys.readouterr().err
    assert cause in error
    assert "--fresh" in error
    assert len(error.splitlines()) == 1
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"methods": 3}', b'{"methods": {"nerd": {}}}', b"\xff"]
)
def test_a_foreign_file_is_not_overwritten(fake: FakeMethods, tmp_path: Path, content: bytes):
    out = tmp_path / "r.json"
    out.write_bytes(content)
    assert cli.run(["rd", LAW, *SMALL, "--json", str(out), "--beta", "1", "--method", "wgd"]) == 6
    assert out.read_bytes() == content
    assert not fake.calls


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (["rd", LAW, "--beta", "0"], 3, "must be positive"),
        (["rd", LAW, "--beta", "-0.5"], 3, "must be positive"),
        (["rd", LAW, "--method", "nerd,psychic"], 2, "psychic"),
        (["rd", LAW, "--plot", "x.pdf"], 2, "must end in"),
        (["rd", LAW, "--set", "nerd.nope=1"], 3, "nerd has the settings"),
        (["rd", "no-such-source"], 3, "no such file"),
        (["rd", "kodak"], 3, "kodak"),
        (["rd", LAW, "--distortion", "hamming"], 3, "binary"),
        (["rd", "gaussian:m=1048576"], 7, "values"),
        (["rd", LAW, "--json", "no/such/folder/x.json"], 6, "no/such/folder"),
        (["rd", LAW, "--codec", "missing.json"], 3, "missing.json"),
        (["rd", LAW, "--train", "1"], 2, "--train"),
    ],
)
def test_every_mistake_is_one_clear_line_with_its_exit_code(
    fake: FakeMethods, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], code: int, cause: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.run(words) == code
    printed = capsys.readouterr()
    assert cause in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
    assert not fake.calls
    assert not list(tmp_path.iterdir())


def test_arrays_with_nan_or_nothing_in_them_are_refused(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "good.npy", rows)
    assert cli.run(["rd", str(tmp_path / "good.npy"), "--beta", "1", "--method", "nerd"]) == 0
    for name, bad, cause in (
        ("nan", np.where(rows > 1.5, np.nan, rows), "NaN"),
        ("none", rows[:0], "no train"),
    ):
        np.save(tmp_path / f"{name}.npy", bad)
        assert cli.run(["rd", str(tmp_path / f"{name}.npy")]) == 3
        assert cause in capsys.readouterr().err


def test_if_no_method_fits_it_says_so(fake: FakeMethods, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["rd", LAW, *SMALL, "--method", "exact", "--beta", "1"]) == 3
    assert "none of the methods" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    [[], {}, {"results": {}}, {"results": {"bits_per_image": [1], "distortion": []}},
     {"results": {"bits_per_image": [], "distortion": []}},
     {"results": {"bits_per_image": [-1], "distortion": [1]}},
     {"results": {"bits_per_image": ["x"], "distortion": [1]}},
     {"results": {"bits_per_image": [math.nan], "distortion": [1]}}],
)  # fmt: skip
def test_files_that_are_no_codecs_results_are_refused(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object
):
    codec = codec_file(tmp_path / "c.json", content)
    assert cli.run(["rd", LAW, *SMALL, "--method", "nerd", "--beta", "1", "--codec", str(codec)]) == 3
    assert "c.json" in capsys.readouterr().err
    assert not fake.calls


def test_every_method_that_is_named_has_its_settings():
    for method in estimate.METHODS:
        for group in estimate.settings_of(method, Settings()):
            assert hasattr(Settings(), group)
    with pytest.raises(KeyError):
        estimate.trace("psychic", None, [], Settings(), Run())  # type: ignore[arg-type]
