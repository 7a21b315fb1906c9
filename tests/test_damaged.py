"""Damaged archives from the command line: what is whole comes back, and what is lost is named."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcccodec import codec, container
from rcccodec.images import read_image


@pytest.fixture
def work(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with four pictures p0.png ... of two sizes."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        ramp = np.add.outer(np.arange(9 + i % 2) * 6, np.arange(30) * 4)[..., None] + np.array(
            [0, 10 * i, 20]
        )
        Image.fromarray(ramp.astype(np.uint8)).save(f"p{i}.png")
    return tmp_path


@pytest.fixture
def archive(work: Path, rcc) -> bytes:
    """a.rcc of the four pictures, a record each."""
    pictures = [f"p{i}.png" for i in range(4)]
    assert rcc("compress", *pictures, "-o", "a.rcc", "-m", "colour", "--apart")[0] == 0
    data = Path("a.rcc").read_bytes()
    assert [group.count for group in container.unpack(data)[1]] == [1] * 4
    return data


def with_damage(data: bytes, *images: int) -> bytes:
    """The archive with a byte of each of these groups' payloads changed."""
    damaged, end = bytearray(data), 0
    for image, group in enumerate(container.unpack(data)[1]):
        end = data.index(group.payload, end) + len(group.payload)
        if image in images:
            damaged[end - 1] ^= 0x55
    return bytes(damaged)


def test_verify_says_that_files_are_whole(archive: bytes, rcc):
    assert rcc("compress", "p0.png", "-o", "one.rcc", "-m", "colour")[0] == 0
    assert rcc("verify", "a.rcc", "one.rcc") == (0, "a.rcc: whole, 4 images\none.rcc: whole, 1 image\n", "")
    assert rcc("verify", ".", "--decode", "--quiet") == (0, "", "")


def test_verify_names_the_lost_images(archive: bytes, rcc):
    Path("b.rcc").write_bytes(with_damage(archive, 2))
    code, out, err = rcc("verify", "a.rcc", "b.rcc")
    assert (code, err) == (4, "rcc: error: 1 of 2 files are not whole, or could not be checked\n")
    assert out.splitlines()[1] == "b.rcc: 3 of 4 images are intact; image 2 is lost"
    code, out, _ = rcc("verify", "b.rcc", "--json")
    assert code == 4
    assert json.loads(out) == [
        {
            "file": "b.rcc", "intact": False, "images": 4, "intact_images": 3, "lost": [[2, 2]],
            "faults": ["image 2 is lost"],
        }
    ]  # fmt: skip


def test_verify_needs_files_that_can_be_read(archive: bytes, rcc):
    Path("text.rcc").write_text("hello")
    code, out, err = rcc("verify", "text.rcc", "a.rcc")
    assert code == 4
    assert "not an .rcc file" in out
    assert "a.rcc: whole" in out
    assert err.count("\n") == 1
    assert rcc("verify", "missing.rcc")[0] == 3
    Path("empty").mkdir()
    assert rcc("verify", "empty")[0] == 3


def test_decode_finds_what_checksums_cannot(archive: bytes, rcc):
    """A payload that no encoder writes, under right checksums."""
    header, groups = container.unpack(archive)
    long = [*groups[:3], container.Group(1, 1, 30, 10, groups[3].payload + b"\0" * 40)]
    Path("b.rcc").write_bytes(container.pack(header, long))
    assert rcc("verify", "b.rcc")[0] == 0
    code, out, _ = rcc("verify", "b.rcc", "--decode", "--json")
    (verdict,) = json.loads(out)
    assert (code, verdict["intact"], verdict["images"], verdict["intact_images"]) == (4, False, 4, 3)
    assert verdict["lost"] == [[3, 3]]
    assert "payload" in verdict["faults"][0]
    code, _, err = rcc("decompress", "b.rcc", "-o", "out", "--keep-going")
    assert code == 4
    assert "3 of 4 images are intact, lost: 0003.png" in err


def test_what_cannot_be_decoded_here_may_still_be_whole(archive: bytes, rcc, monkeypatch: pytest.MonkeyPatch):
    code, out, err = rcc("verify", "a.rcc", "--decode", "--max-pixels", "3", "--json")
    (verdict,) = json.loads(out)
    assert (code, verdict["intact"], verdict["images"]) == (7, True, 4)
    assert "max-pixels" in verdict["faults"][0]
    assert "not whole, or could not be checked" in err


