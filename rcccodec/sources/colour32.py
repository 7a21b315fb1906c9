"""CIFAR-10 and SVHN: 32x32 colour images from their standard files."""

import io
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import InputError, RccError
from rcccodec.plain_file import open_plain, read_plain
from rcccodec.sources.archive import load_images, open_tar
from rcccodec.sources.source import Source

SHAPE = (32, 32, 3)
_BYTES = 3072
_MAX_BATCH_BYTES = 1 << 26  # twice that of a real one
_MAX_MAT_BYTES = 1 << 28  # far above the 182 MB of the larger standard file
_MOST_TUPLES = 1000  # of a pickle; real ones have a handful
_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}


def load_cifar_folder(folder: Path, name: str, split: str, limit: int | None) -> Source | None:
    """CIFAR-10 from whatever of its usual forms ``folder`` holds.

    Looked for, in this order: ``data_batch_1`` .. and ``test_batch`` (python batches, or with .bin) in the
    folder or in cifar-10-batches-py / cifar-10-batches-bin; cifar-10-python.tar.gz; images.tar.gz;
    images.tar; folders train and test of images by class.

    Returns:
        Source of images (n, 32, 32, 3), or None if there is none of them.

    Raises:
        InputError: a file is damaged.
    """
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for ending in ("", ".bin"):
            paths = [place / f"{batch}{ending}" for batch in _BATCHES[split]]
            if paths[0].is_file():
                return _join(name, (_read_batch(path) for path in paths), limit)
    if (folder / "cifar-10-python.tar.gz").is_file():
        return _join(name, _batches_in_tar(folder / "cifar-10-python.tar.gz", split), limit)
    for path in (folder / "images.tar.gz", folder / "images.tar", folder):
        if path.is_file() or (path / split).is_dir():
            return images_source(path, name, split, limit)
    return None


def images_source(path: Path, name: str, split: str, limit: int | None) -> Source:
    """A folder or archive whose images must all be 32x32, as RGB.

    Raises:
        InputError: an image of another size, and whatever `archive.load_images` raises.
    """
    images = load_images(path, split, limit)
    for array, file_name in zip(images.arrays, images.names, strict=True):
        if array.shape[:2] != SHAPE[:2]:
            size = f"{array.shape[1]}x{array.shape[0]}"
            raise InputError(f"{path}: {file_name} is {size}; {name} has 32x32 images")
    x = np.stack([np.broadcast_to(a[:, :, None] if a.ndim == 2 else a, SHAPE) for a in images.arrays])
    return Source(name, x, SHAPE, images.notes)


def load_svhn(path: Path, name: str, limit: int | None) -> Source:
    """SVHN's cropped digits from train_32x32.mat or test_32x32.mat.

    Returns:
        Source of images (n, 32, 32, 3).

    Raises:
        InputError: SciPy is not installed, or the file is damaged.
    """
    try:
        from scipy.io import loadmat  # only this format needs SciPy
    except ImportError:
        raise InputError(f"{path}: reading .mat files needs SciPy: pip install scipy") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of byte orders; what comes of them is looked at below
            with open_plain(path, _MAX_MAT_BYTES) as file:
                x = loadmat(file, variable_names=["X"])["X"]
    except RccError:
        raise
    except Exception as error:  # SciPy's reader raises almost anything on damaged bytes
        raise InputError(f"{path}: damaged .mat file: {_cause(error)}") from error
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != SHAPE:
        raise InputError(f"{path}: X is {x.dtype} {x.shape}, not uint8 (32, 32, 3, n)")
    return Source(name, np.ascontiguousarray(x[..., :limit].transpose(3, 0, 1, 2)), SHAPE)


def parse_python_batch(data: bytes, name: str) -> NDArray[np.uint8]:
    """The images of one CIFAR-10 python batch, read without running anything that is in the pickle.

    Args:
        data: the file, a pickled dict whose b"data" is a uint8 array (n, 3072), channel by channel.
        name: of the file, for messages.

    Returns:
        uint8 (n, 32, 32, 3).

    Raises:
        InputError: it is no such file, or its pickle asks for any other object.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in its strings
            _check_pickle(data)
            content = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        pixels = content[b"data"].state[-1]
    except Exception as error:  # a damaged pickle may fail in any way
        raise InputError(f"{name}: not a CIFAR-10 python batch: {_cause(error)}") from error
    if not isinstance(pixels, bytes):
        raise InputError(f"{name}: not a CIFAR-10 python batch: its data are not bytes")
    return _planes_last(pixels, name)


def _cause(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _check_pickle(data: bytes) -> None:
    """Refuse what would cost the unpickler more than the data are worth, or the interpreter its stack.

    The unpickler allocates up to the largest number in its memo; the hash of nested tuples calls itself for
    each level. ValueError, as pickletools raises.
    """
    tuples = 0
    for code, argument, _ in pickletools.genops(data):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(data):
            raise ValueError("a number in its memo is too large")
        tuples += code.name.startswith(("TUPLE", "FROZENSET"))
        if tuples > _MOST_TUPLES:
            raise ValueError("too many tuples")


class _Array:
    """Stands for an array or a dtype while unpickling; keeps the state, allocates nothing."""

    state: Any = (b"",)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArraysOnly(pickle.Unpickler):
    """A pickle reader to which the only objects in the world are plain NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return lambda text, _encoding: text.encode("latin-1") if isinstance(text, str) else text
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_batch(path: Path) -> NDArray[np.uint8]:
    data = read_plain(path, _MAX_BATCH_BYTES)
    if path.suffix != ".bin":
        return parse_python_batch(data, str(path))
    if not data or len(data) % (_BYTES + 1):
        raise InputError(
            f"{path}: damaged: {len(data)} bytes are not a whole number of {_BYTES + 1}-byte records"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _BYTES + 1)  # label, then the image
    return _planes_last(records[:, 1:].tobytes(), str(path))


def _batches_in_tar(path: Path, split: str) -> list[NDArray[np.uint8]]:
    found: dict[str, NDArray[np.uint8]] = {}
    try:
        with open_tar(path) as tar:
            for member in tar:
                batch = member.name.rsplit("/", 1)[-1]
                if batch in _BATCHES[split] and member.isreg() and member.size < _MAX_BATCH_BYTES:
                    file = tar.extractfile(member)
                    found[batch] = parse_python_batch(file.read() if file else b"", f"{path}: {member.name}")
    except RccError:
        raise
    except Exception as error:
        raise InputError(f"{path}: damaged archive: {_cause(error)}") from error
    missing = [batch for batch in _BATCHES[split] if batch not in found]
    if missing:
        raise InputError(f"{path}: {missing[0]} is not in it")
    return [found[batch] for batch in _BATCHES[split]]


def _planes_last(pixels: bytes, name: str) -> NDArray[np.uint8]:
    if not pixels or len(pixels) % _BYTES:
        raise InputError(f"{name}: damaged: {len(pixels)} bytes of pixels are not a whole number of images")
    planes = np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _join(name: str, batches: Any, limit: int | None) -> Source:
    parts: list[NDArray[np.uint8]] = []
    for batch in batches:
        parts.append(batch)
        if limit is not None and sum(map(len, parts)) >= limit:
            break
    return Source(name, np.concatenate(parts)[:limit], SHAPE)
