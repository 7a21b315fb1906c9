"""``rcc verify``: whether ``.rcc`` files are whole, and which images of damaged ones are."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click

from rcccodec.commands import console
from rcccodec.errors import FormatError, InputError, RccError


@dataclass(frozen=True)
class Verdict:
    """What is known of a file; the keys of ``rcc verify --json``.

    images: in the file, as far as that is known; None where nothing is. lost: runs of images that are not
        intact, each as the numbers of its first and its last.
    faults: a line each; of an intact file, why it was not decoded.
    """

    file: str
    intact: bool
    images: int | None
    intact_images: int
    lost: list[tuple[int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@click.command(
    epilog=console.examples(
        "rcc verify photo.rcc", "rcc verify archive/ --json", "rcc verify backup.rcc --decode"
    )
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-m", "--model", help="Name or folder of the model, for --decode.")
@click.option(
    "--decode", is_flag=True, help="Decode every image too, which needs the model and takes longer."
)
@click.option("--max-pixels", type=click.IntRange(min=1), help="As of rcc decompress, for --decode.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and what --json asks for.")
def verify(
    inputs: tuple[str, ...],
    model: str | None,
    decode: bool,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say whether .rcc files are whole: their structure and every checksum.

    INPUT is a file, - for standard input, or a folder, whose .rcc files are all looked at. Of a damaged
    archive the lost images are named by their numbers, from 0; rcc decompress --keep-going gives the others.
    Exit code 0 if all are whole, else that of the first that is not: 4 for damage.
    """
    verdicts: list[Verdict] = []
    failures: list[RccError] = []
    for name in _files(inputs):
        verdict = Verdict(name, False, None, 0)
        try:
            data = console.read_input(name)
            verdict = examine(name, data)
            if decode:
                verdict = decoded(verdict, data, model, max_pixels)
            if not verdict.intact:
                failures.append(FormatError("damaged"))
        except RccError as error:
            cause = str(error).removeprefix(f"{console.shown(name)}: ")
            verdict = replace(verdict, faults=[*verdict.faults, cause])
            failures.append(error)
        verdicts.append(verdict)
        if not as_json and (verdict.faults or not quiet):
            console.say(_line(verdict))
    if as_json:
        console.say(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    if failures:
        failed = f"{len(failures)} of {len(verdicts)} files are not whole, or could not be checked"
        raise type(failures[0])(failed)


def examine(name: str, data: bytes) -> Verdict:
    """The verdict on a file's bytes, from its structure and checksums alone.

    Raises:
        FormatError: nothing of it can be relied on.
    """
    from rcccodec import container

    found = container.salvage(data)
    ends = [(first, first + group.count) for first, group in found.groups]
    num_intact = sum(end - first for first, end in ends)
    lost = container.lost_runs(ends, found.num_images)
    return Verdict(name, not found.faults, found.num_images, num_intact, lost, found.faults)


def decoded(verdict: Verdict, data: bytes, model: str | None, max_pixels: int | None) -> Verdict:
    """The verdict after decoding every image that the checksums call intact.

    Raises:
        ModelError, LimitError: that cannot be tried.
    """
    from rcccodec import codec

    made = codec.decompress_intact(data, model, max_pixels=max_pixels or codec.MAX_PIXELS)
    faults, count = made.faults, len(made.images)
    return replace(verdict, intact=not faults, intact_images=count, lost=made.lost, faults=faults)


def _files(inputs: Iterable[str]) -> list[str]:
    from rcccodec.folder import list_files

    names = []
    for name in inputs:
        if os.path.isdir(name):
            names += [str(Path(name) / file) for file in list_files(Path(name), [".rcc"])]
        else:
            names.append(name)
    if not names:
        raise InputError("no .rcc file to verify")
    return names


def _line(verdict: Verdict) -> str:
    images = "1 image" if verdict.images == 1 else f"{verdict.images} images"
    of = "" if verdict.images is None else f" of {verdict.images}"
    known = [f"whole, {images}"] if verdict.intact else [f"{verdict.intact_images}{of} images are intact"]
    if not verdict.intact_images:
        known = []
    return f"{console.shown(verdict.file)}: {'; '.join([*known, *verdict.faults])}"