def test_archives_come_through_pipes(archive: bytes, rcc, monkeypatch: pytest.MonkeyPatch):
    for data, code in ((archive, 0), (with_damage(archive, 1), 4)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert rcc("decompress", "-", "-o", "out/", "--keep-going")[0] == code
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert rcc("verify", "-")[0] == code


def test_keep_going_gives_every_intact_image_and_names_the_lost(archive: bytes, rcc):
    whole = codec.decompress(archive)
    Path("b.rcc").write_bytes(with_damage(archive, 0, 2))
    code, out, err = rcc("decompress", "b.rcc", "-o", "out/")
    assert (code, out) == (4, "")
    assert "2 of 4 images are intact: --keep-going gives them" in err
    assert not Path("out").exists()
    code, out, err = rcc("decompress", "b.rcc", "-o", "out/", "--keep-going")
    assert (code, out) == (4, "out/: 2 of 4 images\n")
    assert err.splitlines()[-1] == (
        "rcc: error: b.rcc: damaged; 2 of 4 images are intact, lost: 0000.png, 0002.png"
    )
    assert sorted(p.name for p in Path("out").iterdir()) == ["0001.png", "0003.png"]
    for i in (1, 3):
        np.testing.assert_array_equal(read_image(f"out/{i:04}.png")[0], whole[i])


def test_keep_going_is_plain_decompression_of_a_whole_file(archive: bytes, rcc):
    assert rcc("decompress", "a.rcc", "-o", "out", "--keep-going") == (
        0,
        "out: 4 of 4 images\n",
        "",
    )
    assert rcc("compress", "p0.png", "-o", "one.rcc", "-m", "colour")[0] == 0
    assert rcc("decompress", "one.rcc", "-o", "one.png", "--keep-going")[0] == 0


def test_keep_going_with_nothing_left_writes_nothing(archive: bytes, rcc):
    Path("b.rcc").write_bytes(with_damage(archive, 0, 1, 2, 3))
    code, out, err = rcc("decompress", "b.rcc", "-o", "out/", "--keep-going")
    assert (code, out) == (4, "")
    assert err.startswith("rcc: error: b.rcc: no image of it is intact")
    assert not Path("out").exists()


def test_keep_going_through_a_folder(archive: bytes, rcc):
    Path("in").mkdir()
    Path("in/a.rcc").write_bytes(archive)
    Path("in/b.rcc").write_bytes(with_damage(archive, 3))
    Path("in/c.rcc").write_bytes(b"RCC")
    code, _, err = rcc("decompress", "in", "-o", "out", "--keep-going")
    assert code == 4
    assert "lost: 0003.png" in err
    assert "2 of 3 files are not whole; what is intact of them is there" in err
    assert sorted(str(p) for p in Path("out").glob("*/*")) == [
        *(f"out/a/000{i}.png" for i in range(4)), *(f"out/b/000{i}.png" for i in range(3)),
    ]  # fmt: skip


@pytest.mark.parametrize("option", [["--partial"], ["--region", "0,0,1,1"]])
def test_keep_going_stands_alone(archive: bytes, rcc, option: list[str]):
    assert rcc("decompress", "a.rcc", "-o", "out", "--keep-going", *option)[0] == 2


def test_older_archives_give_what_is_before_the_damage(archive: bytes, rcc):
    header, groups = container.unpack(archive)
    old = container.pack(container.Header(**{**vars(header), "records": False}), groups)
    whole = codec.decompress(archive)
    Path("b.rcc").write_bytes(with_damage(old, 1))
    assert rcc("decompress", "b.rcc", "-o", "out", "--keep-going")[0] == 4
    assert [p.name for p in Path("out").iterdir()] == ["0000.png"]  # the others have no numbers
    np.testing.assert_array_equal(read_image("out/0000.png")[0], whole[0])
    code, _, err = rcc("decompress", "b.rcc", "-o", "out", "--keep-going")
    assert (code, err.splitlines()[-1]) == (
        4, "rcc: error: b.rcc: damaged; 1 images are intact, lost: all from 0001.png on",
    )  # fmt: skip
    verdict = json.loads(rcc("verify", "b.rcc", "--json")[1])[0]
    assert (verdict["images"], verdict["intact_images"], verdict["lost"]) == (None, 1, [])
    Path("c.rcc").write_bytes(with_damage(old, 0))  # then the header itself may be wrong
    code, _, err = rcc("decompress", "c.rcc", "-o", "out2", "--keep-going")
    assert code == 4
    assert "nothing of the file can be relied on" in err
    assert not Path("out2").exists()


def test_images_that_share_a_record_are_lost_together(work: Path, rcc):
    for i in range(6):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(f"g{i}.png")
    assert rcc("compress", *(f"g{i}.png" for i in range(6)), "-o", "g.rcc", "-m", "grey")[0] == 0
    data = Path("g.rcc").read_bytes()
    Path("h.rcc").write_bytes(with_damage(data, 0))
    assert rcc("decompress", "h.rcc", "-o", "out", "--keep-going")[0] == 4
    assert not Path("out").exists()
    assert rcc("compress", *(f"g{i}.png" for i in range(6)), "-o", "g.rcc", "-m", "grey", "--apart")[0] == 0
    apart = Path("g.rcc").read_bytes()
    assert len(apart) > len(data)
    Path("h.rcc").write_bytes(with_damage(apart, 4))
    assert rcc("decompress", "h.rcc", "-o", "out", "--keep-going")[0] == 4
    assert sorted(p.name for p in Path("out").iterdir()) == [f"000{i}.png" for i in (0, 1, 2, 3, 5)]


def test_photographs_of_an_archive_have_records_of_their_own(
    work: Path, latent_folder: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RCC_MODELS", str(latent_folder.parent))
    pictures = ["p0.png", "p2.png", "p0.png"]
    assert rcc("compress", *pictures, "-o", "l.rcc", "-m", latent_folder.name, "-e", "1")[0] == 0
    data = Path("l.rcc").read_bytes()
    header, groups = container.unpack(data)
    assert (header.version, len(groups)) == (6, 3)
    whole = codec.decompress(data)
    Path("m.rcc").write_bytes(with_damage(data, 1))
    assert rcc("decompress", "m.rcc", "-o", "out", "--keep-going")[0] == 4
    for i in (0, 2):
        np.testing.assert_array_equal(read_image(f"out/{i:04}.png")[0], whole[i])
    assert not Path("out/0001.png").exists()
    assert (
        rcc("compress", *pictures, "-o", "l.rcc", "-m", latent_folder.name, "-e", "1", "--no-apart")[0] == 0
    )
    assert container.unpack(Path("l.rcc").read_bytes())[0].version == 3
