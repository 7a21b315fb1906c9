"""Benches: their arithmetic by hand, and each one's core on the tiny models."""

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CANDIDATES, SEED

from rcccodec import codec, container
from rcccodec.bundle import load_model
from rcccodec.rd.nerd import estimate_nerd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))  # where scripts find each other
invariance, metadata, mnist_rcc, mnist_rows, photo_kodak, rcc_files, errors = map(
    importlib.import_module,
    ("invariance", "metadata", "mnist_rcc", "mnist_rows", "photo_kodak", "rcc_files", "standard_error"),
)
plain, roofline, throughput = map(importlib.import_module, ("plain_search", "roofline", "throughput"))
Estimate, Trial = mnist_rows.Estimate, mnist_rows.Trial

pytestmark = pytest.mark.usefixtures("tiny")
LN2 = math.log(2)
ROW_KEYS = {
    "beta", "rd_rate_bits", "rd_distortion", "coder", "index_code", "payload_bits_per_image", "distortion",
    "excess_bits", "certified_fraction", "seeds",
}  # fmt: skip


def digits(count: int, seed: int = 0) -> np.ndarray:
    """Blobs of 8x8, uint8 (count, 8, 8)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(2, 5, (count, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    blob = np.exp(-((rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2) / 4)
    return np.rint(255 * blob).astype(np.uint8)


def trial(payload: float, lengths: tuple[float, ...], distortion: tuple[float, ...]) -> Trial:
    return Trial(payload, payload + 1, np.array(lengths), np.array(distortion), 0.0, 0.5)


def row_of(beta: float, found: Estimate, trials: list[Trial]) -> dict:
    seeds = list(range(len(trials)))
    return mnist_rows.make_row(
        beta, found, trials, coder="pfr", index_code="fitted", seeds=seeds, num_candidates=64
    )


# two codebooks, parts of 3 and 1 images: R = 3/4 * 2 + 1/4 * 6 = 3 and 4, D = 3/4 * 10 + 1/4 * 30 = 15
TWO = Estimate(
    np.array([[2.0, 6.0], [3.0, 7.0]]), np.array([[10.0, 30.0], [10.0, 30.0]]), np.array([0.75, 0.25])
)


def test_excess_is_payload_and_distortion_over_the_estimate_by_hand():
    # beta = ln 2: a unit of distortion costs one bit. (5 + 16) - (3 + 15) = 3 and (6 + 17) - (4 + 15) = 4
    trials = [trial(5, (4, 8), (11, 31)), trial(6, (5, 9), (12, 32))]
    row = row_of(LN2, TWO, trials)
    assert row["rd_rate_bits"] == pytest.approx(3.5)
    assert row["rd_distortion"] == pytest.approx(15)
    assert (row["payload_bits_per_image"], row["distortion"]) == pytest.approx((5.5, 16.5))
    assert row["excess_bits"] == pytest.approx(3.5)
    assert row["excess_bits_by_codebook"] == pytest.approx([3, 4])
    assert row["excess_se_codebooks_bits"] == pytest.approx(0.5)
    # by part: lengths 4.5, 8.5 and D 11.5, 31.5 less R 2.5, 6.5 and D 10, 30: 3.5 in both, so no spread
    assert row["excess_se_images_bits"] == pytest.approx(0, abs=1e-12)
    assert row["code_length_bits_per_image"] == pytest.approx(0.75 * 4.5 + 0.25 * 8.5)
    assert row["guarantee_bits"] == pytest.approx(3.5 + math.log2(4.5) + 5)
    assert row["log2_candidates_less_rate"] == pytest.approx(2.5)
    assert row["saturated"]
    assert row_of(2 * LN2, TWO, trials)["excess_bits"] == pytest.approx(2 + 2 * 1.5)


def test_pairing_takes_a_codebooks_luck_out_and_unpaired_codebooks_keep_it():
    lucky = Estimate(np.array([[2.0], [4.0], [9.0]]), np.zeros((3, 1)), np.ones(1))
    with_it = [trial(r + 2, (r + 2,), (0,)) for r in (2.0, 4.0, 9.0)]
    against_it = [trial(r + 2, (r + 2,), (0,)) for r in (9.0, 2.0, 4.0)]
    paired, crossed = row_of(1, lucky, with_it), row_of(1, lucky, against_it)
    assert paired["excess_bits"] == crossed["excess_bits"] == pytest.approx(2)
    assert paired["excess_se_codebooks_bits"] == pytest.approx(0)
    assert crossed["excess_se_codebooks_bits"] > 1
    assert paired["excess_se_images_bits"] is None  # one part says nothing


def test_a_single_codebook_is_held_against_the_estimates_mean_without_an_error():
    row = row_of(LN2, TWO, [trial(5, (4, 8), (11, 31))])
    assert row["excess_bits"] == pytest.approx(21 - 18.5)
    assert row["excess_se_codebooks_bits"] is None
    assert row["seeds"] == 1


def test_standard_error_by_hand():
    assert errors.standard_error([1, 3]) == pytest.approx(1)
    assert errors.standard_error([7]) is None


def test_published_tables_agree_with_themselves():
    path = mnist_rcc.PUBLISHED / "mnist_reference.json"
    reference = mnist_rows.read_reference(path)
    stated = json.loads(path.read_text())["lagrangian_bits_R_plus_beta_D_over_ln2"]
    for beta, bits in stated.items():
        record = mnist_rows.estimate_record(float(beta), TWO, 64, reference)
        assert record["reference_lagrangian_bits"] == pytest.approx(bits, abs=0.011)
    record = mnist_rows.estimate_record(0.2, TWO, 64, reference)
    assert record["reference_pfr_zipf_excess_bits"] == pytest.approx(2.50, abs=0.01)
    assert record["no_higher_than_reference"]  # 3.5 + 0.2 * 15 / ln 2 = 7.8
    assert "reference_rate_bits" not in mnist_rows.estimate_record(0.21, TWO, 64, reference)
    for file in mnist_rcc.PUBLISHED.glob("*.json"):
        assert json.loads(file.read_text())["source"]


def test_the_summary_averages_the_rungs_that_the_goal_counts():
    rows = [
        {
            "beta": beta,
            "rd_rate_bits": rate,
            "coder": coder,
            "index_code": "fitted",
            "excess_bits": excess,
            "excess_bits_by_codebook": [excess - 1, excess + 1],
            "excess_se_images_bits": 0.1,
            "seeds": 2,
        }
        for beta, rate, coder, excess in (
            (0.1, 3.9, "pfr", 9.0),
            (0.2, 4.5, "pfr", 2.0),
            (0.4, 9.0, "pfr", 2.6),
            (0.4, 9.0, "orc", 1.0),
        )
    ]
    pfr, orc = mnist_rows.summarise(rows)
    assert (pfr["betas"], pfr["goal_bits"], pfr["reached"]) == ([0.2, 0.4], 2.4, True)
    assert pfr["excess_bits"] == pytest.approx(2.3)
    assert pfr["excess_se_codebooks_bits"] == pytest.approx(1)
    assert (orc["goal_bits"], orc["reached"]) == (None, None)
    rows[1]["excess_bits"] = 3.0
    assert not mnist_rows.summarise(rows)[0]["reached"]


@pytest.mark.parametrize("coder", ["pfr", "orc"])
def test_the_same_indices_in_another_code_are_the_file_of_another_call(coder: str):
    model, options = load_model("grey"), {"coder": coder, "seed": 9, "num_candidates": 200}
    images = list(digits(12))
    data = codec.compress(images, model, index_code="fitted", **options).data
    other = codec.compress(images, model, index_code="zipf", **options).data
    assert rcc_files.with_index_code(data, model, "zipf") == other
    assert rcc_files.with_index_code(data, model, "fitted") == data
    assert rcc_files.payload_bits(data) == 8 * len(container.unpack(data)[1][0].payload)


def test_a_file_that_decodes_to_something_else_is_noticed():
    model, images = load_model("grey"), list(digits(4))
    encoded = codec.compress(images, model)
    mnist_rcc.check_decodes(encoded.data, model, encoded.images)
    changed = [x.copy() for x in encoded.images]
    changed[3][0, 0] ^= 1
    with pytest.raises(AssertionError):
        mnist_rcc.check_decodes(encoded.data, model, changed)
    with pytest.raises(AssertionError):
        mnist_rcc.check_decodes(encoded.data, model, encoded.images[:3])


def test_a_rung_is_measured_with_every_coder_and_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnist_rcc, "GOAL_RATES_BITS", (0.0, 99.0))
    model, images, shown = load_model("grey"), digits(50), []
    record, rows = mnist_rcc.measure(
        images, model, 0, seeds=range(3), num_candidates=200, training=digits(300, 1), done=shown.append
    )
    assert rows == shown
    assert [(r["coder"], r["index_code"]) for r in rows] == [
        ("pfr", "fitted"), ("pfr", "zipf"), ("orc", "fitted"), ("orc", "zipf"), ("mincost", "fitted"),
        ("mincost", "prior"), ("pfr", "prior"), ("mincost", "prior_refitted"), ("pfr", "prior_refitted"),
        ("orc", "prior_refitted"),
    ]  # fmt: skip
    beta = model.rungs[0].beta
    for row in rows:
        assert set(row) >= ROW_KEYS
        spent = row["payload_bits_per_image"] + beta * row["distortion"] / LN2
        ideal = row["rd_rate_bits"] + beta * row["rd_distortion"] / LN2
        assert row["excess_bits"] == pytest.approx(spent - ideal)
        assert row["distortion"] == pytest.approx(row["distortion_unrounded"], rel=0.01)
        assert row["distortion"] != row["distortion_unrounded"]
        assert row["payload_bits_per_image"] - row["code_length_bits_per_image"] < 16 / 50
        assert row["file_bits_per_image"] > row["payload_bits_per_image"]
        assert (row["certified_fraction"] is not None) == (row["coder"] == "pfr")
        assert mnist_rows.line(row)
    pfr_fitted, pfr_zipf, orc_fitted, _, mincost, prior, _, refitted, pfr_refitted, orc_refitted = rows
    assert pfr_refitted["distortion"] == pfr_fitted["distortion"]  # the choice is the same
    assert orc_refitted["distortion"] == orc_fitted["distortion"]
    assert pfr_refitted["excess_bits"] < pfr_fitted["excess_bits"]
    assert pfr_fitted["distortion"] == pfr_zipf["distortion"]
    assert (prior["codebook_seeds"], prior["num_candidates"]) == ([SEED], CANDIDATES)
    assert prior["rd_rate_bits"] != mincost["rd_rate_bits"]  # another N
    assert (refitted["seeds"], refitted["num_candidates"]) == (3, 200)
    assert refitted["excess_bits"] < mincost["excess_bits"]  # tiny_models' fitted code was learnt on nothing
    assert record["rate_bits"] == pfr_zipf["rd_rate_bits"]
    with pytest.raises(ValueError, match="one stage"):
        mnist_rcc.measure(images[:, :4], model, 0, seeds=range(1), num_candidates=10)


def test_the_estimate_in_parts_is_the_estimate_of_all_images():
    stage, images = load_model("grey").rungs[1].stages[0], digits(33)
    found = mnist_rcc.estimate(images, stage, range(4, 6), 300, 7, "cpu")
    x = mnist_rcc.flat_pixels(images)
    whole = estimate_nerd(x, stage.proposal(), beta=stage.beta, num_candidates=300, seeds=(4, 5))
    assert found.mean(found.rate_bits) == pytest.approx(whole.rate_bits, rel=1e-4)
    assert found.mean(found.distortion) == pytest.approx(whole.distortion, rel=1e-4)
    assert found.shares.sum() == pytest.approx(1)
    assert mnist_rcc.part_means(np.arange(33.0), 7) @ found.shares == pytest.approx(16)


def test_mnist_bench_writes_its_result_and_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "test").mkdir()
    for i, x in enumerate(digits(24)):
        Image.fromarray(x).save(tmp_path / "test" / f"{i:02}.png")
    words = ["--model", "grey", "--source", str(tmp_path), "--images", "20", "--candidates", "100"]
    files = [
        "--seeds",
        "2",
        "--rungs",
        "0",
        "--json",
        str(tmp_path / "r.json"),
        "--plot",
        str(tmp_path / "r.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["mnist_rcc.py", *words, *files])
    mnist_rcc.main()
    assert mnist_rows.HEADER in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert len(result["rows"]) == 7
    assert result["model_sha256"] == load_model("grey").sha256
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_kodak_bench_counts_the_bytes_that_are_on_disk(tmp_path: Path):
    model = load_model("colour")
    x = np.stack([digits(6, s).reshape(24, 16) for s in range(3)], axis=2)
    row, data, decoded = photo_kodak.rcc_file(x, tmp_path / "x.rcc", model, rung=1)
    assert (tmp_path / "x.rcc").read_bytes() == data
    assert row["file_bytes"] == len(data)
    assert row["bpp"] == pytest.approx(8 * len(data) / (24 * 16))
    np.testing.assert_array_equal(decoded, codec.decompress(data, model)[0])
    assert len(row["stage_bits"]) == 2
    assert sum(row["stage_bits"]) + row["container_bits"] == pytest.approx(8 * len(data))
    assert 8 * 15 < row["container_bits"] < 8 * 26
    with pytest.raises(AssertionError, match="decodes to"):
        photo_kodak.through_file(x, tmp_path / "y", lambda _: b"", lambda _: x[:8])


def test_kodak_bench_averages_and_reads_off_the_curve_by_hand():
    same = {"file_bytes": 1, "encode_s": 1, "decode_s": 1}
    rows = [{"bpp": 0.1, "psnr_db": 20, **same}, {"bpp": 0.3, "psnr_db": 26, **same}]
    mean = photo_kodak.average(rows)
    assert (mean["bpp"], mean["psnr_db"]) == pytest.approx((0.2, 23))
    assert (mean["bpp_se"], mean["psnr_db_se"]) == pytest.approx((0.1, 3))
    curve = [{"bpp": 0.4, "psnr_db": 30.0}, {"bpp": 0.1, "psnr_db": 20.0}]
    assert photo_kodak.psnr_at(0.2, curve) == pytest.approx(25)  # half way in log bpp
    assert photo_kodak.psnr_at(0.09, curve) is None
    others = [{"codec": "jpeg", "quality": 5, "bpp": 0.2, "psnr_db": 24.0}]
    beside = photo_kodak.beside_goal(curve, others)
    assert beside["rcc_psnr_db_at_that_bpp"] == pytest.approx(25)
    assert beside["reached"] is (20 + 10 * math.log(1.41) / math.log(4) >= 23.85)
    assert photo_kodak.beside_goal(curve[:1], others)["reached"] is None


def test_kodak_bench_takes_the_jpeg_nearest_in_size():
    x = np.stack([digits(64, s).reshape(64, 64) for s in range(3)], axis=2)
    sizes = [len(photo_kodak.pillow_bytes(x, format="JPEG", optimize=True, quality=q)) for q in (1, 40, 95)]
    for size in sizes:
        assert len(photo_kodak.nearest_jpeg(x, size)) == size
    assert photo_kodak.pillow_pixels(photo_kodak.nearest_jpeg(x, 0)).shape == x.shape


def test_kodak_bench_writes_its_result_and_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--model", "colour", "--source", "sample-photos", "--rungs", "0", "-o", str(tmp_path / "k")]
    monkeypatch.setattr(sys, "argv", ["photo_kodak.py", *words])
    photo_kodak.main()
    result = json.loads((tmp_path / "k.json").read_text())
    assert [row["rung"] for row in result["rows"]] == [0]
    assert {row["codec"] for row in result["others"]} == {"jpeg", "jpeg optimize", "webp method 6"}
    assert len(result["rows"][0]["images"]) == 2
    assert (tmp_path / "k.png").stat().st_size > 10_000
    with Image.open(tmp_path / "k_pictures.png") as grid:
        assert grid.width > 3 * 384
        assert grid.height > 2 * 256


def test_decoding_is_timed_for_each_index_code():
    rows = invariance.decoding_times(digits(1)[0], load_model("grey"), (4, 7), 3)
    assert [row["index_code"] for row in rows] == ["zipf", "fitted", "prior"]
    for row in rows:
        assert min(row["decode_s"]) > 0
        assert row["ratio"] == pytest.approx(row["decode_s"][1] / row["decode_s"][0])


def test_threads_do_not_change_pixels_and_a_changed_pixel_is_counted():
    before = torch.get_num_threads()
    row = invariance.thread_differences(digits(6), load_model("grey"), (1, 2), coder="pfr")
    assert torch.get_num_threads() == before
    assert row["decoded_images_compared"] == 24
    assert row["pixels_that_differ"] == row["pixels_that_differ_between_encoders"] == 0
    x = list(digits(3))
    changed = [x[0], x[1] ^ np.eye(8, dtype=np.uint8), x[2]]
    assert invariance.count_differences(x, changed) == 8


def test_a_decoder_that_looks_at_the_threads_is_caught(monkeypatch: pytest.MonkeyPatch):
    honest = codec.decompress

    def careless(data: bytes, model: object) -> list[np.ndarray]:
        return [x ^ np.uint8(torch.get_num_threads() - 1) for x in honest(data, model)]

    monkeypatch.setattr(codec, "decompress", careless)
    row = invariance.thread_differences(digits(2), load_model("grey"), (1, 2), coder="pfr")
    assert row["pixels_that_differ"] == 2 * 2 * 64  # the two decodings by two threads


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read as Linux gives it")
def test_peak_memory_is_that_of_the_command(tiny: Path):
    row = invariance.peak_memory(digits(1)[0], tiny / "grey", "pfr", (4, 5))
    assert all(50 < peak < 2000 for peak in row["peak_mib"])
    assert row["within_bar"]
    with pytest.raises(RuntimeError, match="no-such-coder"):
        invariance.peak_memory(digits(1)[0], tiny / "grey", "no-such-coder", (4, 5))


def test_results_say_what_they_were_made_with_and_refuse_nonsense(tmp_path: Path):
    made = metadata.describe_run(0.0)
    assert {"commit", "dirty", "date", "device", "threads", "versions", "seconds"} <= set(made)
    metadata.write_result(tmp_path / "new" / "r.json", made)
    assert json.loads((tmp_path / "new" / "r.json").read_text()) == made
    with pytest.raises(ValueError, match="JSON"):
        metadata.write_result(tmp_path / "bad.json", {"x": math.nan})
    assert not (tmp_path / "bad.json").exists()


def test_the_list_of_benches_is_complete():
    text = (ROOT / "bench" / "README.md").read_text()
    for script in (ROOT / "bench").glob("*.py"):
        assert script.name in text


def test_a_refitted_model_keeps_everything_but_the_priors_of_its_rung():
    model = load_model("grey")
    fitted = mnist_rcc.with_priors(model, 1, digits(200), 77, 128, "cpu")
    assert fitted.rungs[0] is model.rungs[0]
    made = fitted.rungs[1].stages[0].priors
    assert {coder: prior.num_candidates for coder, prior in made.items()} == dict.fromkeys(
        ("mincost", "pfr", "orc"), 128
    )
    assert (fitted.default_seed, fitted.default_num_candidates, fitted.sha256) == (77, 128, model.sha256)
    assert replace(fitted.rungs[1].stages[0], priors={}) == model.rungs[1].stages[0]


def test_shared_indices_are_measured_beside_single_ones(tmp_path: Path):
    bench = importlib.import_module("shared_indices")
    model, numbers = load_model("grey"), [1 << 9, 1 << 11]
    rows = bench.measure(list(digits(24)), model, 0, numbers, range(1, 3), "cpu")
    assert [(r["coder"], r["num_candidates"], r["images_per_index"]) for r in rows] == [
        ("pfr", 512, 1), ("mincost", 512, 1), ("pfr", 512, 2), ("mincost", 512, 2), ("pfr", 2048, 3),
        ("mincost", 2048, 3),
    ]  # fmt: skip
    for row in rows:
        spent = row["payload_bits_per_image"] + row["beta"] * row["distortion"] / LN2
        ideal = row["rd_rate_bits"] + row["beta"] * row["rd_distortion"] / LN2
        assert row["excess_bits"] == pytest.approx(spent - ideal)
        assert row["excess_se_codebooks_bits"] > 0
    bench.plot({"images": "blobs", "rows": rows}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 500


TOY = {
    "--source": "sample-digits", "--images": "4 8", "--candidates": "64", "--blocks": "8", "--width": "2",
    "--latent-dim": "8", "--plain-codebooks": "1", "--log2-exact": "11", "--exact-blocks": "4",
    "--log2-memory": "6", "--memory-images": "2", "--log2-decode": "6 7", "--decode-images": "4",
    "--repeats": "1",
}  # fmt: skip


def test_throughput_measures_every_part_at_toy_sizes(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [word for option, values in TOY.items() for word in (option, *values.split())]
    throughput.main([*words, "--other-models", "grey", "-o", str(tmp_path / "t.json")])
    result = json.loads((tmp_path / "t.json").read_text())
    assert {"commit", "device", "threads", "versions", "asked", "models"} <= result.keys()
    assert [row["generator"] for row in result["generators"]] == [
        "mnist stage 0", "grey stage 0", "dcgan c_d=2"
    ]  # fmt: skip
    for row in result["generators"]:
        search = row["search"]
        assert math.isclose(sum(search[f"{part}_share"] for part in ("random", "generator", "search")), 1)
        assert search["block_candidates_per_s"] == pytest.approx(8 * search["candidates_per_s"])
    assert [(row["images"], row["ratio"] > 0) for row in result["plain"]] == [(4, True), (8, True)] * 2
    assert [row["indices_that_differ"] for row in result["exact"]] == [{"pfr": 0, "orc": 0}] * 2
    assert result["memory"]["peak_mib"] > 50
    assert [row["num_candidates"] for row in result["decode"]] == [64, 128]
    assert "plain DCGAN" in capsys.readouterr().out


def test_work_is_counted_from_the_layers_without_padding_and_cropped_outputs():
    linear, same = torch.nn.Linear(3, 5), torch.nn.Conv2d(2, 3, 3, padding=1)
    up = torch.nn.ConvTranspose2d(2, 3, 4, 2, 1)
    assert roofline.flops_per_candidate(linear, 3) == 2 * 15
    on_maps = torch.nn.Sequential(torch.nn.Unflatten(1, (2, 2, 2)), same)
    assert roofline.flops_per_candidate(on_maps, 8) == 2 * 2 * 3 * 4 * 4  # 2x2 maps: 2 of 3 taps an axis
    on_maps = torch.nn.Sequential(torch.nn.Unflatten(1, (2, 2, 2)), up)
    assert roofline.flops_per_candidate(on_maps, 8) == 2 * 2 * 3 * 6 * 6  # 4 outputs see 1, 2, 2, 1 an axis


def test_the_plain_algorithm_picks_what_its_scores_say():
    network = plain.random_dcgan(2, 8, 1).at_slope(1.0).float()
    assert network(torch.randn(64, 8, generator=torch.Generator().manual_seed(0))).std(0).mean() > 0.1
    x = torch.rand(5, 1024, generator=torch.Generator().manual_seed(0))
    assert plain.plain_search(x, network, 1e-6, 64, 3).tolist() == [0] * 5  # the weights alone: they rise
    found = plain.plain_search(x, network, 1e3, 64, 3)
    z = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    assert found.tolist() == torch.cdist(x, network(z)).argmin(1).tolist() != [0] * 5
    code = plain.zipf_huffman(64, 4.0)
    assert code.decode(plain.plain_bytes(x, network, code, 1e3, 64, 3)) == (found + 1).tolist()


def test_codes_of_shared_indices_are_measured_on_one_choice():
    bench = importlib.import_module("joint_codes")
    images, training = list(digits(25)), digits(60)
    options = {"num_candidates": 512, "seeds": range(1, 3), "coders": ("pfr",)}
    rows = bench.measure(images, training, load_model("grey"), 0, **options)
    assert [(r["coder"], r["code"], r["images_per_index"]) for r in rows] == [
        ("pfr", code, 2) for code in ("borrowed", "fitted", "prior")
    ]
    assert len({r["distortion"] for r in rows}) == 1  # the law does not depend on the code
    assert len({r["payload_bits_per_image"] for r in rows}) == 3
    for row in rows:
        assert row["excess_bits"] - rows[0]["excess_bits"] == pytest.approx(
            row["payload_bits_per_image"] - rows[0]["payload_bits_per_image"]
        )
    assert not bench.measure(images, training, load_model("grey"), 0, **options | {"num_candidates": 64})
