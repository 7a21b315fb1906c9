"""Pipes, devices and enormous files in place of data: one error that names them, in bounded time and room."""

import gzip
import io
import lzma
import os
import signal
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from rcccodec import cli, folder
from rcccodec.errors import InputError
from rcccodec.images import read_image
from rcccodec.plain_file import open_plain, read_plain
from rcccodec.sources import archive, load_images, load_source
from rcccodec.sources.array import load_array
from rcccodec.sources.colour32 import load_cifar_folder, load_svhn
from rcccodec.sources.idx import load_idx_images

HUGE_BYTES = 40 << 30  # sparse: it takes no room
TRAPS = ["pipe", "device", "huge"]


@pytest.fixture(autouse=True)
def _bounded_time():
    """A read that blocks, or has no end, fails the test."""

    def stop(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def trap(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(HUGE_BYTES)
    return path


def small_image(path):
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)


READERS = {
    "z.png": read_image,
    "one.png": load_images,
    "x.tar": load_images,
    "y.tar.xz": load_images,
    "x.npy": lambda path: load_array(path, str(path), "train", None),
    "train-images-idx3-ubyte": lambda path: load_idx_images(path, "mnist", None),
    "train_32x32.mat": lambda path: load_svhn(path, "svhn", None),
    "some_batch": lambda path: read_plain(path, 1 << 20),
}


@pytest.mark.parametrize("kind", TRAPS)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_them(tmp_path, name, kind):
    path = trap(tmp_path / name, kind)
    tracemalloc.start()
    with pytest.raises(InputError) as refused:
        READERS[name](path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert kind == "huge" or "not a plain file" in str(refused.value)
    assert peak_bytes < 16 << 20


@pytest.mark.parametrize("kind", TRAPS)
def test_a_folder_that_holds_one_is_refused_by_its_name(tmp_path, kind):
    small_image(tmp_path / "a.png")
    trap(tmp_path / "z.png", kind)
    with pytest.raises(InputError, match=r"z\.png: "):
        load_source(str(tmp_path), "test")
    assert load_source(str(tmp_path), "train").count == 1


def test_batches_of_cifar_are_bounded(tmp_path):
    trap(tmp_path / "a" / "data_batch_1", "huge")
    trap(tmp_path / "b" / "cifar-10-python.tar.gz", "huge")
    for name in "ab":
        with pytest.raises(InputError, match="more than the"):
            load_cifar_folder(tmp_path / name, "cifar10", "train", None)


def test_the_bound_is_on_the_file_not_below_it(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert read_plain(tmp_path / "f", 3) == b"abc"
    with pytest.raises(InputError, match="3 bytes, more than the 2"):
        read_plain(tmp_path / "f", 2)
    (tmp_path / "link").symlink_to("f")
    assert open_plain(tmp_path / "link", 3).read() == b"abc"


def packed_tar(path, pack, *headers, tail=b""):
    path.write_bytes(pack(b"".join(header.tobuf(tarfile.GNU_FORMAT) for header in headers) + tail))


def member(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def test_a_header_of_a_tar_makes_nobody_read_or_skip_without_bound(tmp_path):
    path = tmp_path / "x.tar.gz"
    packed_tar(path, gzip.compress, member("skipped", 1 << 40))
    with pytest.raises(InputError, match="unpacked, over the"):
        load_images(path)
    packed_tar(path, gzip.compress, member("long name", 1 << 35, tarfile.GNUTYPE_LONGNAME))
    with pytest.raises(InputError, match="one part of it"):
        load_images(path)


def test_zeros_are_no_streams_of_lzma(tmp_path, monkeypatch):
    (tmp_path / "x.tar").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(lzma, "LZMAFile", lambda *_, **__: pytest.fail("opened as lzma"))
    with pytest.raises(InputError, match=r"x\.tar"):
        load_images(tmp_path / "x.tar")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_every_packing_are_read(tmp_path, mode):
    small_image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        tar.add(tmp_path / "a.png", "a.png")
        tar.add(tmp_path / "a.png", "b.png")
    assert load_images(tmp_path / "x.tar").names == ["a.png", "b.png"]
    with archive.open_tar(tmp_path / "x.tar") as tar:
        assert len(tar.getmembers()) == 2


def test_one_trap_in_a_folder_job_leaves_the_others_done(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_image("a.png")
    names = [str(trap(tmp_path / f"{kind}.png", kind)) for kind in TRAPS]
    code = cli.run(["compress", "a.png", *names, "-o", "out/", "-m", "grey", "--quiet"])
    said = capsys.readouterr().err
    assert code == 3, said
    assert "3 of 4 images could not be compressed" in said
    assert all(f"{kind}.png: " in said for kind in TRAPS)
    assert "Traceback" not in said
    assert sorted(path.name for path in (tmp_path / "out").glob("*.rcc")) == ["a.rcc"]


def test_a_source_that_became_a_trap_is_not_hashed(tmp_path):
    for kind in TRAPS:
        assert folder._sha256(trap(tmp_path / kind, kind)) is None
    (tmp_path / "f").write_bytes(b"")
    assert folder._sha256(tmp_path / "f") is not None


@pytest.mark.parametrize("kind", TRAPS)
def test_rd_refuses_them(tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    trap(tmp_path / "x.npy", kind)
    assert cli.run(["rd", "x.npy", "--method", "ba", "--beta", "1"]) == 3
    assert "x.npy" in capsys.readouterr().err


def test_pictures_in_memory_are_read_as_before():
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    assert read_image(buffer.getvalue())[0].shape == (8, 8)
