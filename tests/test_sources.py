"""Every source, from tiny files made on the fly; with RCC_DATA set, also from the real ones."""

import gzip
import io
import os
import pickle
import sys
import tarfile
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rcccodec.errors import InputError, LimitError
from rcccodec.images import pad_to_multiple, read_image, to_blocks
from rcccodec.sources import grid_blocks, load_images, load_source, random_blocks, source_names
from rcccodec.sources.colour32 import parse_python_batch
from rcccodec.sources.download import download_with_torchvision
from rcccodec.sources.idx import parse_idx
from rcccodec.sources.samples import sample_bytes
from rcccodec.sources.source import Source
from rcccodec.sources.synthetic import gaussian_variances, parse_synthetic

REAL = Path(os.environ["RCC_DATA"]) if os.environ.get("RCC_DATA") else None
RNG = np.random.Generator(np.random.PCG64(2))
DIGITS = RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
SPLITS = pytest.mark.parametrize("split", ["train", "test"])


@pytest.fixture(autouse=True)
def _no_data_root_and_no_network(monkeypatch):
    monkeypatch.delenv("RCC_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)


def idx_bytes(array, kind=8):
    return (
        bytes([0, 0, kind, array.ndim])
        + b"".join(s.to_bytes(4, "big") for s in array.shape)
        + array.tobytes()
    )


def png_bytes(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_tar(path, content, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# --- idx ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_sources_are_resized_to_32_bilinear(tmp_path, name, split, stem, packed):
    data = idx_bytes(DIGITS)
    ending = ".gz" if packed else ""
    put(tmp_path / name / f"{stem}-images-idx3-ubyte{ending}", gzip.compress(data) if packed else data)
    source = load_source(name, split, tmp_path)
    assert source.x.shape == (7, 32, 32, 1)
    assert source.x.dtype == np.uint8
    assert source.shape == (32, 32, 1)
    for digit, result in zip(DIGITS, source.x, strict=True):
        expected = Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(result[:, :, 0], np.asarray(expected))
    np.testing.assert_array_equal(load_source(name, split, tmp_path, limit=3).x, source.x[:3])


def test_the_data_root_may_come_from_the_environment(tmp_path, monkeypatch):
    put(tmp_path / "mnist/MNIST/raw/t10k-images-idx3-ubyte", idx_bytes(DIGITS))  # as torchvision leaves it
    monkeypatch.setenv("RCC_DATA", str(tmp_path))
    assert load_source("mnist", "test").count == 7


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (1, 2, 2, 2)])
def test_parse_idx_reads_any_shape(shape):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(parse_idx(idx_bytes(array), "x"), array)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not an idx file"),
        (b"\x89PNG\r\n", "not an idx file"),
        (idx_bytes(DIGITS, kind=0x0D), "element type 0x0d"),
        (idx_bytes(DIGITS)[:10], "header cut short"),
        (idx_bytes(DIGITS)[:-1], "damaged"),
        (idx_bytes(DIGITS) + b"\0", "damaged"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "0 bytes of data"),  # claims 2^96 bytes
        (bytes([0, 0, 8, 255]) + b"\0" * 4 * 255, "damaged"),
    ],
)
def test_damaged_idx_files_are_named_with_the_cause(data, cause):
    with pytest.raises(InputError, match=f"^some/file: .*{cause}"):
        parse_idx(data, "some/file")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_parse_idx_fails_only_as_documented(data):
    try:
        result = parse_idx(b"\0\0\x08" + data, "x")
    except InputError:
        return
    assert result.nbytes <= len(data)


@pytest.mark.parametrize(
    "data", [gzip.compress(idx_bytes(DIGITS))[:-9], b"\x1f\x8b junk", idx_bytes(DIGITS[0])]
)
def test_damaged_mnist_files_are_input_errors(tmp_path, data):
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    put(path, data)
    with pytest.raises(InputError, match=f"^{path}: "):
        load_source("mnist", "test", tmp_path)


