"""Reading of plain files alone: a pipe would block for ever, and a device never ends."""

import os
import stat
from pathlib import Path
from typing import IO

from rcccodec.errors import InputError


def open_plain(path: str | os.PathLike[str], most_bytes: int, name: str | None = None) -> IO[bytes]:
    """Open a plain file, or a link to one, of at most ``most_bytes`` for reading.

    Args:
        name: what messages call it; the path when not given.

    Raises:
        InputError: a folder, pipe or device, or larger. OSError: missing or unreadable.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name or os.fspath(path)}: cannot read: not a plain file")
    if status.st_size > most_bytes:
        raise InputError(
            f"{name or os.fspath(path)}: {status.st_size} bytes, more than the {most_bytes} that are read"
        )
    return open(path, "rb")


def read_plain(path: Path, most_bytes: int) -> bytes:
    """The content of a plain file of at most ``most_bytes``.

    Raises:
        InputError: it is missing, unreadable, too large for that or for the memory, or a pipe or device.
    """
    try:
        with open_plain(path, most_bytes) as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except MemoryError as error:
        raise InputError(f"{path}: not enough memory to read it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from error
