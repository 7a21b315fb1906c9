"""Models of latents in a comparison: their curves, where the bits went, what an effort gains."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SEED, smooth_picture, write_tiny_latent_model, write_tiny_models

from rcccodec import cli, codec
from rcccodec.bundle import load_model
from rcccodec.comparison import figure, html_report, run, table
from rcccodec.comparison.bjontegaard import rates_at_equal_quality
from rcccodec.comparison.ideal_channel import _sample, ideal_curve
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.latent_curve import empty_curve, latent_curve
from rcccodec.comparison.measured import BitsSplit, Curve, Point, average_codebooks
from rcccodec.comparison.summary import Comparison, bjontegaard_deltas, curve_results, effort_levels
from rcccodec.errors import LimitError, ModelError
from rcccodec.latent.codec import analyse_picture
from rcccodec.latent.file import DEFAULT_GAIN
from rcccodec.latent.model import LatentModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``latent``, ``grey`` and ``colour``."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder)
    write_tiny_latent_model(folder / "latent")
    return folder


@pytest.fixture(autouse=True)
def models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCC_MODELS", str(folder))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return ImageSet("waves", [smooth_picture(80, 112, seed) for seed in (3, 4)], False)


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentModel:
    return load_model(str(folder / "latent"))


@pytest.fixture(scope="module")
def curves(images: ImageSet, model: LatentModel) -> tuple[Curve, ...]:
    return tuple(latent_curve(images, model, "trellis", effort=e, seeds=[SEED]) for e in (1, 3))


@pytest.fixture(scope="module")
def comparison(images: ImageSet, curves: tuple[Curve, ...]) -> Comparison:
    return Comparison(images, curves, {}, {"versions": {}})


def test_every_rung_is_charged_for_its_whole_files_and_every_bit_has_a_place(
    curves: tuple[Curve, ...], images: ImageSet, model: LatentModel
):
    assert [curve.key for curve in curves] == ["latent-trellis-e1", "latent-trellis-e3"]
    for curve, effort in zip(curves, (1, 3), strict=True):
        assert (curve.kind, curve.exact, curve.sha256, curve.effort) == ("rcc", False, model.sha256, effort)
        assert [point.rung for point in curve.points] == [0, 1]
        for rung, point in enumerate(curve.points):
            made = [codec.compress(x, model, rung=rung, effort=effort, seed=SEED) for x in images.images]
            assert point.file_bits.tolist() == [8 * len(one.data) for one in made]
            assert sum(asdict(point.split).values()) == pytest.approx(point.file_bits.mean())
            divergence = np.mean([one.report.divergence_bits for one in made])
            assert point.split.divergence_bits == pytest.approx(divergence)
            assert np.array_equal(point.pictures[1], made[1].images[0])


def test_the_ideal_channel_costs_the_divergence_which_a_file_spends_a_share_of(
    curves: tuple[Curve, ...], images: ImageSet, model: LatentModel
):
    ideal = ideal_curve(images, model)
    assert ideal.kind == "bound"
    for point, coded in zip(ideal.points, curves[0].points, strict=True):
        assert point.split.divergence_bits == pytest.approx(coded.split.divergence_bits)
        assert point.split.class_bits == coded.split.class_bits
        spent = coded.split.divergence_bits + coded.split.search_bits  # bits of paths
        assert spent == pytest.approx(DEFAULT_GAIN * point.split.divergence_bits, rel=0.05)
        ideal_bits = point.split.divergence_bits + point.split.class_bits
        assert point.file_bits.mean() == pytest.approx(ideal_bits, rel=0.02)
        assert np.array_equal(point.file_bits, point.payload_bits)


def test_latents_of_the_ideal_channel_have_the_posteriors_moments(model: LatentModel, images: ImageSet):
    latents = analyse_picture(model, images.images[0], 1)
    prior, (classes,) = model.priors[1], latents.classes
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([_sample(model, latents, generator) for _ in range(400)])
    sent = torch.from_numpy(prior.rates_millibits > 0)[classes].permute(2, 0, 1)
    centre, scale = (table[classes].permute(2, 0, 1) for table in (prior.centre, prior.scale))
    noise = torch.minimum(latents.log_noise.exp(), scale)
    assert sent.any()
    assert torch.equal(draws[0][~sent], centre[~sent])
    away = ((draws.mean(0) - latents.mean) / noise * 400**0.5)[sent]
    assert away.square().mean() == pytest.approx(1, abs=5 * (2 / len(away)) ** 0.5)
    spread = (draws.var(0) / noise.square())[sent].mean()
    assert spread == pytest.approx(1, abs=5 * (2 / 399 / len(away)) ** 0.5)
    wrong = ((draws.mean(0) - centre) / noise * 400**0.5)[
        sent
    ]  # a prior's centre is not the posterior's mean
    assert wrong.square().mean() > 2


def test_a_decoder_that_disagrees_with_the_encoder_is_caught(
    images: ImageSet, model: LatentModel, monkeypatch: pytest.MonkeyPatch
):
    right = codec.decompress
    monkeypatch.setattr(codec, "decompress", lambda *words: [x ^ 1 for x in right(*words)])
    with pytest.raises(AssertionError, match="does not decode to what its encoder said"):
        latent_curve(images, model, "trellis", effort=1, seeds=[SEED])


def test_a_curve_says_what_made_it(model: LatentModel):
    by_effort, by_number = (empty_curve(model, "trellis", 5, n) for n in (None, 256))
    assert (by_effort.name, by_effort.effort) == ("latent trellis, effort 5", 5)
    assert (by_number.key, by_number.name) == ("latent-trellis-n8", "latent trellis, 2^8 states")
    assert by_number.effort is None
    exact = replace(model, chunk_codes={"pfr": {8: [1]}, "mincost": {8: [1]}})
    assert [empty_curve(exact, coder, 1, None).exact for coder in ("pfr", "mincost")] == [True, False]
    with pytest.raises(ModelError, match="no index code for coder orc"):
        empty_curve(exact, "orc", 1, None)


def test_records_and_pages_show_where_the_bits_went(comparison: Comparison):
    results = curve_results(comparison.curves[0], comparison)
    parts = ("divergence_bits", "search_bits", "class_bits", "framing_bits")
    for i, bits in enumerate(results["bits_per_image"]):
        assert sum(results[name][i] for name in parts) == pytest.approx(bits)
    line = table.point_line(comparison.curves[0], comparison.curves[0].points[0], comparison.images)
    shares = [float(word) for word in line.split() if word.replace(".", "").replace("-", "").isdigit()][-4:]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    page = html_report.report_bytes(comparison, []).decode()
    assert "Where the bits go" in page
    assert "Theory" not in page
    assert figure.figure_bytes(comparison, "svg").startswith(b"<?xml")


def test_splits_of_codebooks_are_averaged(comparison: Comparison):
    first = comparison.curves[0].points[0]
    other = replace(first, split=BitsSplit(*(3 * bits for bits in asdict(first.split).values())))
    assert asdict(average_codebooks([first, other], comparison.images).split) == pytest.approx(
        {name: 2 * bits for name, bits in asdict(first.split).items()}
    )


def test_an_effort_is_held_against_the_least_of_its_model_and_coder():
    curves = [_curve("b", 5, 0.9), _curve("a", 1, 1.0), _curve("c", None, 0.5), _curve("d", 1, 0.4, "pfr")]
    comparison = Comparison(_pictures(), tuple(curves), {}, {})
    levels = {level["codec"]: level for level in effort_levels(comparison)}
    assert set(levels) == {"a", "b", "d"}
    assert levels["b"]["least_effort"] == "a"
    assert levels["b"]["bd_rate_percent"] == pytest.approx(-10)
    assert levels["a"]["bd_rate_percent"] is None
    assert levels["d"]["least_effort"] == "d"
    assert levels["b"]["search_percent"] == pytest.approx(25)
    assert levels["b"]["encoding_time"] == 2.0
    assert levels["b"]["over_ideal_percent"] is None
    ideal = replace(_curve("i", None, 0.8), kind="bound")
    levels = {level["codec"]: level for level in effort_levels(replace(comparison, curves=(*curves, ideal)))}
    assert levels["b"]["over_ideal_percent"] == pytest.approx(12.5)
    lines = table.level_lines(list(levels.values()))
    assert "b: encode 2.00 s, decode 1.00 s an image, search +25.0 % of the divergence" in lines[0]


def test_a_delta_says_the_range_that_it_is_an_average_over():
    mine = _curve("mine", 5, 0.5)
    worse = _curve("other", None, 1.0)
    other = replace(worse, kind="reference", points=worse.points[1:])
    comparison = Comparison(_pictures(), (mine, other), {}, {})
    (delta,) = bjontegaard_deltas(comparison)
    low, high = delta["psnr_range_db"]
    assert low == pytest.approx(-10 * math.log10(0.5e-2))
    assert high == pytest.approx(-10 * math.log10(0.125e-2))
    assert delta["bd_rate_percent"] == pytest.approx(-50)
    assert f"from {low:.2f} to {high:.2f} dB" in table.delta_lines([delta])[0]


def test_rates_at_equal_quality_are_read_off_between_the_points():
    a = [(2.0**k, 30.0 + k) for k in range(5)]
    b = [(0.5 * rate, quality) for rate, quality in a[1:]]
    quality, percent = rates_at_equal_quality(a, b)
    assert (quality[0], quality[-1]) == pytest.approx((31, 34))
    assert percent == pytest.approx(np.full(len(quality), -50.0))
    assert rates_at_equal_quality(a, [(1.0, 50.0), (2.0, 51.0), (3.0, 52.0)]) is None


def test_the_figure_of_photographs_has_a_panel_of_differences_where_there_is_a_reference():
    mine, reference = _curve("mine", 5, 0.5), replace(_curve("other", None, 1.0), kind="reference")
    title = "bits, % of those of"
    for curves, there in (((mine, reference), True), ((mine, _curve("second", 1, 0.8)), False)):
        drawing = figure.figure_bytes(Comparison(_pictures(), curves, {}, {}), "svg").decode()
        assert (title in drawing) == there


def _pictures() -> ImageSet:
    return ImageSet("none", [np.zeros((80, 80, 3), np.uint8)] * 2, False)


def _curve(key: str, effort: int | None, rate: float, coder: str = "trellis") -> Curve:
    """Four points whose bits double where their error halves, ``rate`` times as many as of another curve."""
    points = []
    for k in range(4):
        bits, samples = np.full(2, rate * 1000 * 2.0**k), np.full(2, 80 * 80 * 3.0)
        split = BitsSplit(0.6 * bits[0], 0.15 * bits[0], 0.2 * bits[0], 0.05 * bits[0])
        points.append(Point(f"rung {k}", bits, bits, samples * 1e-2 / 2**k, samples, 2.0, 1.0, split=split))
    return Curve(key, key, "", tuple(points), "rcc", False, "ab" * 32, coder, effort)


def _files(folder: Path, images: ImageSet) -> Path:
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for i, x in enumerate(images.images):
            Image.fromarray(x).save(folder / split / f"{i}.png")
    return folder


def test_a_run_with_efforts_and_references_in_one_word(tmp_path: Path, images: ImageSet):
    out = tmp_path / "r.json"
    words = ["bench", "--data", str(_files(tmp_path / "photos", images)), "--models", "latent", "--quiet"]
    words += ["--against", "jpeg,webp", "--effort", "2,1", "--effort", "1", "--json", str(out)]
    assert cli.run([*words, "--report", str(tmp_path / "r.html")]) == 0
    main = json.loads(out.read_text())
    assert main["name"] == "latent trellis, effort 1"
    assert set(main["files"]) == {"latent-trellis-e2", "jpeg", "webp", "latent-ideal"}
    assert [level["effort"] for level in main["efforts"]] == [1, 2]
    assert main["theory"] == {}
    assert main["num_candidates"] == {"latent": None}
    assert (tmp_path / "r.html").read_text().count("<figure ") == 2 * (1 + 4)


def test_models_of_both_kinds_share_a_run(images: ImageSet):
    remarks: list[str] = []
    plan = _plan(images, ["latent", "colour"], remark=remarks.append)
    assert [plan.coders_of(model) for model in plan.models] == [("trellis",), ("mincost",)]
    assert plan.efforts == (5,)
    assert remarks == []
    asked = replace(plan, coders=("trellis", "mincost"))
    assert [asked.coders_of(model) for model in plan.models] == [("trellis", "mincost"), ("mincost",)]


def test_options_that_a_model_does_not_have_are_said_before_the_work(images: ImageSet):
    for models, options, error, text in (
        (["latent"], {"index_code": "zipf"}, LimitError, "index code"),
        (["latent"], {"num_candidates": 100}, LimitError, "power of two"),
        (["latent"], {"num_candidates": 256, "efforts": (3,)}, LimitError, "say one of them"),
        (["colour"], {"efforts": (3,)}, LimitError, "effort: model colour has none"),
        (["colour"], {"coders": ("trellis",)}, ModelError, "no coder trellis"),
    ):
        with pytest.raises(error, match=text):
            _plan(images, models, **options)


def _plan(images: ImageSet, models: list[str], **options: object) -> run.Plan:
    given = {"index_code": None, "num_candidates": None, "num_seeds": 1, "device": "cpu", "remark": print}
    return run.make_plan(images, models, ["jpeg"], **{**given, **options})


@pytest.mark.parametrize("word", ["0", "10", "1,", "five", "1;2"])
def test_an_effort_that_there_is_not_is_a_mistake_of_usage(word: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["bench", "--effort", word]) == 2
    assert "Invalid value for '--effort'" in capsys.readouterr().err


def test_photographs_take_the_model_of_latents(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tiny_latent_model(tmp_path / "photo")
    monkeypatch.setenv("RCC_MODELS", str(tmp_path))
    pictures = ImageSet("no source of a model", [np.zeros((80, 80, 3), np.uint8)], False)
    assert run._default_models(pictures) == ["photo"]
    small = replace(pictures, images=[np.zeros((32, 32, 3), np.uint8)], archive=True)
    assert run._default_models(small) == ["photo-pixels"]
