"""The command line with a model of latents: what it writes, prints and refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import smooth_picture, write_tiny_latent_model

from rcccodec import cli, codec, container
from rcccodec.bundle import load_model
from rcccodec.errors import FormatError, LimitError
from rcccodec.images import read_image

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
def rcc(capfd: pytest.CaptureFixture[str]):
    """Run rcc in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


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
    assert part.shape == crop.shape
    assert np.abs(part - crop).max() <= 1
    if crop.size > 3000:  # the control: another place shows something else
        assert np.abs(part - np.roll(whole, 16, axis=1)[top : top + height, left : left + width]).max() > 1


def test_a_region_reads_no_more_tiles_than_it_needs(whole: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    from rcccodec.latent import codec as latent_codec

    made = []
    tile_latents = latent_codec.tile_latents
    monkeypatch.setattr(latent_codec, "tile_latents", lambda *a: made.append(1) or tile_latents(*a))
    data = Path("in.rcc").read_bytes()
    codec.decompress(data, region=(10, 10, 40, 40))
    assert len(made) == 1
    codec.decompress(data)
    assert len(made) == 1 + 4


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
        assert (
            err == f"rcc: note: cut.rcc: {words[3]} of 4 tiles are there; the rest is filled with the mean\n"
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


def test_a_file_cut_within_its_header_is_refused(whole: np.ndarray):
    data = Path("in.rcc").read_bytes()
    for size in range(18):
        with pytest.raises(FormatError):
            codec.decompress_prefix(data[:size])
    with pytest.raises(LimitError, match="152000 pixels"):
        codec.decompress_prefix(data[:200], max_pixels=151999)
    header, group = container.unpack_prefix(data)
    assert (header, group.width, group.height) == (container.unpack(data)[0], 400, 380)