# --- missing files ------------------------------------------------------------------------------------------


@SPLITS
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "svhn", "cifar10", "bsds500"])
def test_a_missing_data_set_says_which_files_go_where(tmp_path, name, split):
    with pytest.raises(
        InputError, match=f"^{name}: .* into {tmp_path}/{name}, .*--data-root or RCC_DATA$"
    ) as caught:
        load_source(name, split, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"into DATA/{name}, and name DATA with --data-root"):
        load_source(name, split)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("no-such-thing", "train"), "no such file or folder, nor one of mnist, "),
        (("", "train"), "no such file"),
        (("mnist", "validation"), "train or test"),
        (("sample-digits", "train", None, 0), "limit"),
        (("kodak", "train"), "tests only"),
    ],
)
def test_wrong_arguments_are_input_errors(arguments, cause):
    with pytest.raises(InputError, match=cause):
        load_source(*arguments)


def test_negative_seeds_are_refused():
    with pytest.raises(InputError, match="seed"):
        load_source("gaussian", "train", seed=-1)


# --- CIFAR-10 and SVHN --------------------------------------------------------------------------------------


def python_batch(images):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps({b"data": np.ascontiguousarray(planes), b"labels": [0] * len(images)}, protocol=2)


def cifar_batches(images):
    batches = {f"data_batch_{i + 1}": images[i : i + 1] for i in range(5)}
    return batches | {"test_batch": images[5:]}


def test_cifar_python_batches_as_folder_and_archive(tmp_path):
    content = {f"cifar-10-batches-py/{name}": python_batch(x) for name, x in cifar_batches(COLOUR).items()}
    for name, data in content.items():
        put(tmp_path / "a/cifar10" / name, data)
    make_tar(tmp_path / "b/cifar10/cifar-10-python.tar.gz", content)
    for root in (tmp_path / "a", tmp_path / "b"):
        train = load_source("cifar10", "train", root)
        np.testing.assert_array_equal(train.x, COLOUR[:5])
        assert train.shape == (32, 32, 3)
        np.testing.assert_array_equal(load_source("cifar10", "test", root).x, COLOUR[5:])
        np.testing.assert_array_equal(load_source("cifar10", "train", root, limit=2).x, COLOUR[:2])


