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
from rcccodec.sources import synthetic

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
            (run.folder / f"{method}.safetensors").write_bytes(b"1")
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
    assert "my codec: 0.90 bits at 0.5: 0.30 above the best upper bound" in printed.out
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
    assert (tmp_path / "r.json.checkpoints" / "nerd.safetensors").exists()
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
        (["rd", LAW, "--beta", "0"], 2, "must be positive"),
        (["rd", LAW, "--beta", "-0.5"], 2, "must be positive"),
        (["rd", LAW, "--at", "nan"], 2, "finite"),
        (["rd", LAW, "--method", "nerd,psychic"], 2, "psychic"),
        (["rd", LAW, "--plot", "x.pdf"], 2, "must end in"),
        (["rd", LAW, "--set", "nerd.nope=1"], 2, "nerd has the settings"),
        (["rd", "no-such-source"], 3, "no such file"),
        (["rd", "kodak"], 3, "kodak"),
        (["rd", LAW, "--distortion", "hamming"], 3, "zeros and ones"),
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


def test_a_codecs_results_must_be_of_the_source(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lists = {"bits_per_image": [3.0], "distortion": [0.1]}
    words = ["rd", LAW, *SMALL, "--method", "nerd", "--beta", "1", "--codec"]
    for images, code in (("first 9 of the test split of mnist, 32x32", 3), (f"all of {LAW}", 0), (None, 0)):
        codec = codec_file(tmp_path / "c.json", {"name": "it", "images": images, "results": lists})
        assert cli.run([*words, str(codec)]) == code
        assert ("measured on" in capsys.readouterr().err) == (code == 3)


def test_bounds_are_printed_where_they_are_asked_for(fake: FakeMethods, capsys: pytest.CaptureFixture[str]):
    words = ["rd", LAW, *SMALL, "--method", "nerd,sandwich", "--beta", "1,4", "--at", "0.2", "--at", "0.001"]
    assert cli.run(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "R(0." in line]
    assert len(lines) == 2
    low, high = (float(part) for part in (lines[0].split("<=")[0], lines[0].split("<=")[2].split()[0]))
    assert low < 0.5 * math.log2(5) < high
    assert lines[1].count("<=") == 1  # no upper bound so far down


def test_the_closed_form_is_known_between_the_slopes_asked_for(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["rd", LAW, *SMALL, "--method", "exact", "--beta", "1", "--at", "0.3"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "R(0.3)" in line]
    low, high = (float(part) for part in (line.split("<=")[0], line.split("<=")[2].split()[0]))
    assert low == pytest.approx(0.5 * math.log2(1 / 0.3), abs=2e-3)
    assert high == pytest.approx(low, abs=2e-3)


def test_help_lists_every_law_with_its_parameters(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["rd", "--help"]) == 0
    text = capsys.readouterr().out
    for name in synthetic.NAMES:
        for key, value in synthetic.parse_synthetic(name)[1].items():
            (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name}:")][-1:]
            assert f"{key}={value:g}" in line


def test_a_foreign_file_among_checkpoints_is_kept(fake: FakeMethods, tmp_path: Path):
    folder = tmp_path / "r.json.checkpoints"
    folder.mkdir()
    (folder / "precious").write_bytes(b"1")
    words = ["rd", LAW, *SMALL, "--json", str(tmp_path / "r.json"), "--beta", "1", "--method", "wgd"]
    assert cli.run([*words, "--fresh"]) == 0
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_checkpoints_that_cannot_be_kept_are_an_output_error(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "r.json.checkpoints").write_bytes(b"a file")
    words = ["rd", LAW, *SMALL, "--json", str(tmp_path / "r.json"), "--beta", "1", "--method", "wgd"]
    assert cli.run(words) == 6
    assert "r.json.checkpoints" in capsys.readouterr().err
    assert not fake.calls
    assert not (tmp_path / "r.json").exists()


def test_results_of_other_data_under_one_name_are_not_mixed(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    words = ["rd", str(tmp_path / "s.npy"), "--json", str(tmp_path / "r.json"), "--beta", "1", "--method"]
    np.save(tmp_path / "s.npy", rows)
    assert cli.run([*words, "nerd"]) == 0
    np.save(tmp_path / "s.npy", 2 * rows)
    assert cli.run([*words, "wgd"]) == 6
    assert "its data is" in capsys.readouterr().err


def test_no_points_of_wrong_kinds_are_taken_from_a_file(
    fake: FakeMethods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "r.json"
    words = ["rd", LAW, *SMALL, "--json", str(out), "--beta", "1", "--method", "wgd"]
    assert cli.run(words) == 0
    good = json.loads(out.read_text())
    for name, value in (
        ("beta", "abc"),
        ("rate_bits", "1"),
        ("kind", None),
        ("kind", "best"),
        ("seconds", []),
    ):
        bad = json.loads(json.dumps(good))
        bad["methods"]["wgd"]["points"][0][name] = value
        out.write_text(json.dumps(bad))
        assert cli.run(words) == 6
        assert "no result of rcc rd" in capsys.readouterr().err
    assert cli.run([*words[:-4], "--json", "/dev/full", "--beta", "1", "--method", "wgd"]) == 6


def test_slopes_beyond_single_precision_are_refused(fake: FakeMethods, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["rd", LAW, *SMALL, "--method", "nerd", "--beta", "1,1e6"]) == 7
    assert "too steep" in capsys.readouterr().err


def test_every_kind_of_method_runs_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = [
        "vae.steps=20", "vae.width=16", "vae.latents=2", "nerd.steps=5", "nerd.candidates=256",
        "nerd.draws=16", "wgd.steps=20", "wgd.particles=16", "ba.samples=100", "sandwich.draws=32",
        "sandwich.evaluations=5", "sandwich.steps=5", "dba.steps=5", "dba.distributions=20", "dba.burn=5",
        "ais.training=20", "ais.width=16", "ais.latents=2", "ais.distributions=20", "ais.chains=4",
    ]  # fmt: skip
    words = ["rd", "laplacian:m=2", "--train", "1500", "--test", "60", "--beta", "2", "--method", "all"]
    words += [word for change in small for word in ("--set", change)]
    for distortion, absent in (("mse", ()), ("lp:3", ("ais-vae",))):
        out, plot = tmp_path / f"{distortion}.json".replace(":", ""), tmp_path / "r.png"
        assert cli.run([*words, "--distortion", distortion, "--json", str(out), "--plot", str(plot)]) == 0
        printed = capsys.readouterr()
        points = [p for m in json.loads(out.read_text())["methods"].values() for p in m["points"]]
        kinds = {p["method"]: p["kind"] for p in points}
        expected = {
            "shannon": "lower", "ba": "upper", "ba-train": "estimate", "nerd": "upper", "nerd-is": "upper",
            "wgd": "upper", "vae": "upper", "sandwich-upper": "upper", "sandwich-lower": "lower",
            "dba": "estimate", "rd-gen": "estimate", "ais-vae": "upper",
        }  # fmt: skip
        assert {k: v for k, v in expected.items() if k not in absent} == {
            k: v for k, v in kinds.items() if k not in absent
        }, printed.err


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
