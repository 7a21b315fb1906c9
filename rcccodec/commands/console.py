"""What all commands share: reading inputs, speaking to the terminal, devices, progress."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

import click

from rcccodec.atomic import write_bytes, write_stdout
from rcccodec.errors import InputError, LimitError, RccError

if TYPE_CHECKING:
    from rcccodec.training.trainer import Progress

STANDARD_STREAM = "-"
MAX_INPUT_BYTES = 1 << 30

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 + the signal's number

_READ_BYTES = 1 << 20

EXIT_CODES = """\b
Exit codes:
  0   done
  1   unexpected failure
  2   wrong usage
  3   an image or data set is missing, unreadable or refused
  4   a .rcc file is corrupt, truncated or foreign
  5   a model is missing, damaged or not the file's
  6   the result cannot be written
  7   a size or setting is out of its limits, or a target out of reach
  130 interrupted
  143 terminated
"""


class Terminated(SystemExit):
    """SIGTERM came: everything is cleaned up on its way, as after Ctrl-C."""


def terminate(_signal: int, _frame: object) -> None:
    """What SIGTERM does."""
    raise Terminated(TERMINATED)


def examples(*lines: str) -> str:
    """The epilog of a help page: the exit codes, then these commands as they are."""
    return EXIT_CODES + "\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a result; a failure to do so is an OutputError like any other."""
    text = shown_text(text)
    if to_stderr:
        click.echo(text, err=True)
    else:
        write_stdout(f"{text}\n".encode(errors="surrogateescape"))  # file names need not be UTF-8


def remark(text: str, quiet: bool) -> None:
    """Print one line beside the results, on standard error; that nobody can be told is no failure."""
    if not quiet:
        with suppress(OSError):
            click.echo(f"rcc: {shown_text(' '.join(text.split()))}", err=True)


def shown_text(text: str) -> str:
    """``text`` without what would steer a terminal; lines, and names in other encodings, stay as they are."""
    return "".join(c if c == "\n" or c.isprintable() or "\udca0" <= c <= "\udcff" else "?" for c in text)


def shown(name: str) -> str:
    """A file name for messages."""
    return "standard input" if name == STANDARD_STREAM else name


def read_input(name: str) -> bytes:
    """The content of a file, or of standard input for ``-``.

    Raises:
        InputError: it cannot be read. LimitError: it has more than MAX_INPUT_BYTES, or no end.
    """
    try:
        if name == STANDARD_STREAM:
            if sys.stdin is None:
                raise InputError("standard input: cannot read: it is closed")
            return _read_bounded(sys.stdin.buffer, name)
        with open(name, "rb") as file:
            return _read_bounded(file, name)
    except OSError as error:
        raise InputError(f"{shown(name)}: cannot read: {error.strerror or error}") from error


def _read_bounded(file: IO[bytes], name: str) -> bytes:
    parts, size = [], 0
    while part := file.read(_READ_BYTES):
        size += len(part)
        if size > MAX_INPUT_BYTES:
            raise LimitError(f"{shown(name)}: more than the {MAX_INPUT_BYTES} bytes that are read")
        parts.append(part)
    return b"".join(parts)


def output_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse the empty name that an unset shell variable leaves; it would mean the current folder."""
    if not name:
        raise click.BadParameter("an empty file name")
    return name


def write_output(name: str, data: bytes, overwrite: bool) -> None:
    """Write a file whole, or standard output for ``-``.

    Raises:
        OutputError: it cannot be written.
    """
    if name == STANDARD_STREAM:
        write_stdout(data)
    else:
        write_bytes(name, data, overwrite=overwrite)


@contextmanager
def about(name: str) -> Iterator[None]:
    """Name the file in front of any documented error raised inside."""
    try:
        yield
    except RccError as error:
        raise type(error)(f"{shown(name)}: {error}") from error


def resolve_device(name: str) -> str:
    """What ``--device`` means on this machine: auto takes CUDA where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: no CUDA device is available here")
    return name


def num_processes() -> int:
    """How many processes torchrun started: its WORLD_SIZE, 1 where there is none."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise click.UsageError(f"WORLD_SIZE={text!r:.60} is not a number of processes, as torchrun gives it")
    return int(text)


def is_terminal() -> bool:
    """Whether standard error can show a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(
    what: str, quiet: bool, unit: str = "candidates"
) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error, told (done, total); none if that is no terminal or nobody wants it."""
    if quiet or not is_terminal():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit=f" {unit}", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


@contextmanager
def training_progress(
    quiet: bool,
) -> Iterator[tuple[Callable[[int, "Progress"], None], Callable[[str], None]]]:
    """Two functions: one for every training step, one for a line of results, both to standard error.

    Rate, distortion and time left of the stage: a bar on a terminal, elsewhere a line every minute.
    """
    if quiet:
        yield (lambda _stage, _progress: None), (lambda _line: None)
    elif is_terminal():
        with _training_bar() as functions:
            yield functions
    else:
        yield _training_lines(), lambda line: click.echo(line, err=True)


def _figures(progress: "Progress") -> str:
    return f"R {progress.rate_bits:.2f} bits, D {progress.distortion:.4g}, beta {progress.beta:.3g}"


@contextmanager
def _training_bar() -> Iterator[tuple[Callable[[int, "Progress"], None], Callable[[str], None]]]:
    from tqdm import tqdm

    with tqdm(unit=" steps", mininterval=0.5, leave=False, file=sys.stderr) as bar:
        shown_stage = -1

        def tell(stage: int, progress: "Progress") -> None:
            nonlocal shown_stage
            if stage != shown_stage:
                shown_stage = stage
                bar.reset(progress.steps)
                bar.initial = bar.n = progress.step - 1  # steps of an earlier start took no time of this one
            bar.set_description(f"stage {stage} {progress.phase}", refresh=False)
            bar.set_postfix_str(_figures(progress), refresh=False)
            bar.update(progress.step - bar.n)

        yield tell, lambda line: bar.write(line, file=sys.stderr)


def _training_lines(every_s: float = 60.0) -> Callable[[int, "Progress"], None]:
    first: dict[int, tuple[int, float]] = {}  # stage -> step and time that this start began it with
    last_s = time.monotonic()

    def tell(stage: int, progress: "Progress") -> None:
        nonlocal last_s
        now_s = time.monotonic()
        step, start_s = first.setdefault(stage, (progress.step, now_s))
        if now_s - last_s < every_s or progress.step == step:
            return
        last_s = now_s
        left_s = (progress.steps - progress.step) * (now_s - start_s) / (progress.step - step)
        click.echo(
            f"stage {stage} {progress.phase} {progress.step}/{progress.steps}: {_figures(progress)}, "
            f"{left_s / 60:.1f} min left",
            err=True,
        )

    return tell