def test_cifar_binary_batches(tmp_path):
    for name, x in cifar_batches(COLOUR).items():
        records = b"".join(b"\7" + image.transpose(2, 0, 1).tobytes() for image in x)
        put(tmp_path / "cifar10/cifar-10-batches-bin" / f"{name}.bin", records)
    np.testing.assert_array_equal(load_source("cifar10", "train", tmp_path).x, COLOUR[:5])
    put(tmp_path / "cifar10/cifar-10-batches-bin/test_batch.bin", bytes(3000))
    with pytest.raises(InputError, match="damaged"):
        load_source("cifar10", "test", tmp_path)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        python_batch(COLOUR)[:-40],
        pickle.dumps({b"data": Malicious()}, protocol=2),
        pickle.dumps(Malicious()),
        pickle.dumps({b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": b"abc"}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3071), np.uint8)}, protocol=2),
    ],
)
def test_foreign_pickles_are_refused_and_nothing_in_them_runs(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^batch: "):
        parse_python_batch(data, "batch")
    assert list(tmp_path.iterdir()) == []


def image_files(images):
    return {
        f"{split}/{label}/{i:04d}.png": png_bytes(images[3 * (split == "test") + i])
        for split in ("train", "test")
        for label, i in (("bird", 0), ("bird", 1), ("cat", 2))
    }


@pytest.mark.parametrize("form", ["folder", "images.tar", "images.tar.gz"])
def test_cifar_image_files_as_folder_and_archive(tmp_path, form):
    if form == "folder":
        for name, data in image_files(COLOUR).items():
            put(tmp_path / "cifar10" / name, data)
    else:
        make_tar(tmp_path / "cifar10" / form, image_files(COLOUR), "w:gz" if form.endswith("gz") else "w")
    np.testing.assert_array_equal(load_source("cifar10", "train", tmp_path).x, COLOUR[:3])
    np.testing.assert_array_equal(load_source("cifar10", "test", tmp_path).x, COLOUR[3:])


def test_cifar_images_of_another_size_are_refused(tmp_path):
    make_tar(tmp_path / "cifar10/images.tar", {"test/a/1.png": png_bytes(COLOUR[0, :31])}, "w")
    with pytest.raises(InputError, match="32x31"):
        load_source("cifar10", "test", tmp_path)


def test_a_cifar_archive_without_a_batch_names_it(tmp_path):
    make_tar(tmp_path / "cifar10/cifar-10-python.tar.gz", {"x/data_batch_1": python_batch(COLOUR)})
    with pytest.raises(InputError, match="data_batch_2 is not in it"):
        load_source("cifar10", "train", tmp_path)


@SPLITS
def test_svhn_is_read_from_its_mat_files(tmp_path, split):
    import scipy.io as scipy_io  # a test dependency only

    (tmp_path / "svhn").mkdir()
    path = tmp_path / "svhn" / f"{split}_32x32.mat"
    scipy_io.savemat(path, {"X": COLOUR.transpose(1, 2, 3, 0), "y": np.zeros((6, 1))})
    source = load_source("svhn", split, tmp_path, limit=4)
    np.testing.assert_array_equal(source.x, COLOUR[:4])
    assert source.shape == (32, 32, 3)
    scipy_io.savemat(path, {"X": np.zeros((3, 3))})
    with pytest.raises(InputError, match="not uint8"):
        load_source("svhn", split, tmp_path)
    path.write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match=r"damaged \.mat"):
        load_source("svhn", split, tmp_path)


def test_svhn_without_scipy_says_what_to_install(tmp_path, monkeypatch):
    put(tmp_path / "svhn/test_32x32.mat", b"x")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match="pip install scipy"):
        load_source("svhn", "test", tmp_path)


# --- folders and archives of images -------------------------------------------------------------------------


def photographs(count):
    return [RNG.integers(0, 256, (5 + i, 9 - i % 3, 3), dtype=np.uint8) for i in range(count)]


@pytest.mark.parametrize("form", ["folder", "x.tar", "x.tar.gz"])
def test_split_folders_are_honoured_and_val_is_train(tmp_path, form):
    x = photographs(4)
    names = ["images/train/a.png", "images/val/b.png", "images/test/c.png", "images/test/d.PNG"]
    content = {name: png_bytes(image) for name, image in zip(names, x, strict=True)} | {
        "images/notes.txt": b"hello"
    }
    path = tmp_path / form
    if form == "folder":
        for name, data in content.items():
            put(path / name, data)
    else:
        make_tar(path, content, "w:gz" if form.endswith("gz") else "w")
    for split, expected in (("train", x[:2]), ("test", x[2:])):
        source = load_source(str(path), split)
        assert source.shape is None
        assert source.notes == ()
        for result, image in zip(source.x, expected, strict=True):
            np.testing.assert_array_equal(result, image)
    assert load_source(form, "test", tmp_path, limit=1).count == 1  # the same path, under the data root
    assert len(load_images(path).arrays) == 4


def test_without_split_folders_every_tenth_image_is_test(tmp_path):
    x = photographs(23)
    for i, image in enumerate(x):
        put(tmp_path / f"{i:02d}.png", png_bytes(image))
    train, test = (load_source(str(tmp_path), split) for split in ("train", "test"))
    assert (train.count, test.count) == (21, 2)
    np.testing.assert_array_equal(test.x[0], x[9])
    assert train.notes == test.notes == ("no train and test folders: every 10th image is test",)


