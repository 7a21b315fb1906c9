"""Writing results whole or not at all: a temporary file beside them, fsync, rename, fsync of the folder.

A process that is killed leaves its temporary file, .NAME.8 hex digits.tmp, which nothing reads. It is locked
while its process lives; so `sweep`, at the start of the next command for NAME, knows which are left over.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from rcccodec.errors import OutputError

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_MOST_NAME_BYTES = 200  # of NAME that a temporary file is called after


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
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            # a rename would replace the device, and the pipe behind /dev/stdout has no other name; a folder
            # fails here, as it should
            Path(path).write_bytes(data)
            return
        _write_then_rename(Path(os.path.realpath(path)), data, overwrite)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise output_error(path, error) from error


def check_target(path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Fail now where `write_bytes` would after long work: a name taken, a folder, no place for files.

    Raises:
        OutputError: as `write_bytes` does.
    """
    if not overwrite and os.path.lexists(path):
        raise _taken(path)
    try:
        mode = _mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if mode is not None and not stat.S_ISREG(mode):
            return  # a pipe or device, which is written to directly
        target = Path(os.path.realpath(path))
        if not os.path.isdir(target.parent):
            raise OutputError(f"{path}: cannot write: no folder {target.parent}")
        with tempfile.TemporaryFile(dir=target.parent, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        raise output_error(path, error) from error


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes], *, overwrite: bool = True) -> None:
    """Put several files into the folder ``path``, made if missing; all are on disk before the first appears.

    A folder that is made appears with all of them; in one that is there they appear one after the other.

    Args:
        path: a folder, or a name that is free in a folder that exists.
        files: plain file names and their contents, in the order in which they appear.
        overwrite: with False any of the names existing in ``path`` is an error; one that appears during the
            call ends it there, after the files before it.

    Raises:
        OutputError: as for `write_bytes`.
    """
    folder = Path(path)
    beside = folder
    if os.path.isdir(folder):
        folder = Path(os.path.realpath(folder))  # "." has no name, and / has none at all
        beside = folder / (folder.name or "root")
    sweep([beside])
    try:
        clashes = [name for name in files if os.path.lexists(folder / name)]
        if clashes and not overwrite:
            raise _taken(Path(path, clashes[0]))
        for name in clashes:
            if os.path.isdir(folder / name):  # found out between two renames: half of the files would be left
                raise OutputError(f"{Path(path, name)}: cannot write: {os.strerror(errno.EISDIR)}")
        with _temporary(beside, Path.mkdir) as staging:
            for name, data in files.items():
                _write_and_sync(staging / name, data)
            _sync_folder(staging)
            if os.path.isdir(folder):
                for name in files:
                    if overwrite:
                        os.replace(staging / name, folder / name)
                        continue
                    try:
                        _rename_to_free(staging / name, folder / name)
                    except FileExistsError:
                        raise _taken(Path(path, name)) from None
                _sync_folder(folder)
            else:
                os.rename(staging, folder)
                _sync_folder(folder.parent)
    except OSError as error:
        raise output_error(path, error) from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, as far as they are missing.

    Raises:
        OutputError: it cannot be made.
    """
    folder = Path(path)
    try:
        missing = [above for above in (folder, *folder.parents) if not os.path.exists(above)]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    for made in missing:
        _sync_folder(made.parent)


def sweep(targets: Iterable[str | os.PathLike[str]]) -> None:
    """Remove temporary files that processes left which were killed while they wrote one of ``targets``.

    What a living process is writing stays, and so does all that cannot be removed.
    """
    if fcntl is None:
        return
    names: dict[Path, set[str]] = {}
    for target in map(os.path.realpath, targets):
        names.setdefault(Path(target).parent, set()).add(short_name(os.path.basename(target)))
    for folder, wanted in names.items():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if (match := _TEMPORARY.fullmatch(entry.name)) and match[1] in wanted:
                    _remove_if_left(entry.path)


def short_name(name: str) -> str:
    """The beginning of a file name that a hidden neighbour is called after: ordinary names are kept whole."""
    while len(os.fsencode(name)) > _MOST_NAME_BYTES:  # what a file system counts; no character is cut
        name = name[:-1]
    return name


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


def _taken(path: str | os.PathLike[str]) -> OutputError:
    return OutputError(f"{path}: exists already and --no-overwrite was given")


def _mode(path: str | os.PathLike[str]) -> int | None:
    """Kind and permissions of what ``path`` names or points to; None if there is nothing.

    Raises:
        OSError: nobody can tell: a folder on the way may not be searched, or a name is too long.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_then_rename(target: Path, data: bytes, overwrite: bool) -> None:
    with _temporary(target, lambda path: path.touch(exist_ok=False)) as temporary:
        _write_and_sync(temporary, data)
        if overwrite:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        else:
            _rename_to_free(temporary, target)
        _sync_folder(target.parent)


def _write_and_sync(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename_to_free(temporary: Path, target: Path) -> None:
    """Rename unless the name was taken meanwhile: a link fails then."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as on memory sticks
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(temporary, target)  # to claim the name by an empty file would leave that one if killed now


@contextlib.contextmanager
def _temporary(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A file or folder beside ``target`` that ``make`` makes; locked, and removed if it is still there."""
    while True:
        path = target.with_name(f".{short_name(target.name)}.{secrets.token_hex(4)}.tmp")
        lock = None
        try:
            make(path)
            lock = _lock(path, wait=True)
            if not os.path.exists(path):  # swept before it was locked
                continue
            yield path
            return
        finally:
            with contextlib.suppress(OSError):
                _remove(path)
            if lock is not None:
                os.close(lock)


def _lock(path: str | os.PathLike[str], *, wait: bool) -> int | None:
    """A descriptor whose lock ends with this process at the latest; None where that cannot be had."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return descriptor
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None


def _remove_if_left(path: str) -> None:
    lock = _lock(path, wait=False)
    if lock is not None:
        with contextlib.suppress(OSError):
            _remove(Path(path))
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have a folder's new names outlast a power cut, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit stays quiet."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
