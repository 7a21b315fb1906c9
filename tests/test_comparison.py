"""The comparison's parts: what files cost and kept, references decoded from their bytes, theory, results."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CANDIDATES, SEED

from rcccodec import codec
from rcccodec.bundle import load_model
from rcccodec.comparison import (
    ba_curves,
    ecsq,
    figure,
    html_report,
    learned,
    pillow_codecs,
    results,
    run,
    theory,
)
from rcccodec.comparison.codec_curve import codec_curve
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point, average_codebooks, mean_psnr_db, measure_point
from rcccodec.comparison.provenance import describe_run, image_hashes
from rcccodec.comparison.rcc_files import image_bits, payload_bits
from rcccodec.comparison.summary import Comparison, bjontegaard_deltas, curve_results
from rcccodec.errors import InputError
from rcccodec.images import psnr_db
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.report import guarantee_bits

pytestmark = pytest.mark.usefixtures("tiny")
PLOT_WITH_COMPRESSAI = """
import runpy, sys, torch
try:
    import torchvision
except RuntimeError:  # its CUDA operators are not there beside a CPU torch
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
runpy.run_module("compressai.utils.plot", run_name="__main__", alter_sys=True)
"""


def blobs(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    """Round spots, uint8 (count, side, side)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.25 * side, 0.7 * side, (count, 2, 1, 1))
    rows, columns = np.mgrid[:side, :side]
    blob = np.exp(-((rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2) / (side / 2))
    return np.rint(255 * blob).astype(np.uint8)


def blob_set(count: int = 30) -> ImageSet:
    return ImageSet("blobs", list(blobs(count)), True)


def photograph_set() -> ImageSet:
    planes = [np.stack([blobs(1, 200, s + c)[0][:, :180] for c in range(3)], axis=2) for s in (0, 9)]
    return ImageSet("pictures", planes, False)


class FakeBaseline:
    """A learned baseline without learning: pixels rounded to multiples of beta."""

    name, kind, sha256, betas = "fake-ntc", "image", "ab" * 32, (16.0, 64.0)
    default_search_passes = 1

    def compress(self, images: list[np.ndarray], beta: float, search_passes: int = 1) -> bytes:
        small = np.stack(images) // int(beta)
        padding = b"" if search_passes else bytes(len(images))
        return bytes([len(images), images[0].shape[0], int(beta)]) + small.tobytes() + padding

    def decompress(self, data: bytes) -> list[np.ndarray]:
        count, side, step = data[:3]
        pixels = np.frombuffer(data[3 : 3 + count * side * side], np.uint8)
        return list(pixels.reshape(count, side, side) * step)

    def payload_bits(self, data: bytes) -> int:
        return 8 * (len(data) - 3)


@pytest.fixture(scope="module")
def comparison(model_folder: Path) -> Comparison:
    """Two coders of the tiny grey model, a fake baseline, and theory."""
    images, model = blob_set(), load_model(str(model_folder / "grey"))
    curves = [codec_curve(images, model, coder, seeds=[SEED, SEED + 1]) for coder in ("mincost", "pfr")]
    curves.append(learned.learned_curve(images, learned.Learned(FakeBaseline(), 1)))
    limits = theory.model_limits(images, model, seeds=[SEED, SEED + 1])
    made = {**describe_run(0.0), **image_hashes(images.images)}
    return Comparison(images, tuple(curves), {model.sha256: limits}, made)


def test_an_archive_is_shared_out_to_its_images_and_photographs_are_whole_files():
    images, model = blob_set(), load_model("grey")
    made = []

    def encode(job: list[np.ndarray]) -> bytes:
        made.append(codec.compress(job, model, rung=1, coder="pfr").data)
        return made[-1]

    point = measure_point(
        images, "x", encode, codec.decompress, payload_bits=payload_bits,
        share_bits=lambda data: image_bits(data, model),
    )  # fmt: skip
    (data,) = made
    assert point.payload_bits.sum() == pytest.approx(payload_bits(data))
    assert point.file_bits.sum() == pytest.approx(8 * len(data))
    assert np.ptp(point.payload_bits) > 1  # images differ in what their indices cost
    assert 0 <= payload_bits(data) - image_bits(data, model).sum() < 16
    decoded = codec.decompress(data, model)
    mse = np.mean(np.square(np.stack(decoded).astype(float) - np.stack(images.images)))
    assert float(mean_psnr_db(point, images)) == pytest.approx(10 * math.log10(255**2 / mse))

    photographs, made[:] = photograph_set(), []
    colour = load_model("colour")
    point = measure_point(
        photographs, "x", lambda job: made.append(codec.compress(job, colour).data) or made[-1],
        codec.decompress, payload_bits=payload_bits,
    )  # fmt: skip
    assert point.file_bits.tolist() == [8 * len(data) for data in made]
    each = [psnr_db(x, y) for x, y in zip(photographs.images, point.pictures, strict=True)]
    assert float(mean_psnr_db(point, photographs)) == pytest.approx(np.mean(each))


def test_ms_ssim_is_given_only_where_five_scales_fit():
    photographs = photograph_set()

    def point(images: ImageSet) -> Point:
        return measure_point(
            images, "x", lambda _: b"", lambda _: [images.images[0]], payload_bits=lambda _: 0
        )

    one = replace(photographs, images=photographs.images[:1])
    assert point(one).ms_ssim == pytest.approx([1.0])
    assert point(replace(one, images=[one.images[0][:160]])).ms_ssim is None


def test_a_codec_that_decodes_to_something_else_is_caught(monkeypatch: pytest.MonkeyPatch):
    images, model = blob_set(4), load_model("grey")
    honest = codec.decompress
    monkeypatch.setattr(codec, "decompress", lambda data, m: [x ^ np.uint8(1) for x in honest(data, m)])
    with pytest.raises(AssertionError, match="does not decode"):
        codec_curve(images, model, "pfr", seeds=[0])


def test_a_curve_has_every_rung_and_the_codebooks_that_its_index_code_allows(comparison: Comparison):
    mincost, pfr, _ = comparison.curves
    assert [p.rung for p in mincost.points] == [p.rung for p in pfr.points] == [0, 1]
    assert [p.index_code for p in mincost.points] == ["prior", "fitted"]  # the tiny model's first has a prior
    assert [len(p.codebooks) for p in mincost.points] == [1, 2]
    for point in pfr.points:
        assert len(point.codebooks) == (1 if point.index_code == "prior" else 2)
    assert pfr.points[1].index_code == "fitted"
    point = pfr.points[1]
    assert point.payload_bits.mean() == pytest.approx(np.mean([bits for bits, _ in point.codebooks]))
    assert point.codebooks[0] != point.codebooks[1]
    assert (pfr.exact, mincost.exact) == (True, False)
    assert 0 <= point.certified <= 1


def test_theory_is_the_nerd_estimate_of_these_images(comparison: Comparison):
    ((sha256, limits),) = comparison.limits.items()
    model, images = load_model("grey"), comparison.images
    assert sha256 == model.sha256
    stage = model.rungs[1].stages[0]
    x = torch.from_numpy(np.stack(images.images).reshape(30, -1).astype(np.float32) / 255)
    point = estimate_nerd(
        x, stage.proposal(), beta=stage.beta, num_candidates=CANDIDATES, seeds=(SEED, SEED + 1)
    )
    assert limits[1].rate_bits == pytest.approx(point.rate_bits)
    assert limits[1].distortion == pytest.approx(point.distortion)
    assert limits[1].guarantee_bits == pytest.approx(guarantee_bits(point.rate_bits))
    assert limits[1].rate_bits < limits[1].floor_bits < limits[1].sharper_bits < limits[1].guarantee_bits
    assert limits[1].on_these_images


def test_limits_by_hand():
    known = [
        replace(
            theory._limit(rung, load_model("grey").rungs[rung], [(1, rate)], 256, measured=True),
            distortion=d, beta=math.log(2),
        )
        for rung, rate, d in ((0, 2.0, 10.0), (1, 4.0, 6.0))
    ]  # fmt: skip
    own, other = (replace(_point(1.0, 1.0), rung=rung) for rung in (1, None))
    assert theory.limit_at(own, 7.0, known) == pytest.approx(4 + 6 - 7)  # tangent: a bit a unit
    assert theory.limit_at(other, 7.0, known) == pytest.approx(3.5)  # chord
    assert theory.limit_at(other, 5.9, known) is None
    held_out = [replace(limit, on_these_images=False) for limit in known]
    assert theory.limit_at(own, 7.0, held_out) == 4
    assert theory.limit_at(other, 7.0, held_out) is None


def test_a_model_of_several_stages_has_the_rates_of_all_its_blocks():
    images, model = photograph_set(), load_model("colour")
    limit = theory.model_limits(images, model, seeds=[0])[1]
    coarse, fine = (stage.rate_bits for stage in model.rungs[1].stages)
    blocks = math.ceil(200 / 16) * math.ceil(180 / 8)
    assert limit.rate_bits == pytest.approx(blocks * (coarse + 2 * fine))
    assert limit.guarantee_bits == pytest.approx(blocks * (guarantee_bits(coarse) + 2 * guarantee_bits(fine)))
    assert not limit.on_these_images
    assert limit.distortion is None


@pytest.mark.parametrize("colour", [False, True])
def test_ecsq_decodes_from_its_bytes_what_it_chose(colour: bool):
    training = [x if not colour else np.stack([x, x // 2, 255 - x], axis=2) for x in blobs(120, 20)]
    test = [x[:19, :13] for x in training[:7]]
    transform = ecsq.fit_transform(training, (8, 8), 3 if colour else 1)
    spent = []
    for beta in (2.0, 30.0, 400.0):
        fitted = ecsq.fit_ecsq(training, transform, beta)
        data = fitted.compress(test)
        decoded = fitted.decompress(data)
        assert [x.shape for x in decoded] == [x.shape for x in test]
        ideal = fitted.image_bits(data)
        assert ideal.shape == (7,)
        assert ideal.sum() <= ecsq.payload_bits(data) < ideal.sum() + 16
        error = np.mean(np.square(np.stack(decoded) - np.stack(test).astype(float))) / 255**2
        spent.append((ecsq.payload_bits(data), error))
        assert (fitted.frequencies.sum(1) == ecsq.TOTAL).all()
    bits, errors = zip(*spent, strict=True)
    assert list(bits) == sorted(bits)
    assert list(errors) == sorted(errors, reverse=True)
    assert errors[-1] < 6e-4
    damaged = data[:12] + bytes([data[12] ^ 0x55]) + data[13:]
    assert not all(map(np.array_equal, fitted.decompress(damaged), decoded))


def test_ecsq_at_high_rate_is_a_quarter_bit_above_the_gaussian_rate():
    # independent Gaussian pixels: the KLT does nothing, and a uniform quantiser costs 1/2 log2(2 pi e / 12)
    rng = np.random.default_rng(0)
    noise = np.clip(np.rint(rng.normal(128, 40, (4000, 2, 2))), 0, 255).astype(np.uint8)
    transform = ecsq.fit_transform(list(noise), (2, 2), 1)
    fitted = ecsq.fit_ecsq(list(noise), transform, 2000.0)
    data = fitted.compress(list(noise))
    bits = ecsq.payload_bits(data) / noise.size
    error = np.mean(np.square(np.stack(fitted.decompress(data)) - noise.astype(float)))
    excess = bits - 0.5 * math.log2(40**2 / error)
    assert excess == pytest.approx(0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.04)


def test_jpeg_and_webp_are_whole_files_and_refuse_small_images(monkeypatch: pytest.MonkeyPatch):
    images = photograph_set()
    monkeypatch.setattr(pillow_codecs, "QUALITIES", {"jpeg": (5, 60), "webp": (5, 60)})
    grey = replace(images, images=[x[:, :, 0] for x in images.images])
    for kind in ("jpeg", "webp"):
        for chosen in (images, grey):
            cheap, dear = pillow_codecs.pillow_curve(chosen, kind).points
            assert (cheap.file_bits < dear.file_bits).all()
            assert (cheap.squared_error > dear.squared_error).all()
            assert (cheap.payload_bits == cheap.file_bits).all()
        with pytest.raises(InputError, match="64 pixels"):
            pillow_codecs.pillow_curve(blob_set(), kind)


def test_a_learned_archive_is_charged_by_its_one_stream():
    images = blob_set(45)
    baseline = FakeBaseline()
    fine, _coarse = learned.learned_curve(images, learned.Learned(baseline, 1)).points
    data = baseline.compress(images.images, 16.0)
    assert fine.payload_bits.sum() == pytest.approx(baseline.payload_bits(data))
    assert fine.file_bits.sum() == pytest.approx(8 * len(data))
    assert learned.baseline_names("ntc", images) == ("mnist-ntc",)
    assert learned.baseline_names("mine", images) == ("mine",)
    assert learned.baseline_names("ntc-plain", images) == ("mnist-ntc",)
    with pytest.raises(InputError, match="one size"):
        learned.baseline_names("ntc-block", photograph_set())


def test_a_reference_means_those_baselines_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learned, "is_baseline", lambda name: (tmp_path / name / "baseline.json").is_file())
    with pytest.raises(InputError, match="none is shipped for photographs; name the folder"):
        learned.baseline_names("ntc", photograph_set())
    for name in ("photo-ntc-factorized", "photo-ntc-hyperprior"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "baseline.json").touch()
        assert learned.baseline_names("ntc", photograph_set())[-1] == name


def test_a_learned_curve_says_whether_its_encoder_searches(monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []
    monkeypatch.setattr(
        "rcccodec.baselines.load_baseline", lambda name: loaded.append(name) or FakeBaseline()
    )
    images = blob_set(4)
    chosen = learned.load_learned(["ntc", "ntc-plain", "mnist-ntc"], images)
    assert loaded == ["mnist-ntc"]
    curves = [learned.learned_curve(images, one) for one in chosen]
    assert [c.name for c in curves] == ["fake-ntc, searching encoder", "fake-ntc, rounding encoder"]
    assert [c.key for c in curves] == ["fake-ntc", "fake-ntc-plain"]
    assert "two neighbours" in curves[0].description
    assert "searches nothing" in curves[1].description
    searched, plain = (curve.points[0].payload_bits.sum() for curve in curves)
    assert searched == plain - 8 * 4  # the fake saves a byte an image with a search


def test_blahut_arimoto_is_flattered_on_its_own_samples(tmp_path: Path):
    for split, seed, count in (("train", 0, 90), ("test", 1, 40)):
        (tmp_path / split).mkdir()
        for i, x in enumerate(blobs(count, 8, seed)):
            Image.fromarray(x).save(tmp_path / split / f"{i:03}.png")
    images = ImageSet(str(tmp_path), list(blobs(40, 8, 1)), True)
    inside, outside = ba_curves.ba_curves(images, [2.0])
    (a,), (b,) = inside.points, outside.points
    assert a.payload_bits.mean() < math.log2(90)
    weight = 2.0 / math.log(2)
    in_sample = a.payload_bits.mean() + weight * a.squared_error.mean()
    held_out = b.payload_bits.mean() + weight * b.squared_error.mean()
    assert held_out > in_sample + 0.2
    assert inside.kind == outside.kind == "bound"
    with pytest.raises(InputError, match="small images"):
        ba_curves.ba_curves(photograph_set(), [2.0])


def test_results_are_parallel_lists_with_the_promised_keys(comparison: Comparison):
    for curve in comparison.curves:
        lists = curve_results(curve, comparison)
        assert {
            "bpp", "psnr-rgb", "encoding_time", "decoding_time", "bits_per_image", "payload_bits", "mse",
            "distortion", "rd_limit_bits", "overhead_bits", "guarantee_bits", "ci95",
        } <= set(lists)  # fmt: skip
        assert {len(values) for values in lists.values()} == {2}
        assert lists["bits_per_image"] == sorted(lists["bits_per_image"])
        for i in range(2):
            assert lists["bpp"][i] == pytest.approx(lists["bits_per_image"][i] / 64)
            assert lists["payload_bits"][i] == pytest.approx(30 * lists["bits_per_image"][i])
            assert lists["mse"][i] == pytest.approx(lists["distortion"][i] / 64)
            assert lists["psnr-rgb"][i] == pytest.approx(-10 * math.log10(lists["mse"][i]))
            low, high = lists["ci95"][i]["distortion"]
            assert low < lists["distortion"][i] < high
            if lists["rd_limit_bits"][i] is not None:
                spent = lists["bits_per_image"][i] - lists["rd_limit_bits"][i]
                assert lists["overhead_bits"][i] == pytest.approx(spent)
        assert (lists["guarantee_bits"][0] is not None) == curve.exact


def test_compressai_plots_the_files_unchanged(comparison: Comparison, tmp_path: Path):
    written = results.write_results(tmp_path / "r.json", comparison, bjontegaard_deltas(comparison))
    names = {path.name for path in written}
    assert names == {"r.json", "r.grey-pfr.json", "r.fake-ntc.json"}
    main = json.loads((tmp_path / "r.json").read_text())
    assert main["files"] == {"grey-pfr": "r.grey-pfr.json", "fake-ntc": "r.fake-ntc.json"}
    assert {"commit", "theory", "bjontegaard", "image_sha256", "threads", "device", "versions"} <= set(main)
    command = [sys.executable, "-c", PLOT_WITH_COMPRESSAI, "-f", *map(str, written), "-o"]
    done = subprocess.run([*command, str(tmp_path / "p.png")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "p.png").stat().st_size > 5000
    del main["results"]["bpp"]
    (tmp_path / "bad.json").write_text(json.dumps(main))
    bad = [*command[:3], "-f", str(tmp_path / "bad.json"), "-o", str(tmp_path / "bad.png")]
    assert subprocess.run(bad, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_figure_draws_every_curve(comparison: Comparison, kind: str):
    data = figure.figure_bytes(comparison, kind)
    fewer = figure.figure_bytes(replace(comparison, curves=comparison.curves[:1]), kind)
    assert data[:4] == (b"\x89PNG" if kind == "png" else b"<?xm")
    assert len(data) > len(fewer) > 5000


def test_the_report_needs_nothing_from_elsewhere(comparison: Comparison):
    page = html_report.report_bytes(comparison, bjontegaard_deltas(comparison)).decode()
    assert foreign(page) == []
    assert page.count("data:image/png;base64,") == 1 + len(comparison.curves)
    for curve in comparison.curves:
        assert curve.name in page
    assert foreign('<img src="https://example.org/a.png">')
    assert foreign("<style>@import url(a.css)</style>")


def foreign(page: str) -> list[str]:
    """What a browser would fetch for this page."""
    named = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page) + re.findall(r"url\(([^)]*)\)", page)
    return [name for name in named if not name.strip("\"'").startswith(("data:", "#"))]


def test_pictures_are_shown_at_the_rates_nearest_to_each_other(comparison: Comparison):
    points = html_report.equal_rate(comparison)
    target = points[0][1].payload_bits.mean()
    for curve, point in points:
        nearest = min(abs(math.log(p.payload_bits.mean() / target)) for p in curve.points)
        assert abs(math.log(point.payload_bits.mean() / target)) == pytest.approx(nearest)


def test_every_curve_has_a_file_name_of_its_own():
    keys = ["mine", "a/b c", "mine", "mine-2", "../x"]
    made = [c.key for c in run.with_own_keys([Curve(k, k, "", ()) for k in keys])]
    assert made == ["mine", "a-b-c", "mine-2", "mine-2-2", "-x"]


def test_averages_over_codebooks_by_hand():
    images = blob_set(2)
    mean = average_codebooks([_point(4.0, 1.0), _point(6.0, 3.0)], images)
    assert mean.payload_bits.tolist() == [5.0, 5.0]
    assert mean.squared_error.tolist() == [2.0, 2.0]
    assert mean.codebooks == ((4.0, 1.0), (6.0, 3.0))


def test_deltas_of_a_cheaper_codec_are_negative_and_of_itself_nothing():
    images = blob_set(40)
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 1.5, 40)

    def curve(key: str, factor: float, kind: str) -> Curve:
        points = tuple(
            replace(_point(factor * bits, error, 40), payload_bits=factor * bits * spread)
            for bits, error in ((4.0, 8.0), (8.0, 4.0), (16.0, 2.0))
        )
        return Curve(key, key, "", points, kind)

    mine, same, dear = curve("mine", 1, "rcc"), curve("same", 1, "reference"), curve("dear", 2, "reference")
    first, second = bjontegaard_deltas(Comparison(images, (mine, same, dear), {}, {}))
    assert first["bd_rate_percent"] == pytest.approx(0)
    assert first["bd_rate_ci95"] == pytest.approx([0, 0], abs=1e-9)  # resampled together
    assert second["bd_rate_percent"] == pytest.approx(-50)
    assert second["bd_psnr_db"] == pytest.approx(10 * math.log10(2))


def test_the_readme_table_reads_rates_at_equal_error_and_stars_what_beats_the_learned(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    import comparison_table

    def curve(name: str, kind: str, bits: list[float], sha256: str | None) -> dict:
        return {
            "name": name, "kind": kind, "sha256": sha256,
            "results": {"distortion": [40.0, 20.0], "bits_per_image": bits},
        }  # fmt: skip

    curves = [
        curve("mine", "rcc", [2.0, 10.0], "a"), curve("learned", "reference", [3.0, 9.0], "b"),
        curve("classic", "reference", [1.0, 1.0], None), curve("ideal", "bound", [0.0, 0.0], None),
    ]  # fmt: skip
    limits = [{"distortion": d, "rate_bits": r} for d, r in ((40, 1.0), (20, 8.0))]
    text = comparison_table.table(curves, limits)
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in text.splitlines()
    }
    assert rows["mine"] == ["2.00*", "4.00*", "6.00", "8.00", "10.00", "-"]
    assert rows["learned"][1] == "4.50"
    assert rows["R(D), NERD upper bound"][0] == "1.00"
    assert "ideal" not in rows


def _point(bits: float, error: float, count: int = 2) -> Point:
    each = np.full(count, bits)
    return Point("x", each, each, np.full(count, error), np.full(count, 64.0), 0.0, 0.0)
