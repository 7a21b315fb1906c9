"""``rcc compress FOLDER -o FOLDER/``: every image to a file of its own, by one process or several."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rcccodec.atomic import output_error, write_bytes
from rcccodec.commands import console
from rcccodec.errors import InputError, LimitError, OutputError
from rcccodec.folder import PICTURES, Journal, list_files, mirrored
from rcccodec.jobs import run_jobs
from rcccodec.model_search import model_path, parse_card
from rcccodec.request import Request

if TYPE_CHECKING:
    from rcccodec.bundle import Model


@dataclass(frozen=True)
class _Task:
    """One image: its path, the file to make of it, and how."""

    source: str
    file: str
    request: Request


@dataclass(frozen=True)
class _Made:
    """What became of it: bytes, report and notes, or the error in one line."""

    source: str
    file: str
    source_hash: bytes
    data: bytes
    report: dict[str, Any]
    notes: list[str]
    error: str | None = None


def compress_folder(
    source: Path, output: Path, request: Request, *, jobs: int, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    """Mirror the images below ``source`` as .rcc files below ``output``; those that are there stay.

    Raises:
        InputError: no images; at the end, if some could not be read or coded, the others are done.
        OutputError: a file cannot be written, or is there and may not be replaced.
    """
    names = list_files(source, PICTURES)
    files = mirrored(
        names, lambda name: str(PurePosixPath(name).with_suffix(".rcc")), lambda name: f"{name}.rcc"
    )
    asked = request.fingerprint(parse_card(model_path(request.model))[1])
    journal = Journal(output)
    reports = {
        file: report
        for name, file in files.items()
        if (report := journal.kept(file, source / name, asked)) is not None
    }
    missing = [(name, file) for name, file in files.items() if file not in reports]
    taken = [file for _, file in missing if os.path.lexists(output / file)]
    if taken and not overwrite:
        raise OutputError(f"{output / taken[0]}: exists already and --no-overwrite was given")
    for folder in sorted({(output / file).parent for file in files.values()} | {output}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error
    journal.begin()
    kept, failed = len(reports), []
    tasks = [_Task(str(source / name), file, request) for name, file in missing]
    with console.progress_bar("compress", quiet, unit="images") as progress:
        for done, made in enumerate(run_jobs(_make, tasks, jobs), kept + 1):
            for note in made.notes:
                console.remark(f"note: {made.source}: {note}", quiet)
            if made.error is not None:
                console.remark(f"error: {made.error}", quiet=False)
                failed.append(made.source)
            else:
                write_bytes(output / made.file, made.data, overwrite=overwrite)
                journal.add(made.file, made.source_hash, asked, made.data, made.report)
                reports[made.file] = made.report
            if progress is not None:
                progress(done, len(names))
    _say(source, output, files, reports, kept, as_json, quiet)
    if failed:
        raise InputError(f"{len(failed)} of {len(names)} images could not be compressed; the others are")


def _make(task: _Task) -> _Made:
    """Read and encode one image; its own faults are returned, so that the others go on."""
    from rcccodec.images import read_image

    hashed = b""
    try:
        try:
            content = Path(task.source).read_bytes()
        except OSError as error:
            raise InputError(f"{task.source}: cannot read: {error.strerror or error}") from error
        hashed = hashlib.sha256(content).digest()
        image, notes = read_image(content, name=task.source)
        try:
            encoded = task.request.encode([image], _model(task.request.model))
        except LimitError as error:
            raise LimitError(f"{task.source}: {error}") from error
    except (InputError, LimitError) as error:
        return _Made(task.source, task.file, hashed, b"", {}, [], str(error))
    report = encoded.report
    notes = [*notes, *encoded.notes]
    if report.saturated:
        notes.append(f"saturated: log2 N - R is {report.margin_bits:.1f} bits, below 3; raise --candidates")
    return _Made(task.source, task.file, hashed, encoded.data, report.as_json(), notes)


@lru_cache(maxsize=1)
def _model(name: str) -> "Model":
    from rcccodec.bundle import load_model

    return load_model(name)


def _say(
    source: Path,
    output: Path,
    files: dict[str, str],
    reports: dict[str, dict[str, Any]],
    kept: int,
    as_json: bool,
    quiet: bool,
) -> None:
    if as_json:
        rows = [
            {"source": str(source / name), "file": str(output / file), **reports[file]}
            for name, file in files.items()
            if file in reports
        ]
        console.say(json.dumps(rows, indent=2))
    elif not quiet:
        total = sum(report["file_bytes"] for report in reports.values())
        before = f" ({kept} were there before)" if kept else ""
        console.say(f"{output}: {len(reports)} of {len(files)} images{before}, {total} bytes")
