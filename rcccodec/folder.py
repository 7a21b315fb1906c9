"""Folders of files: what is in them, and what the mirrored files are called. No torch, no NumPy."""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rcccodec.atomic import output_error, write_bytes
from rcccodec.errors import InputError
from rcccodec.plain_file import open_plain

PICTURES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif",
)  # fmt: skip
JOURNAL = ".rcc-folder.jsonl"
_MAX_FILE_BYTES = 1 << 30  # no larger picture is read, nor larger file made of one


def list_files(folder: Path, endings: Sequence[str]) -> list[str]:
    """Paths below ``folder``, with slashes, of plain files with one of the endings (any case), sorted.

    Hidden files and folders are left out; links to files are followed, links to folders are not. A link to
    what may not be looked at counts, so that whoever reads it names it.

    Raises:
        InputError: there are none, or a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot read: {error.strerror or error}") from error

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root) / name
            if name.lower().endswith(tuple(endings)) and not name.startswith(".") and _is_file(path):
                found.append(path.relative_to(folder).as_posix())
    if not found:
        raise InputError(f"{folder}: no files in it that end in {' '.join(endings)}")
    return sorted(found)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def mirrored(names: Sequence[str], short: Callable[[str], str], full: Callable[[str], str]) -> dict[str, str]:
    """A name of its own for the copy of every file: ``short`` of it, or ``full`` where two would clash.

    Names that differ in case alone clash too, as they do on some file systems.

    Args:
        names: distinct.
        short: such as a.png -> a.rcc. full: distinct for distinct names, such as a.png -> a.png.rcc.
    """
    given = {name: short(name) for name in names}
    while True:
        times = Counter(name.casefold() for name in given.values())
        clashing = [n for n, g in given.items() if times[g.casefold()] > 1 and g != full(n)]
        if not clashing:
            return given
        given |= {name: full(name) for name in clashing}


class Journal:
    """What every file of a mirrored folder was made of: a line of JSON each, in a hidden file beside them.

    A line is on disk before its file is, and holds that file's hash: after a sudden end there is no file
    without a line, and one whose line is missing, cut or damaged (it has a hash of its own) is made anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self._entries: dict[str, dict[str, Any]] = {}
        if os.path.isfile(self._path):
            try:
                lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
            except OSError as error:
                raise InputError(f"{self._path}: cannot read: {error.strerror or error}") from error
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry.pop("line_sha256") == _line_hash(entry) and _is_report(entry["report"]):
                        self._entries[entry["file"]] = entry
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue

    def begin(self) -> None:
        """Write what is known, once for each file, so that lines can be added.

        Raises:
            OutputError: the folder cannot be written.
        """
        lines = "".join(map(_line, self._entries.values()))
        write_bytes(self._path, lines.encode())

    def kept(self, file: str, source: Path, request: str) -> dict[str, Any] | None:
        """The report of a file that is still what was made of the same source by such a request; or None."""
        entry = self._entries.get(file)
        if entry is None or entry.get("request") != request:
            return None
        hashes = (_sha256(source), _sha256(self._folder / file))
        same = None not in hashes and hashes == (entry.get("source_sha256"), entry.get("file_sha256"))
        return dict(entry["report"]) if same else None

    def add(self, file: str, source: bytes, request: str, data: bytes, report: dict[str, Any]) -> None:
        """Note a file that is about to be written.

        Raises:
            OutputError: the journal cannot be written.
        """
        entry = {
            "file": file,
            "request": request,
            "source_sha256": source.hex(),
            "file_sha256": hashlib.sha256(data).hexdigest(),
            "report": report,
        }
        try:
            with open(self._path, "a", encoding="ascii") as journal:
                journal.write(_line(entry))
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise output_error(self._path, error) from error


def _is_report(report: object) -> bool:
    return isinstance(report, dict) and type(report.get("file_bytes")) is int


def _line(entry: dict[str, Any]) -> str:
    return f"{json.dumps(entry | {'line_sha256': _line_hash(entry)})}\n"


def _line_hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str | None:
    try:
        with open_plain(path, _MAX_FILE_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (InputError, OSError):
        return None