def test_a_few_images_still_make_two_splits_and_one_serves_both(tmp_path):
    x = photographs(3)
    put(tmp_path / "a.png", png_bytes(x[0]))
    for path in (tmp_path, tmp_path / "a.png"):
        assert load_source(str(path), "train").count == load_source(str(path), "test").count == 1
    assert "train and test" in load_source(str(tmp_path), "test").notes[0]
    put(tmp_path / "b.png", png_bytes(x[1]))
    put(tmp_path / "c.png", png_bytes(x[2]))
    assert [load_source(str(tmp_path), split).count for split in ("train", "test")] == [2, 1]


def test_a_limit_takes_from_every_class_folder(tmp_path):
    for label in "abc":
        for i in range(4):
            put(tmp_path / "train" / label / f"{i}.png", png_bytes(COLOUR[0]))
    assert load_images(tmp_path, "train", 3).names == [f"train/{label}/0.png" for label in "abc"]


def test_an_archive_is_read_in_memory_and_its_odd_members_are_ignored(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, target in (
            ("l.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("dev.png", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        data = png_bytes(COLOUR[0])
        for name in ("../../outside.png", "/absolute.png", "._hidden.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    images = load_images(path)
    assert sorted(images.names) == ["../../outside.png", "/absolute.png"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.tar"]


@pytest.mark.parametrize("data", [b"", b"junk" * 300, "truncated.tar", "truncated.tar.gz"])
def test_damaged_archives_are_input_errors_in_one_line(tmp_path, data):
    path = tmp_path / "x.tar"
    if isinstance(data, str):
        make_tar(path, image_files(COLOUR), "w:gz" if data.endswith("gz") else "w")
        data = path.read_bytes()[: path.stat().st_size // 4]
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^{path}: ") as caught:
        load_source(str(path), "train")
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_named_with_its_folder(tmp_path):
    put(tmp_path / "a.png", png_bytes(COLOUR[0])[:-60])
    with pytest.raises(InputError, match=f"{tmp_path}.*a.png"):
        load_source(str(tmp_path), "train")


def test_empty_folders_and_empty_splits_say_so(tmp_path):
    with pytest.raises(InputError, match="no images in it"):
        load_source(str(tmp_path), "train")
    put(tmp_path / "train/a.png", png_bytes(COLOUR[0]))
    with pytest.raises(InputError, match="no images for test"):
        load_source(str(tmp_path), "test")


def test_changed_images_leave_short_notes(tmp_path):
    for i in range(6):
        put(tmp_path / "train" / f"{i}.png", png_bytes(np.dstack([COLOUR[0], COLOUR[0, :, :, :1]])))
    notes = load_source(str(tmp_path), "train").notes
    assert notes[0] == "train/0.png: transparency composited over white"
    assert notes[-1] == "and 3 more images with such remarks"


def test_kodak_is_the_whole_folder_in_order(tmp_path):
    x = photographs(3)
    for i, image in enumerate(x):
        put(tmp_path / "kodak" / f"kodim{i:02d}.png", png_bytes(image))
    source = load_source("kodak", "test", tmp_path)
    for result, image in zip(source.x, x, strict=True):
        np.testing.assert_array_equal(result, image)


# --- blocks -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3]))
def test_grid_blocks_are_the_blocks_the_codec_cuts(height, width, h, w, channels):
    image = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    given_image = image if channels == 3 else image[:, :, 0]
    blocks = grid_blocks([given_image, given_image], (h, w), channels=channels)
    expected = to_blocks(pad_to_multiple(image, h, w), (h, w)).reshape(-1, h, w, channels)
    np.testing.assert_array_equal(blocks, np.concatenate([expected, expected]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 6))
def test_random_blocks_are_windows_of_their_images(height, width, h, w):
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    padded = np.pad(image, [(0, max(0, h - height)), (0, max(0, w - width))], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w)).reshape(-1, h * w)
    allowed = {bytes(window) for window in windows.astype(np.uint8)}
    blocks = random_blocks([image], (h, w), 20, channels=1, seed=3)
    assert blocks.shape == (20, h, w, 1)
    assert {bytes(block.ravel()) for block in blocks} <= allowed


def test_random_blocks_reach_every_place_equally_and_repeat_with_the_seed():
    small, large = np.zeros((4, 4), np.uint8), np.arange(1, 26, dtype=np.uint8).reshape(5, 5)
    blocks = random_blocks([small, large], (4, 4), 5000, channels=1, seed=5)
    corners, counts = np.unique(blocks[:, 0, 0, 0], return_counts=True)
    np.testing.assert_array_equal(corners, [0, 1, 2, 6, 7])
    assert abs(counts - 1000).max() < 150  # five standard deviations
    np.testing.assert_array_equal(blocks, random_blocks([small, large], (4, 4), 5000, channels=1, seed=5))
    assert (blocks != random_blocks([small, large], (4, 4), 5000, channels=1, seed=6)).any()


def test_downscale_shrinks_first():
    image = np.kron(np.full((6, 8, 3), 200, np.uint8), np.ones((2, 2, 1), np.uint8))
    blocks = grid_blocks([image], (3, 4), downscale=2)
    np.testing.assert_array_equal(blocks, np.full((4, 3, 4, 3), 200))
    assert random_blocks([image], (3, 4), 9, downscale=1.5).shape == (9, 3, 4, 3)
    assert grid_blocks([image[:1, :1]], (3, 4), downscale=100).shape == (1, 3, 4, 3)


@pytest.mark.parametrize(("images", "downscale"), [([], 1), ([COLOUR[0]], 0.5), ([COLOUR[0]], float("nan"))])
def test_blocks_of_nothing_and_enlarging_are_refused(images, downscale):
    with pytest.raises(InputError):
        grid_blocks(images, (4, 4), downscale=downscale)
    with pytest.raises(InputError):
        random_blocks(images, (4, 4), 3, downscale=downscale)


# --- synthetic ----------------------------------------------------------------------------------------------

SPECS = [
    "gaussian:m=20,decay=0.5", "gaussian:variance=1", "laplacian:b=2,m=3", "laplacian", "sawbridge:n=64",
    "sphere:m=5", "bernoulli:p=0.3,m=4", "markov:n=20,p=0.4",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_synthetic_sample_is_fixed_by_seed_and_split(spec):
    x = load_source(spec, "train", limit=50, seed=4)
    assert x.shape is None
    assert x.x.dtype == np.float64
    np.testing.assert_array_equal(x.x, load_source(spec, "train", limit=50, seed=4).x)
    np.testing.assert_array_equal(x.x[:7], load_source(spec, "train", limit=7, seed=4).x)
    for other in (load_source(spec, "test", limit=50, seed=4), load_source(spec, "train", limit=50, seed=5)):
        assert (other.x != x.x).any()


def test_gaussian_has_the_stated_variances():
    np.testing.assert_allclose(gaussian_variances(3, 0.5), [4, 4 * np.exp(-0.5), 4 * np.exp(-1)])
    x = load_source("gaussian:m=6,decay=0.5", "test", limit=40_000).x
    relative = x.var(axis=0) / gaussian_variances(6, 0.5)
    assert abs(relative - 1).max() < 5 * np.sqrt(2 / 40_000)
    assert (
        abs(x.var(axis=0) / gaussian_variances(6, 0.4) - 1).max() > 0.2
    )  # control: another decay is noticed
    assert abs(np.corrcoef(x.T) - np.eye(6)).max() < 5 / np.sqrt(40_000)


def test_laplacian_has_the_stated_law():
    x = load_source("laplacian:b=2,m=2", "train", limit=20_000).x
    assert np.isfinite(x).all()
    for t in (-4.0, -1.0, 0.0, 0.5, 3.0):
        expected = 0.5 * np.exp(t / 2) if t < 0 else 1 - 0.5 * np.exp(-t / 2)
        assert abs((x <= t).mean() - expected) < 5 * np.sqrt(0.25 / x.size)
    assert abs(np.abs(x).mean() - 2) < 5 * 2 / np.sqrt(x.size)


def test_sawbridge_is_a_ramp_with_one_drop_at_a_uniform_place():
    x = load_source("sawbridge:n=101", "train", limit=5000).x
    t = np.linspace(0, 1, 101)
    drop = t - x
    assert set(np.unique(np.round(drop, 12))) == {0.0, 1.0}
    assert (np.diff(np.round(drop), axis=1) >= 0).all()
    assert (drop[:, -1] == 1).all()
    assert abs(np.round(drop).mean(axis=0) - t).max() < 5 * np.sqrt(0.25 / 5000)


@pytest.mark.parametrize(
    "spec",
    [
        "gaussian:m=0",
        "gaussian:m=2.5",
        "gaussian:m=nan",
        "gaussian:m=1e9",
        "gaussian:decay=inf",
        "gaussian:decay=-1",
        "gaussian:decay",
        "gaussian:n=3",
        "laplacian:b=0",
        "laplacian:b=x",
        "sawbridge:m=3",
        "bernoulli:p=0",
        "bernoulli:p=1",
        "markov:q=1.5",
        "markov:m=4",
        "sphere:noise=-1",
    ],
)
def test_wrong_parameters_are_input_errors(spec):
    with pytest.raises(InputError, match=f"^{spec}: "):
        load_source(spec, "train")


def test_a_noisy_sphere_is_noise_around_the_unit_sphere():
    x = load_source("sphere:m=5,noise=0.02", "train", limit=20_000).x
    square = (x**2).sum(1)  # E = 1 + m noise; Var = 4 noise + 2 m noise^2
    error = np.sqrt((4 * 0.02 + 10 * 0.02**2) / 20_000)
    assert abs(square.mean() - 1.1) < 5 * error
    assert abs(square.mean() - 1.0) > 5 * error  # control: as much noise as stated is noticed
    assert abs(x.mean(0)).max() < 5 * np.sqrt((0.2 + 0.02) / 20_000)


def test_binary_sources_have_the_stated_probabilities():
    x = load_source("bernoulli:p=0.3,m=2", "test", limit=20_000).x
    assert set(np.unique(x)) == {0.0, 1.0}
    assert abs(x.mean() - 0.3) < 5 * np.sqrt(0.21 / x.size)
    chain = load_source("markov:n=50,p=0.4,q=0.1", "test", limit=2000).x
    before, after = chain[:, :-1], chain[:, 1:]
    for state, expected in ((0, 0.1), (1, 0.6)):
        share = after[before == state].mean()
        assert abs(share - expected) < 5 * np.sqrt(0.24 / (before == state).sum())
    for place in (0, 49):  # stationary from the first symbol on
        assert abs(chain[:, place].mean() - 0.2) < 5 * np.sqrt(0.16 / 2000)


# --- arrays -------------------------------------------------------------------------------------------------


def saved(path: Path, rows: np.ndarray) -> str:
    np.save(path, rows)
    return str(path)


def test_rows_of_an_array_are_vectors_and_every_tenth_is_held_out(tmp_path):
    rows = np.arange(66, dtype=np.float32).reshape(22, 3)
    name = saved(tmp_path / "a.npy", rows)
    train, test = load_source(name, "train"), load_source(name, "test")
    np.testing.assert_array_equal(test.x, rows[[9, 19]])
    assert train.count == 20
    assert not (train.x[:, None] == test.x).all(2).any()
    np.testing.assert_array_equal(load_source(name, "train", limit=4).x, rows[:4])
    assert load_source("a.npy", "test", tmp_path).x.dtype == np.float64


@pytest.mark.parametrize("shape", [(20, 6, 5), (20, 6, 5, 1), (20, 6, 5, 3)])
def test_an_array_of_bytes_in_the_shape_of_images_is_images(tmp_path, shape):
    rows = RNG.integers(0, 256, shape, dtype=np.uint8)
    source = load_source(saved(tmp_path / "a.npy", rows), "test")
    assert source.shape == (*shape[1:3], shape[3] if len(shape) == 4 else 1)
    np.testing.assert_array_equal(source.x.reshape(2, -1), rows[[9, 19]].reshape(2, -1))


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (np.full((20, 2), np.nan), "NaN"),
        (np.full((20, 2), -np.inf), "infinite"),
        (np.zeros((0, 2)), "no train rows"),
        (np.zeros((20, 0)), "no train rows"),
        (np.zeros((20, 2), complex), "real numbers"),
        (np.array(["a"] * 20), "real numbers"),
        (np.float64(1.0), "a row a vector"),
    ],
)
def test_arrays_that_are_no_vectors_are_input_errors(tmp_path, rows, cause):
    with pytest.raises(InputError, match=cause):
        load_source(saved(tmp_path / "a.npy", np.asarray(rows)), "train")


def test_pickled_and_damaged_arrays_are_refused_and_nothing_in_them_runs(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}] * 20, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot read"):
        load_source(str(path), "train")
    np.save(path, np.zeros((20, 4)))
    for damaged in (b"", b"PK", path.read_bytes()[:-1], path.read_bytes()[:40]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read"):
            load_source(str(path), "train")


def test_an_array_larger_than_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 10, 1 << 19))  # sparse on disk
    with pytest.raises(LimitError, match="at most"):
        load_source(str(path), "train")
    assert load_source(str(path), "test", limit=2).x.shape == (2, 1 << 19)


def test_samples_beyond_memory_are_refused():
    with pytest.raises(LimitError):
        load_source("gaussian:m=1048576", "train")
    assert parse_synthetic("laplacian:b=0.5") == ("laplacian", {"m": 1, "b": 0.5})


# --- shipped samples ----------------------------------------------------------------------------------------


def test_sample_digits_always_load():
    train, test = load_source("sample-digits", "train"), load_source("sample-digits", "test")
    assert (train.x.shape, test.x.shape) == ((192, 32, 32, 1), (64, 32, 32, 1))
    assert all(x.max() > 200 for x in train.x)  # a digit in every tile, none cut across two
    assert train.x[:, [0, -1]].mean() < 1
    digit = read_image(sample_bytes("digit.png"))[0]
    assert (test.x[:, :, :, 0] == digit).all(axis=(1, 2)).sum() == 1
    assert load_source("sample-digits", "test", limit=5).count == 5


def test_sample_photos_always_load():
    source = load_source("sample-photos", "train")
    assert [x.shape for x in source.x] == [(256, 384, 3)] * 2
    assert source.notes


def test_the_samples_are_small_and_their_licences_are_stated():
    import rcccodec

    folder = Path(rcccodec.__file__).parent / "samples"
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 600_000
    readme = (folder / "README.md").read_text()
    for path in folder.glob("*.png"):
        assert path.name in readme


# --- what every source offers -------------------------------------------------------------------------------


def test_rows_are_pixels_over_255_and_vectors_as_they_are():
    rows = Source("x", COLOUR, (32, 32, 3)).flattened()
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, COLOUR.reshape(6, -1) / 255, rtol=1e-6)
    vectors = load_source("gaussian", "train", limit=3)
    np.testing.assert_array_equal(vectors.flattened(np.float64), vectors.x)
    with pytest.raises(ValueError, match="blocks"):
        load_source("sample-photos", "train").flattened()


def test_images_come_as_the_codec_takes_them():
    assert load_source("sample-digits", "test", limit=1).images()[0].shape == (32, 32)
    assert Source("x", COLOUR, (32, 32, 3)).images()[0].shape == (32, 32, 3)
    assert load_source("sample-photos", "test").images()[1].shape == (256, 384, 3)
    with pytest.raises(ValueError, match="vectors"):
        load_source("sawbridge:n=4", "test", limit=1).images()


def test_every_name_is_a_source():
    assert {"mnist", "fashion-mnist", "svhn", "cifar10", "gaussian", "sawbridge"} < set(source_names())


# --- downloads ----------------------------------------------------------------------------------------------


def fake_torchvision(monkeypatch, fetch):
    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    package.__spec__ = types.SimpleNamespace()
    package.datasets = datasets
    for name in ("MNIST", "SVHN"):
        setattr(datasets, name, fetch)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_missing_files_are_fetched_through_torchvision(tmp_path, monkeypatch, capsys):
    def fetch(root, download):
        print("Downloading")
        put(Path(root) / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx_bytes(DIGITS)))

    fake_torchvision(monkeypatch, fetch)
    assert load_source("mnist", "test", tmp_path).count == 7
    assert capsys.readouterr().out == ""  # stdout may carry a result


