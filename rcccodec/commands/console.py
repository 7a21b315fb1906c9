"""What all commands share: reading inputs, speaking to the terminal, devices, progress."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from rcccodec.atomic import write_bytes, write_stdout
from rcccodec.errors import InputError, RccError

if TYPE_CHECKING:
    from rcccodec.training.trainer import Progress

STANDARD_STREAM = "-"

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
"""


def examples(*lines: str) -> str:
    """The epilog of a help page: the exit codes, then these commands as they are."""
    return EXIT_CODES + "\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a result; a failure to do so is an OutputError like any other."""
    if to_stderr:
        click.echo(text, err=True)
    else:
        write_stdout(f"{text}\n".encode())


def remark(text: str, quiet: bool) -> None:
    """Print one line beside the results, on standard error."""
    if not quiet:
        click.echo(f"rcc: {text}", err=True)


def shown(name: str) -> str:
    """A file name for messages."""
    return "standard input" if name == STANDARD_STREAM else name


def read_input(name: str) -> bytes:
    """The content of a file, or of standard input for ``-``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if name == STANDARD_STREAM:
            return sys.stdin.buffer.read()
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{shown(name)}: cannot read: {error.strerror or error}") from error


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


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error, told (done, total); none if that is no terminal or nobody wants it."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit=" candidates", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


@contextmanager
def training_progress(quiet: bool) -> Iterator[tuple[Callable[[int, "Progress"], None], Callable[[str], None]]]:
    """Two functions: one for every training step, one for a line of results.

    On a terminal the steps make a bar with the loss and the time left; elsewhere a line every minute.
    """
    if quiet:
        yield (lambda _stage, _progress: None), (lambda _line: None)
        return
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with tqdm(unit=" steps", mininterval=0.5 if on_terminal else 60, file=sys.stderr) as bar:

        def tell(stage: int, progress: "Progress") -> None:
            bar.total = progress.steps
            bar.set_description(f"stage {stage} {progress.phase}", refresh=False)
            bar.set_postfix_str(f"objective {progress.loss_bits:.3f} bits, beta {progress.beta:.3g}", refresh=False)
            if progress.step < bar.n:
                bar.reset(progress.steps)
            bar.update(progress.step - bar.n)

        yield tell, lambda line: bar.write(line, file=sys.stderr)
