"""The command line with a model of latents: what it writes, prints and refuses."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import smooth_picture, write_tiny_latent_model

import rcccodec
from rcccodec import cli, codec, container
from rcccodec.bundle import load_model
from rcccodec.errors import FormatError, LimitError, RccError
from rcccodec.images import read_image
from rcccodec.latent.samples import draw_classes

FAST = ("-m", "latent", "-e", "1")


@pytest.fixture(scope="module")
def latent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle ``latent`` of tiny_models.py."""
    folder = tmp_path_factory.mktemp("latent-models")
    write_tiny_latent_model(folder / "latent")
    return folder


@pytest.fixture
def work(model_folder: Path, latent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, all tiny models installed; in.png is 400x380, of four tiles."""
    shipped = tmp_path / "shipped"
    shutil.copytree(model_folder, shipped)
    shutil.copytree(latent_folder / "latent", shipped / "latent")
    monkeypatch.setenv("RCC_MODELS", str(shipped))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Image.fromarray(smooth_picture(380, 400, 7)).save("in.png")
    Image.fromarray(smooth_picture(20, 30, 8)).save("small.png")
    return folder


@pytest.fixture
def whole(work: Path, rcc) -> np.ndarray:
    """in.rcc, made of in.png, and its pixels."""
    assert rcc("compress", "in.png", "-o", "in.rcc", *FAST)[0] == 0
    return codec.decompress(Path("in.rcc").read_bytes())[0]


def one_line(result: tuple[int, str, str], exit_code: int) -> str:
    """The error of a command that failed as documented."""
    code, out, err = result
    assert (code, out) == (exit_code, "")
    assert err.startswith("rcc: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("region", ["0,0,400,380", "0,0,1,1", "250,240,50,30", "100,60,33,17", "399,379,1,1"])
def test_a_region_is_the_crop_of_the_whole_image(whole: np.ndarray, rcc, region: str):
    assert rcc("decompress", "in.rcc", "-o", "part.png", "--region", region)[0] == 0
    left, top, width, height = map(int, region.split(","))
    crop = whole[top : top + height, left : left + width].astype(int)
    part, _ = read_image("part.png")
    assert np.array_equal(part, crop)
    if crop.size > 3000:  # the control: another place shows something else
        assert np.abs(part - np.roll(whole, 16, axis=1)[top : top + height, left : left + width]).max() > 1


def test_a_region_reads_no_more_tiles_than_it_needs(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    from rcccodec.latent import bands

    Image.fromarray(smooth_picture(300, 600, 7)).save("in.png")
    assert rcc("compress", "in.png", "-o", "in.rcc", *FAST)[0] == 0
    made = []
    tile_latents = bands.tile_latents
    monkeypatch.setattr(bands, "tile_latents", lambda *a: made.append(1) or tile_latents(*a))
    data = Path("in.rcc").read_bytes()
    codec.decompress(data, region=(10, 10, 40, 40))
    assert len(made) == 4, "the tile and those around it"
    codec.decompress(data)
    assert len(made) == 4 + 6


def test_a_region_of_a_file_of_shared_candidates_is_its_crop(work: Path, rcc):
    assert rcc("compress", "small.png", "-o", "a.rcc", "-m", "colour")[0] == 0
    assert rcc("decompress", "a.rcc", "-o", "part.png", "--region", "3, 4, 20, 10")[0] == 0
    (x,) = codec.decompress(Path("a.rcc").read_bytes())
    np.testing.assert_array_equal(read_image("part.png")[0], x[4:14, 3:23])


@pytest.mark.parametrize("region", ["", "1,2,3", "1,2,3,4,5", "a,0,1,1", "0.5,0,1,1", "0,0,1,1000000000000"])
def test_a_malformed_region_is_wrong_usage(whole: np.ndarray, rcc, region: str):
    code, out, err = rcc("decompress", "in.rcc", "-o", "part.png", "--region", region)
    assert (code, out) == (2, "")
    assert "X,Y,W,H" in err
    assert not Path("part.png").exists()


@pytest.mark.parametrize("region", ["0,0,401,1", "0,1,1,380", "-1,0,5,5", "0,0,0,5", "400,0,1,1"])
def test_a_region_outside_the_image_is_one_line(whole: np.ndarray, rcc, region: str):
    err = one_line(rcc("decompress", "in.rcc", "-o", "part.png", "--region", region), 7)
    assert "in.rcc: region of" in err
    assert not Path("part.png").exists()


def test_archives_and_folders_have_no_regions(work: Path, rcc):
    rcc("compress", "small.png", "small.png", "-o", "two.rcc", *FAST)
    err = one_line(rcc("decompress", "two.rcc", "-o", "two/", "--region", "0,0,1,1"), 7)
    assert "several images" in err
    for option in (["--region", "0,0,1,1"], ["--partial"]):
        assert rcc("decompress", ".", "-o", "out/", *option)[0] == 2
    assert not Path("two").exists()


def test_a_file_cut_short_shows_its_whole_tiles(whole: np.ndarray, rcc):
    data = Path("in.rcc").read_bytes()
    seen = set()
    for size in range(60, len(data), len(data) // 9):
        Path("cut.rcc").write_bytes(data[:size])
        assert rcc("decompress", "cut.rcc", "-o", "cut.png")[0] == 4  # the control: only if asked for
        code, out, err = rcc("decompress", "cut.rcc", "-o", "cut.png", "--partial")
        if code == 4:
            assert "not one tile" in err
            assert not seen
            continue
        assert (code, out) == (0, "cut.png: 400x380 rgb\n")
        words = err.split()
        assert err == (
            f"rcc: note: cut.rcc: {words[3]} of 4 tiles are there; the rest is filled with the mean; "
            "no checksum vouches for what is shown\n"
        )
        seen.add(int(words[3]))
        x, _ = read_image("cut.png")
        margin = 48  # pixels at a tile's edge depend on the next
        near = np.abs(x.astype(int) - whole)[: 256 - margin, : 256 - margin]
        assert near.max() <= 1
        assert (np.abs(x.astype(int) - whole).max() > 1) == (int(words[3]) < 4)
    assert {1, 2} <= seen
    Path("cut.rcc").write_bytes(data[:-2])  # all tiles, half a checksum
    assert rcc("decompress", "cut.rcc", "-o", "cut.png", "--partial")[2] == (
        "rcc: note: cut.rcc: 4 of 4 tiles are there; no checksum vouches for what is shown\n"
    )
    Path("cut.rcc").write_bytes(data)
    assert rcc("decompress", "cut.rcc", "-o", "cut.png", "--partial")[2] == (
        "rcc: note: cut.rcc: 4 of 4 tiles are there\n"
    )
    np.testing.assert_array_equal(read_image("cut.png")[0], whole)
    assert rcc("decompress", "cut.rcc", "-o", "cut.png", "--partial", "--quiet") == (0, "", "")
    assert rcc("decompress", "cut.rcc", "-o", "cut.png", "--partial", "--region", "250,250,9,8")[0] == 0
    assert np.abs(read_image("cut.png")[0].astype(int) - whole[250:258, 250:259]).max() <= 1


def test_what_is_missing_is_filled_evenly(whole: np.ndarray):
    data = Path("in.rcc").read_bytes()
    found = codec.decompress_prefix(data[: len(data) // 2])
    assert (found.whole_tiles, found.tiles) == (1, 4)
    missing = (slice(288, 352), slice(288, 352))  # far from tiles that are there and from edges
    blocks = found.image[missing].reshape(4, 16, 4, 16, 3).astype(int)
    assert np.abs(blocks - blocks[:1, :, :1]).max() <= 1
    others = whole[missing].reshape(4, 16, 4, 16, 3).astype(int)  # the control
    assert np.abs(others - others[:1, :, :1]).max() > 1


@pytest.mark.parametrize(
    ("inputs", "model", "exit_code", "cause"),
    [
        (["small.png", "small.png"], "latent", 7, "several images"),
        (["in.png", "small.png"], "latent", 7, "several images"),
        (["small.png"], "colour", 7, "only models of latents"),
    ],
)
def test_only_one_image_of_latents_has_a_partial_form(
    work: Path, rcc, inputs: list[str], model: str, exit_code: int, cause: str
):
    rcc("compress", *inputs, "-o", "a.rcc", "-m", model)
    assert cause in one_line(rcc("decompress", "a.rcc", "-o", "a.png", "--partial"), exit_code)
    assert not Path("a.png").exists()


def test_a_damaged_file_gives_a_picture_or_one_documented_error(whole: np.ndarray):
    data, rng = Path("in.rcc").read_bytes(), np.random.default_rng(0)
    model, shown = load_model("latent"), 0
    for _ in range(40):
        damaged = bytearray(data[: rng.integers(20, len(data) + 1)])
        for place in rng.integers(0, len(damaged), 2):
            damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(RccError):
            codec.decompress(bytes(damaged), model)
        with contextlib.suppress(RccError):
            found = codec.decompress_prefix(bytes(damaged), model, max_pixels=1 << 20)
            assert 1 <= found.whole_tiles <= found.tiles
            shown += 1
    assert shown


def test_a_file_cut_within_its_header_is_refused(whole: np.ndarray):
    data = Path("in.rcc").read_bytes()
    for size in range(18):
        with pytest.raises(FormatError):
            codec.decompress_prefix(data[:size])
    with pytest.raises(LimitError, match="152000 pixels"):
        codec.decompress_prefix(data[:200], max_pixels=151999)
    header, group = container.unpack_prefix(data)
    assert (header, group.width, group.height) == (container.unpack(data)[0], 400, 380)


COMPRESS_KEYS = [
    "file_bytes", "payload_bits", "bpp", "psnr_db", "class_bits", "dimension_bits", "framing_bits",
    "divergence_bits", "expected_bits", "positions", "coder", "log2_num_candidates", "encode_s", "model",
    "rung", "beta",
]  # fmt: skip
INFO_KEYS = [
    "format_version", "model", "model_sha256", "model_status", "coder", "rung", "seed", "tiles", "states",
    "images", "payload_bits", "file_bytes",
]  # fmt: skip


def test_compress_says_what_a_file_costs(work: Path, rcc):
    code, out, err = rcc("compress", "in.png", "-o", "a.rcc", *FAST, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert list(report) == COMPRESS_KEYS
    assert report["file_bytes"] == Path("a.rcc").stat().st_size
    bits = sum(report[f"{part}_bits"] for part in ("class", "dimension", "framing"))
    assert bits == 8 * report["file_bytes"]
    assert (report["model"], report["rung"], report["beta"]) == ("latent", 1, 60.0)
    _, out, err = rcc("compress", "in.png", "-o", "a.rcc", *FAST)
    assert err == ""
    assert f"a.rcc: 1 image, {report['file_bytes']} bytes, " in out
    for words in ("latents", "classes", "trellis, 2^8 states", "not an exact simulation"):
        assert words in out


@pytest.mark.parametrize(
    ("shape", "mode"), [((1, 1), "grey"), ((5, 300), "grey"), ((300, 5, 3), "rgb"), ((1, 1, 3), "rgb")]
)
def test_images_of_any_size_go_there_and_back(work: Path, rcc, shape: tuple[int, ...], mode: str):
    x = smooth_picture(*shape[:2], 3)
    Image.fromarray(x if len(shape) == 3 else x[..., 0]).save("odd.png")
    code, _, err = rcc("compress", "odd.png", "-o", "odd.rcc", *FAST)
    assert (code, err) == (0, "")
    assert rcc("decompress", "odd.rcc", "-o", "back.png") == (
        0,
        f"back.png: {shape[1]}x{shape[0]} {mode}\n",
        "",
    )
    assert read_image("back.png")[0].shape == shape


def test_sixteen_bits_and_transparency_are_noted(work: Path, rcc):
    Image.fromarray((np.arange(400, dtype=np.uint16) * 160).reshape(20, 20)).save("deep.png")
    Image.fromarray(np.full((20, 20, 4), 90, np.uint8)).save("clear.png")
    for name in ("deep", "clear"):
        code, _, err = rcc("compress", f"{name}.png", "-o", f"{name}.rcc", *FAST)
        assert code == 0
        assert f"rcc: note: {name}.png: " in err


def test_several_images_make_an_archive(work: Path, rcc):
    Image.fromarray(smooth_picture(20, 30, 5)[..., 0]).save("grey.png")
    inputs = ["small.png", "in.png", "grey.png", "small.png", "small.png"]
    assert rcc("compress", *inputs, "-o", "all.rcc", *FAST, "--jobs", "2")[0] == 0
    facts = json.loads(rcc("info", "all.rcc", "--json")[1])
    assert [(g["count"], g["mode"]) for g in facts["images"]] == [
        (1, "rgb"),
        (1, "rgb"),
        (1, "grey"),
        (2, "rgb"),
    ]
    assert facts["tiles"] == 4 + 4
    assert rcc("decompress", "all.rcc", "-o", "all")[0] == 0
    for number, name in enumerate(inputs):
        assert rcc("compress", name, "-o", "one.rcc", *FAST)[0] == 0
        (alone,) = codec.decompress(Path("one.rcc").read_bytes())
        np.testing.assert_array_equal(read_image(f"all/{number:04}.png")[0], alone)


def test_a_folder_is_compressed_by_two_processes_as_by_one(work: Path, rcc):
    Path("pictures/below").mkdir(parents=True)
    shutil.copy("small.png", "pictures/a.png")
    shutil.copy("in.png", "pictures/below/b.png")
    assert rcc("compress", "pictures", "-o", "one/", *FAST)[0] == 0
    assert rcc("compress", "pictures", "-o", "two/", *FAST, "--jobs", "2")[0] == 0
    for name in ("a.rcc", "below/b.rcc"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert "(2 were there before)" in rcc("compress", "pictures", "-o", "one/", *FAST)[1]
    rows = json.loads(rcc("compress", "pictures", "-o", "one/", *FAST, "--json")[1])
    assert [list(row) for row in rows] == [["source", "file", *COMPRESS_KEYS]] * 2
    assert "were there" not in rcc("compress", "pictures", "-o", "one/", "-m", "latent", "-e", "2")[1]
    assert rcc("decompress", "one", "-o", "back") == (0, "back: 2 of 2 files\n", "")
    assert rcc("compress", "pictures", "-o", "folder.rcc", *FAST)[0] == 0
    assert not Path(".folder.rcc.parts").exists()


def test_pipes_carry_latents(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rcccodec.cli", "compress", "-", "-o", "-", *FAST, "--json"]
    made = subprocess.run(
        command, input=Path("small.png").read_bytes(), capture_output=True, env=environment, check=True
    )
    assert json.loads(made.stderr)["file_bytes"] == len(made.stdout)
    rcc("compress", "small.png", "-o", "a.rcc", *FAST)
    assert made.stdout == Path("a.rcc").read_bytes()


def test_slope_and_quality_choose_the_rung(work: Path, rcc):
    def rung(*options: str) -> int:
        return json.loads(rcc("compress", "small.png", "-o", "a.rcc", *FAST, "--json", *options)[1])["rung"]

    assert rung() == 1
    assert [rung("--beta", b) for b in ("1", "9", "50", "999")] == [0, 0, 1, 1]
    assert [rung("--quality", q) for q in ("0", "100")] == [0, 1]


@pytest.mark.parametrize("share", [0.6, 0.8, 1.0, 1.3, 9.0])
def test_a_size_is_kept_and_used(whole: np.ndarray, rcc, share: float):
    pixels, bits = whole.shape[0] * whole.shape[1], 8 * Path("in.rcc").stat().st_size
    target = int(share * bits)
    for option, value in (("--target-bits", str(target)), ("--target-bpp", str(target / pixels + 1e-9))):
        code, out, _ = rcc("compress", "in.png", "-o", "t.rcc", *FAST, "--json", option, value)
        assert code == 0
        size = 8 * json.loads(out)["file_bytes"]
        assert size <= target
        if share <= 1.3:
            assert size > 0.95 * target


def test_more_bits_than_a_float_holds_are_as_good_as_any(work: Path, rcc):
    made = [
        json.loads(rcc("compress", "small.png", "-o", "t.rcc", *FAST, "--json", "--target-bpp", bpp)[1])
        for bpp in ("1e308", "1000")
    ]
    assert made[0]["file_bytes"] == made[1]["file_bytes"]
    digits = "1" + "0" * 400
    code, out, err = rcc("compress", "small.png", "-o", "t.rcc", *FAST, "--json", "--target-bits", digits)
    assert (code, err) == (0, "")
    assert json.loads(out)["file_bytes"] == made[0]["file_bytes"]


def test_a_quality_is_reached(work: Path, rcc):
    base = ["compress", "in.png", "-o", "t.rcc", *FAST, "--json"]
    reached = json.loads(rcc(*base, "--beta", "8")[1])["psnr_db"]
    assert json.loads(rcc(*base, "--target-psnr", str(reached - 0.01))[1])["psnr_db"] >= reached - 0.01
    assert json.loads(rcc(*base, "--target-psnr", "1")[1])["rung"] == 0


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--target-psnr", "90"], "90 dB: the best this model reaches"),
        (["--target-psnr", "inf"], "the best this model reaches"),
        (["--target-bits", "100"], "100 bits: the smallest file"),
        (["--target-bpp", "1e-7"], "0 bits: the smallest file"),
        (["--index-code", "zipf"], "index code and joint: nothing to choose"),
        (["--joint"], "index code and joint: nothing to choose"),
        (["--no-joint", "--target-psnr", "10"], "index code and joint: nothing to choose"),
        (["--candidates", "1000"], "1000 candidates"),
        (["--candidates", "2097152"], "2097152 candidates"),
        (["--coder", "pfr", "--candidates", "32"], "32 candidates"),
        (["--beta", "-1"], "beta -1"),
        (["--quality", "101"], "quality 101"),
        (["--seed", "-1"], "seed -1"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line(work: Path, rcc, options: list[str], cause: str):
    assert cause in one_line(rcc("compress", "small.png", "-o", "t.rcc", "-m", "latent", *options), 7)
    assert not Path("t.rcc").exists()
    Path("one").mkdir()
    shutil.copy("small.png", "one/a.png")
    code, _, err = rcc("compress", "one", "-o", "out/", "-m", "latent", *options)
    assert code == 7
    assert all(line.startswith("rcc: error: ") for line in err.splitlines())
    assert not Path("out").exists()


@pytest.mark.parametrize("options", [["-e", "3"], ["--coder", "trellis"]])
def test_models_of_shared_candidates_have_neither_effort_nor_trellis(work: Path, rcc, options: list[str]):
    one_line(rcc("compress", "small.png", "-o", "a.rcc", "-m", "colour", *options), 7)


@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
def test_the_other_coders_work_with_targets_too(work: Path, rcc, coder: str):
    base = ["compress", "small.png", "-o", "a.rcc", *FAST, "--coder", coder]
    report = json.loads(rcc(*base, "--json")[1])
    assert (report["coder"], report["log2_num_candidates"]) == (coder, 8)
    facts = json.loads(rcc("info", "a.rcc", "--json")[1])
    assert (facts["coder"], facts["num_candidates"]) == (coder, 256)
    assert rcc("decompress", "a.rcc", "-o", "a.png")[0] == 0
    target = 8 * report["file_bytes"]
    assert 8 * json.loads(rcc(*base, "--json", "--target-bits", str(target))[1])["file_bytes"] <= target
    assert ("not an exact" in rcc(*base)[1]) == (coder == "mincost")


def test_the_table_of_effort_is_what_effort_does(rcc):
    from rcccodec.latent.file import DEFAULT_EFFORT, TRELLIS_EFFORT

    lines = {
        line.split()[0]: line.split()[1:]
        for line in rcc("compress", "--help")[1].splitlines()
        if line.split()
    }
    assert lines["-e"] == [str(level) for level in range(1, 10)]
    assert lines["L"] == [str(bits) for bits in TRELLIS_EFFORT]
    plain = TRELLIS_EFFORT[DEFAULT_EFFORT - 1]
    assert [Fraction(steps) for steps in lines["steps"]] == [
        Fraction(2) ** (bits - plain) for bits in TRELLIS_EFFORT
    ]


def test_info_tells_of_a_file_of_latents(whole: np.ndarray, rcc):
    facts = json.loads(rcc("info", "in.rcc", "--json")[1])
    assert list(facts) == INFO_KEYS
    assert (facts["format_version"], facts["model"], facts["coder"]) == (3, "latent", "trellis")
    assert (facts["rung"], facts["tiles"], facts["states"], facts["seed"]) == (1, 4, 256, 5)
    text = rcc("info", "in.rcc")[1]
    assert "coder           trellis\n" in text
    assert "tiles           4\n" in text
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from rcccodec import cli; cli.run(['info', 'in.rcc']); "
         "assert 'torch' not in sys.modules"],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_models_lists_the_slopes(work: Path, rcc):
    code, out, err = rcc("models")
    assert (code, err) == (0, "")
    assert "latent: colour, trained on nothing, latents, " in out
    assert "  rung 1  beta 60       0.7000 bpp, 26.00 dB  default\n" in out
    cards = json.loads(rcc("models", "--json")[1])
    assert cards["latent"]["sha256"] == load_model("latent").sha256
    assert cards["latent"]["held_out"][0]["rate_bpp"] == pytest.approx(0.18)
    path = Path(os.environ["RCC_MODELS"]) / "latent" / "model.json"
    path.write_text(path.read_text().replace('"psnr_db"', '"psnr"'))
    code, out, err = rcc("models")
    assert (code, err.count("\n"), "latent: " in out) == (0, 1, False)


def test_samples_are_tiles_of_the_prior(work: Path, rcc):
    words = ["samples", "latent", "-o", "grid.png", "--count", "3", "--seed", "3"]
    assert rcc(*words) == (0, "written: grid.png\n", "")
    grid, _ = read_image("grid.png")
    assert grid.shape == (512, 512, 3)
    model = load_model("latent")
    tiles = codec.draw_samples(model, 1, 2, 3)
    np.testing.assert_array_equal(grid[:256, 256:], tiles[1])
    assert (grid[256:, 256:] == 255).all()
    for other in (codec.draw_samples(model, 0, 1, 3), codec.draw_samples(model, 1, 1, 4)):
        assert (other[0] != tiles[0]).any()
    assert rcc(*words, "--beta", "8")[0] == 0
    np.testing.assert_array_equal(
        read_image("grid.png")[0][:256, :256], codec.draw_samples(model, 0, 1, 3)[0]
    )


def test_classes_are_drawn_as_their_code_expects(work: Path):
    code = load_model("latent").priors[1].code
    classes = draw_classes(code, 400, seed=1)
    inner = classes[:, 5:, 5:].reshape(-1)
    left, up = classes[:, 5:, 4:-1].reshape(-1), classes[:, 4:-1, 5:].reshape(-1)
    expected = code.shares(left, up)
    counts = np.bincount(inner, minlength=code.classes)
    spread = np.sqrt((expected * (1 - expected)).sum(0))
    assert np.abs((counts - expected.sum(0)) / spread).max() < 5
    lengths = code.lengths_bits_of(left, up, inner)
    entropies = -(expected * np.log2(expected)).sum(1)
    error = lengths.std() / len(inner) ** 0.5
    assert abs(lengths.mean() - entropies.mean()) < 5 * error
    shuffled = code.lengths_bits_of(left, up, np.random.default_rng(0).permutation(inner))  # the control
    assert abs(shuffled.mean() - entropies.mean()) > 5 * error


def test_refit_has_nothing_to_do_with_latents(work: Path, rcc):
    assert "latents" in one_line(rcc("refit", "latent", "-o", "other"), 5)
    assert not Path("other").exists()


def test_a_file_and_a_model_of_different_kinds_do_not_fit(whole: np.ndarray, rcc):
    rcc("compress", "small.png", "-o", "shared.rcc", "-m", "colour")
    for source, model in (("in.rcc", "colour"), ("shared.rcc", "latent")):
        assert "made with model" in one_line(rcc("decompress", source, "-o", "a.png", "-m", model), 5)
    assert "made with model" in one_line(
        rcc("decompress", "in.rcc", "-o", "a.png", "-m", "grey", "--partial"), 5
    )


def test_a_missing_model_is_named_by_its_hash(whole: np.ndarray, rcc, monkeypatch: pytest.MonkeyPatch):
    sha256 = load_model("latent").sha256
    monkeypatch.setenv("RCC_MODELS", ".")
    for options in ([], ["--partial"], ["--region", "0,0,1,1"]):
        err = one_line(rcc("decompress", "in.rcc", "-o", "a.png", *options), 5)
        assert sha256[:12] in err
    facts = json.loads(rcc("info", "in.rcc", "--json")[1])
    assert (facts["model"], facts["model_sha256"], facts["tiles"]) == (None, sha256[:12], 4)


def test_the_python_interface_takes_targets(work: Path):
    x = smooth_picture(100, 120, 1)
    plain = rcccodec.compress(x, "latent", effort=1)
    assert rcccodec.decompress(plain).shape == x.shape
    target_bpp = 0.8 * 8 * len(plain) / (100 * 120)
    small = rcccodec.compress(x, "latent", effort=1, target_bpp=target_bpp)
    assert 0.6 * len(plain) < len(small) <= 0.8 * len(plain)
    assert rcccodec.compress([x], load_model("latent"), effort=1, target_bpp=target_bpp) == small
    assert rcccodec.compress(x, "latent", effort=1, target_bpp=None) == plain
    assert rcccodec.compress(x, "latent", effort=1, target_psnr_db=5.0)[10] >> 4 == 0
    assert rcccodec.compress(x, "colour", quality=0)[10] >> 4 == 0
    assert rcccodec.decompress(plain, region=(10, 20, 30, 40)).shape == (30, 40, 3)
    for options in (
        {"target_bpp": float("nan")}, {"target_bpp": 0.3, "quality": 3}, {"target_psnr_db": 99},
        {"quality": 3, "rung": 0},
    ):  # fmt: skip
        with pytest.raises(LimitError):
            rcccodec.compress(x, "latent", effort=1, **options)
    for wrong in ([3], [], x.astype(float)):
        with pytest.raises(RccError):
            rcccodec.compress(wrong, "latent", target_bpp=0.5)


def test_the_demo_shows_a_photograph_in_latents(work: Path, rcc):
    shipped = Path(os.environ["RCC_MODELS"])
    for name, model in (("photo", "latent"), ("mnist", "grey")):
        shutil.copytree(shipped / model, shipped / name)
    code, out, err = rcc("demo", "-o", "side.png")
    assert (code, err) == (0, "")
    for words in ("coffee.png: 384x256, model photo, rung 1", "of latents", "divergence", "guarantee R"):
        assert words in out
    assert read_image("side.png")[0].shape[1] > 2 * 384


@pytest.mark.parametrize("target", [{}, {"target_bits": 20_000}, {"target_psnr_db": 5.0}])
def test_progress_is_told_in_bits_and_ends(work: Path, target: dict[str, float]):
    told: list[tuple[int, int]] = []
    made = codec.compress_latents(
        smooth_picture(300, 300, 2),
        load_model("latent"),
        effort=1,
        **target,
        progress=lambda *p: told.append(p),
    )
    assert all(0 < done <= total for done, total in told)
    done, total = told[-1]
    assert done > 0.9 * total
    assert 0.9 < total / made.report.dimension_bits < 1.1