def test_a_failing_download_ends_in_the_usual_message(tmp_path, monkeypatch, capsys):
    def fetch(root, **_):
        raise RuntimeError("no\nnetwork")

    fake_torchvision(monkeypatch, fetch)
    for name in ("mnist", "svhn", "cifar10"):
        with pytest.raises(InputError, match=f"^{name}: .*missing"):
            load_source(name, "test", tmp_path)
    assert "mnist: not downloaded: no network" in capsys.readouterr().err
    with pytest.raises(InputError, match="missing"):
        load_source("mnist", "test", tmp_path, download=False)
    assert capsys.readouterr().err == ""


def test_without_torchvision_nothing_is_tried(tmp_path):
    assert not download_with_torchvision("mnist", tmp_path)
    assert not download_with_torchvision("kodak", tmp_path)


# --- the real files, where they are -------------------------------------------------------------------------


def real(name):
    return pytest.mark.skipif(REAL is None or not (REAL / name).is_dir(), reason=f"RCC_DATA holds no {name}")


@real("mnist")
def test_real_mnist_and_the_shipped_digits_agree():
    test = load_source("mnist", "test", REAL)
    assert test.x.shape == (10_000, 32, 32, 1)
    shipped = [load_source("sample-digits", split).x for split in ("train", "test")]
    np.testing.assert_array_equal(test.x[9744:], np.concatenate(shipped))


