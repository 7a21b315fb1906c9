"""``rcc compress INPUT... -o FOLDER/``: every image to a file of its own, by one process or several."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rcccodec.atomic import check_target, make_folder, output_error, sweep, write_bytes
from rcccodec.commands import console
from rcccodec.errors import InputError, LimitError, OutputError
from rcccodec.folder import JOURNAL, Journal, mirrored
from rcccodec.jobs import run_jobs
from rcccodec.model_search import model_path, parse_card
from rcccodec.request import Request

if TYPE_CHECKING:
    from rcccodec.bundle import AnyModel


@dataclass(frozen=True)
class _Task:
    """One image: its path, the file to make of it, and how."""

    source: str
    file: str
    request: Request


@dataclass(frozen=True)
class _Made:
    """What became of it: bytes, report and notes, or the error.

    saturated_bits: log2 N - R where that is too little, else None.
    """

    source: str
    file: str
    source_hash: bytes
    data: bytes
    report: dict[str, Any]
    notes: list[str]
    saturated_bits: float | None = None
    error: InputError | LimitError | None = None


def compress_folder(
    sources: Mapping[str, Path],
    output: Path,
    request: Request,
    *,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a .rcc file below ``output`` of every image; those that are there stay.

    Args:
        sources: images by the path, with slashes, that their files are called after.

    Raises:
        InputError: at the end, if some could not be read or coded; the others are done.
        LimitError: the settings, or a target that no image reaches. ModelError: as `Request.check`.
        OutputError: a file cannot be written, or is there and may not be replaced.

    Invariant: nothing is made below ``output`` before the first image is done.
    """
    names = list(sources)
    files = _files(names)
    asked = request.fingerprint(parse_card(model_path(request.model))[1])
    journal = Journal(output)
    reports = {
        file: report
        for name, file in files.items()
        if (report := journal.kept(file, sources[name], asked)) is not None
    }
    missing = [(name, file) for name, file in files.items() if file not in reports]
    taken = [file for _, file in missing if os.path.lexists(output / file)]
    if taken and not overwrite:
        raise OutputError(f"{output / taken[0]}: exists already and --no-overwrite was given")
    _check_place(output)
    sweep(output / file for file in (*files.values(), JOURNAL))
    if missing:
        request.check(_model(request.model))
    kept = len(reports)
    failures: list[InputError | LimitError] = []
    margins_bits: list[float] = []
    tasks = [_Task(str(sources[name]), file, request) for name, file in missing]
    with console.progress_bar("compress", quiet, unit="images") as progress:
        for done, made in enumerate(run_jobs(_make, tasks, jobs), kept + 1):
            for note in made.notes:
                console.remark(f"note: {made.source}: {note}", quiet)
            if made.error is not None:
                console.remark(f"error: {made.error}", quiet=False)
                failures.append(made.error)
            else:
                make_folder((output / made.file).parent)
                if len(reports) == kept:
                    journal.begin()
                journal.add(made.file, made.source_hash, asked, made.data, made.report)
                write_bytes(output / made.file, made.data, overwrite=overwrite)
                reports[made.file] = made.report
            if made.saturated_bits is not None:
                margins_bits.append(made.saturated_bits)
            if progress is not None:
                progress(done, len(names))
    if margins_bits:
        console.remark(
            f"warning: saturated: log2 N - R is {min(margins_bits):.1f} bits at the least, below 3 for "
            f"{len(margins_bits)} of {len(names)} images; raise --candidates",
            quiet,
        )
    if len(failures) == len(names) and all(isinstance(error, LimitError) for error in failures):
        raise LimitError(f"none of {len(names)} images could be compressed so")
    _say(sources, output, files, reports, kept, as_json, quiet)
    if failures:
        raise InputError(f"{len(failures)} of {len(names)} images could not be compressed; the others are")


def _check_place(output: Path) -> None:
    """Fail now if ``output`` could not be made or written to."""
    place = output
    while True:
        try:
            os.lstat(place)
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except OSError as error:
            raise output_error(output, error) from error
    check_target(place / JOURNAL)


def _files(names: Sequence[str]) -> dict[str, str]:
    """What each image's file is called: never like a folder that another one's file goes to."""
    folders = {str(above).casefold() for name in names for above in PurePosixPath(name).parents}

    def full(name: str) -> str:
        file = f"{name}.rcc"
        while file.casefold() in folders:
            file += ".rcc"
        return file

    def short(name: str) -> str:
        file = str(PurePosixPath(name).with_suffix(".rcc"))
        return full(name) if file.casefold() in folders else file

    return mirrored(names, short, full)


def _make(task: _Task) -> _Made:
    """Read and encode one image; its own faults are returned, so that the others go on."""
    from rcccodec.images import MAX_FILE_BYTES, read_image
    from rcccodec.plain_file import read_plain
    from rcccodec.report import Report

    hashed = b""
    try:
        content = read_plain(Path(task.source), MAX_FILE_BYTES)
        hashed = hashlib.sha256(content).digest()
        image, notes = read_image(content, name=task.source)
        try:
            encoded = task.request.encode([image], _model(task.request.model))
        except LimitError as error:
            raise LimitError(f"{task.source}: {error}") from error
    except (InputError, LimitError) as error:
        return _Made(task.source, task.file, hashed, b"", {}, [], error=error)
    report = encoded.report
    saturated_bits = report.margin_bits if isinstance(report, Report) and report.saturated else None
    notes = [*notes, *encoded.notes]
    return _Made(task.source, task.file, hashed, encoded.data, report.as_json(), notes, saturated_bits)


@lru_cache(maxsize=1)
def _model(name: str) -> "AnyModel":
    from rcccodec.bundle import load_model

    return load_model(name)


def _say(
    sources: Mapping[str, Path],
    output: Path,
    files: dict[str, str],
    reports: dict[str, dict[str, Any]],
    kept: int,
    as_json: bool,
    quiet: bool,
) -> None:
    if as_json:
        rows = [
            {"source": str(sources[name]), "file": str(output / file), **reports[file]}
            for name, file in files.items()
            if file in reports
        ]
        console.say(json.dumps(rows, indent=2))
    elif not quiet:
        total = sum(report["file_bytes"] for report in reports.values())
        before = f" ({kept} were there before)" if kept else ""
        console.say(f"{output}: {len(reports)} of {len(files)} images{before}, {total} bytes")
