"""Image files in a folder or a tar archive: listed, split into train and test, read in memory."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import InputError, RccError
from rcccodec.images import read_image
from rcccodec.plain_file import open_plain

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}
_MAX_MEMBER_BYTES = 1 << 28
_MAX_ARCHIVE_BYTES = 1 << 34  # packed, and again unpacked: all its images are to fit in memory
_TEST_EVERY = 10
_Read = tuple[NDArray[np.uint8], list[str]]  # an image, and notes on what was not kept


@dataclass(frozen=True)
class Images:
    """Images of one split: uint8 (h, w) or (h, w, 3) each, their names inside the archive, notes."""

    arrays: list[NDArray[np.uint8]]
    names: list[str]
    notes: tuple[str, ...]


def load_images(path: Path, split: str | None = None, limit: int | None = None) -> Images:
    """Read the images of a folder (with its subfolders), of a tar archive, or one image file.

    Order: by file name, then by folder, so that a ``limit`` takes from every class where folders are classes.
    Split: a folder called train, training, val, valid or validation anywhere in an image's path puts it into
    train; test or testing puts it into test. Where no path says so, every tenth image is test, the others
    are train.

    Args:
        path: the folder, archive (.tar, .tar.gz, .tar.bz2, .tar.xz) or image.
        split: "train", "test", or None for everything.
        limit: how many; None for all.

    Returns:
        Images; an image that read_image changes (palette, 16 bits, ...) leaves one line in the notes.

    Raises:
        InputError: nothing there, no images, an image or the archive is damaged, too large, a pipe or device.
        LimitError: an image is too large.

    Invariant: nothing is ever extracted to disk; links and special members of an archive are ignored.
    """
    if path.is_dir():
        names = sorted(_walk(path), key=_order)
        chosen, notes = _choose(names, split, limit, path)
        return _decode(path, chosen, notes)
    if path.suffix.lower() in ENDINGS:
        return _decode(path.parent, [path.name], ())
    try:
        with open_tar(path) as tar:
            names = sorted({member.name for member in tar if _is_image(member)}, key=_order)
        chosen, notes = _choose(names, split, limit, path)
        wanted = set(chosen)
        with open_tar(path) as tar:  # second pass in file order: a gzip stream cannot jump back
            decoded = _read_members(tar, wanted, path)
    except RccError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except Exception as error:  # tarfile and its decompressors raise almost anything on damaged bytes
        cause: str = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a folder, image or tar archive that can be read: {cause}") from error
    return _images(chosen, notes, [decoded[name] for name in chosen])


@contextlib.contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive, packed by gzip, bzip2, xz or not at all, as its first bytes say.

    `tarfile.open` would try every packing, and takes zeros for any number of empty lzma streams.

    Raises:
        InputError: a pipe, device or folder, or over 16 GiB, packed or, while it is read, unpacked.
        OSError, or almost anything that tarfile and its decompressors raise on damaged bytes.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_plain(path, _MAX_ARCHIVE_BYTES))
        head = file.read(6)
        file.seek(0)
        unpacked: IO[bytes] = file
        if head.startswith(b"\x1f\x8b"):
            unpacked = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file)))
        elif head.startswith(b"BZh"):
            unpacked = stack.enter_context(bz2.BZ2File(file))
        elif head == b"\xfd7zXZ\0":
            unpacked = stack.enter_context(lzma.LZMAFile(file, format=lzma.FORMAT_XZ))
        bounded = cast(IO[bytes], _Bounded(unpacked, path))
        yield stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))


class _Bounded(io.RawIOBase):
    """A stream that refuses what a few bytes of a tar header may ask for: a huge read, or a huge skip."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int = -1) -> bytes:
        """As a stream's; at most 256 MiB at once, and a block of the archive."""
        if not 0 <= size <= _MAX_MEMBER_BYTES + tarfile.BLOCKSIZE:
            raise InputError(f"{self._path}: one part of it is {size} bytes, too large for an image")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a stream's, from its start."""
        if whence != io.SEEK_SET or offset > _MAX_ARCHIVE_BYTES:
            raise InputError(f"{self._path}: unpacked, over the {_MAX_ARCHIVE_BYTES} bytes that are read")
        return self._stream.seek(offset)

    def tell(self) -> int:
        """Bytes from the start."""
        return self._stream.tell()


def _walk(folder: Path) -> list[str]:
    return [
        (Path(root) / name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(ENDINGS) and not name.startswith(".")
    ]


def _is_image(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name).name
    # a sparse member is a few bytes that stand for any number of zeros
    plain = member.isreg() and not member.issparse()
    return plain and name.lower().endswith(ENDINGS) and not name.startswith(".")


def _read_members(tar: tarfile.TarFile, wanted: set[str], path: Path) -> dict[str, _Read]:
    """The wanted images, decoded one by one: what is no image must not be kept with the others."""
    decoded: dict[str, _Read] = {}
    for member in tar:
        if member.name in wanted and _is_image(member):
            if member.size > _MAX_MEMBER_BYTES:
                raise InputError(f"{member.name}: too large for an image: {member.size} bytes")
            file = tar.extractfile(member)
            decoded[member.name] = read_image(file.read() if file else b"", name=f"{path}: {member.name}")
            if len(decoded) == len(wanted):
                break
    return decoded


def _order(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.name, str(path.parent)


def _choose(
    names: list[str], split: str | None, limit: int | None, path: Path
) -> tuple[list[str], tuple[str, ...]]:
    """The names of a split, and a note if the split had to be made."""
    if not names:
        raise InputError(f"{path}: no images in it (looked for {' '.join(ENDINGS)})")
    if split is None:
        return names[:limit], ()
    labels = [_label(name) for name in names]
    if any(labels):
        chosen = [name for name, label in zip(names, labels, strict=True) if label == split]
        if not chosen:
            raise InputError(f"{path}: it has a split into folders, and no images for {split}")
        return chosen[:limit], ()
    if len(names) == 1:
        return names, ("one image: it serves train and test",)
    test = set(range(_TEST_EVERY - 1, len(names), _TEST_EVERY)) or {len(names) - 1}
    chosen = [name for at, name in enumerate(names) if (at in test) == (split == "test")]
    return chosen[:limit], (f"no train and test folders: every {_TEST_EVERY}th image is test",)


def _label(name: str) -> str | None:
    found = [_SPLITS[part.lower()] for part in PurePosixPath(name).parts[:-1] if part.lower() in _SPLITS]
    return found[-1] if found else None


def _decode(path: Path, names: list[str], notes: tuple[str, ...]) -> Images:
    decoded = [read_image(path / name, name=f"{path}: {name}") for name in names]
    return _images(names, notes, decoded)


def _images(names: list[str], notes: tuple[str, ...], decoded: list[_Read]) -> Images:
    changed = [
        f"{name}: {'; '.join(remarks)}" for name, (_, remarks) in zip(names, decoded, strict=True) if remarks
    ]
    if len(changed) > 3:
        changed = [*changed[:3], f"and {len(changed) - 3} more images with such remarks"]
    return Images([array for array, _ in decoded], names, (*notes, *changed))