@real("cifar10")
def test_real_cifar10_starts_with_every_class():
    source = load_source("cifar10", "test", REAL, limit=20)
    assert source.x.shape == (20, 32, 32, 3)


@real("bsds500")
def test_real_bsds500_has_its_two_splits():
    source = load_source("bsds500", "train", REAL, limit=5)
    assert all(x.shape in ((321, 481, 3), (481, 321, 3)) for x in source.x)
    assert load_source("bsds500", "test", REAL).count == 200


@real("kodak")
def test_real_kodak_is_768_by_512():
    assert {x.shape for x in load_source("kodak", "test", REAL).x} <= {(512, 768, 3), (768, 512, 3)}


# --- hostile files


def test_members_of_an_archive_that_are_no_images_are_not_kept(tmp_path):
    """Zeros that compress a thousandfold: the first of them is met before the second is unpacked."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name in ("a.png", "b.png", "c.png"):
            info = tarfile.TarInfo(name)
            info.size = 1 << 24
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"a\.png"):
            load_images(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2.5 * (1 << 24)


def test_images_of_an_idx_file_must_not_grow_by_being_resized(tmp_path):
    put(tmp_path / "mnist" / "t10k-images-idx3-ubyte", idx_bytes(np.zeros((5, 7, 7), np.uint8)))
    with pytest.raises(InputError, match="7x7 pixels are too small"):
        load_source("mnist", "test", tmp_path)


def test_pickles_of_cifar_may_not_nest_or_number_beyond_their_size():
    for data in (b"\x80\x02}" + b")" + b"\x85" * 5000 + b"Ns.", b"\x80\x02}r\x00\x00\x00\x04."):
        with pytest.raises(InputError, match=r"too many tuples|memo"):
            parse_python_batch(data, "x")
