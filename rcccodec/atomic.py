"""Writing results whole or not at all: a temporary file in the same folder, fsync, rename."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rcccodec.errors import OutputError


def write_bytes(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> None:
    """Put ``data`` under ``path`` in one step.

    A link is followed and what it points to is replaced; pipes and devices are written to directly; the
    permissions of a file that is replaced are kept.

    Args:
        path: the name to write; its folder must exist.
        data: the whole content.
        overwrite: with False an existing ``path`` is an error, also when it appears during the call.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, ``path`` is a folder, ...

    Invariant: after any failure ``path`` is what it was before and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_bytes(data)  # a rename would replace the device; a folder fails here, as it should
            return
        _write_then_rename(target, data, overwrite)
    except FileExistsError:
        raise OutputError(f"{path}: exists already and --no-overwrite was given") from None
    except OSError as error:
        raise output_error(path, error) from error


def check_target(path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Fail now where `write_bytes` would after long work: a name taken, a folder, no place for files.

    Raises:
        OutputError: as `write_bytes` does.
    """
    target = Path(os.path.realpath(path))
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"{path}: exists already and --no-overwrite was given")
    if target.is_dir():
        raise OutputError(f"{path}: cannot write: {os.strerror(errno.EISDIR)}")
    if not target.parent.is_dir():
        raise OutputError(f"{path}: cannot write: no folder {target.parent}")
    if target.exists() and not target.is_file():
        return  # a pipe or device, which is written to directly
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise output_error(path, error) from error


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes], *, overwrite: bool = True) -> None:
    """Put several files into the folder ``path``, made if missing; all are on disk before the first appears.

    Args:
        path: a folder, or a name that is free in a folder that exists.
        files: plain file names and their contents.
        overwrite: with False any of the names existing in ``path`` is an error.

    Raises:
        OutputError: as for `write_bytes`.
    """
    folder = Path(path)
    staging = (folder if folder.is_dir() else folder.parent) / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    try:
        clashes = [name for name in files if os.path.lexists(folder / name)]
        if clashes and not overwrite:
            raise OutputError(f"{folder / clashes[0]}: exists already and --no-overwrite was given")
        for name in clashes:
            if (folder / name).is_dir():  # found out between two renames it would leave half of the files
                raise OutputError(f"{folder / name}: cannot write: {os.strerror(errno.EISDIR)}")
        staging.mkdir()
        for name, data in files.items():
            _write_then_rename(staging / name, data, True)
        if folder.is_dir():
            for name in files:
                os.replace(staging / name, folder / name)
        else:
            os.rename(staging, folder)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_stdout(data: bytes) -> None:
    """Write ``data`` to standard output and flush it.

    Raises:
        OutputError: the reader has gone or the file behind the stream is full.
    """
    if sys.stdout is None:
        raise OutputError("standard output: cannot write: it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _silence_stdout()
        raise output_error("standard output", error) from error


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The documented error for what the system said while writing ``path``."""
    return OutputError(f"{path}: cannot write: {error.strerror or error}")


def _write_then_rename(target: Path, data: bytes, overwrite: bool) -> None:
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        else:
            _rename_to_free(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _rename_to_free(temporary: Path, target: Path) -> None:
    """Rename unless the name was taken meanwhile; a link fails then, as does claiming it by an empty file."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as on memory sticks
        with open(target, "xb"):
            pass
        os.replace(temporary, target)


def _silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit stays quiet."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
