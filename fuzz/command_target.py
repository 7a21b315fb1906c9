"""The command line as a target: a mutated file through every command that reads it, in this process.

Allowed: exit code 0 with a result and nothing on standard error; or one line there, a documented code other
than 1, and nothing written. Half-written files and files left beside the result are faults.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from fuzz import pictures, rcc_files
from fuzz.codec_targets import codec_targets, write_models
from fuzz.file_targets import IMAGE_PIXELS
from fuzz.target import Target, expect
from rcccodec import cli
from rcccodec.errors import InputError, LimitError
from rcccodec.images import read_image

DOCUMENTED = (0, 2, 3, 4, 5, 6, 7)  # 1 is a bug, 130 and 143 need a signal
SCRATCH = "command"


def command_targets(folder: Path) -> list[Target]:
    """Targets of ``rcc``, with the tiny models below ``folder``."""
    write_models(folder)
    files = [
        seed for target in codec_targets(folder) if target.name.startswith("decode") for seed in target.seeds
    ]
    images = tuple(pictures.picture_files())
    return [
        Target("command-file", partial(_files, folder), tuple(files), rcc_files.edit),
        Target(
            "command-image",
            partial(_images, folder),
            images,
            pictures.edit,
            count_share=0.5,
            spare_bytes=64 << 20,
        ),
    ]


def _files(folder: Path, data: bytes) -> str:
    """``info``, ``decompress`` to a file or a folder, whole or in part, and ``verify`` where there is one."""
    (folder / SCRATCH).mkdir(exist_ok=True)
    source = folder / SCRATCH / "in.rcc"
    source.write_bytes(data)
    random = Random(data)
    codes = [run_rcc(folder, ["info", str(source)])]
    target = random.choice(("out.png", "out/", "out.ppm"))
    options = random.choice(([], [], ["--partial"], ["--region", "0,0,3,2"], ["--max-pixels", "5000"]))
    if "--max-pixels" not in options:
        options = [*options, "--max-pixels", str(1 << 14)]
    arguments = ["decompress", str(source), "-o", str(folder / SCRATCH / target), *options]
    codes.append(run_rcc(folder, arguments, made=folder / SCRATCH / target.rstrip("/")))
    if "verify" in cli.rcc.commands:
        codes.append(run_rcc(folder, ["verify", str(source)], lines=None))
    source.unlink()
    return str(codes)


def _images(folder: Path, data: bytes) -> str:
    (folder / SCRATCH).mkdir(exist_ok=True)
    source, made = folder / SCRATCH / "in.png", folder / SCRATCH / "out.rcc"
    try:
        read_image(data, max_pixels=IMAGE_PIXELS)
    except LimitError:
        return "large"  # rightly taken, and rightly slow
    except InputError:
        pass
    source.write_bytes(data)
    arguments = ["compress", str(source), "-o", str(made), "-m", str(folder / "grey"), "--quiet"]
    code = run_rcc(folder, [*arguments, "--candidates", "16", "--coder", "pfr"], made=made)
    source.unlink()
    return str(code)


def run_rcc(
    folder: Path, arguments: Sequence[str], *, made: Path | None = None, lines: int | None = 1
) -> int:
    """The exit code of ``rcc`` with these arguments, its promises checked.

    Args:
        made: what it may leave; removed here. Everything else in the scratch folder stays as it was.
        lines: on standard error after a failure; None: any number.
    """
    before = sorted(os.listdir(folder / SCRATCH))
    with captured(folder) as (out, err):
        code = cli.run(arguments)
    said = err.getvalue()
    expect(code in DOCUMENTED, f"exit code {code}: {said.strip():.120}")
    expect("Traceback" not in said, "a traceback")
    failures = [line for line in said.splitlines() if "error: " in line or "Error: " in line]
    if code == 0:
        expect(not failures, f"success with an error: {said.strip():.120}")
    elif lines is not None:
        expect(
            len(failures) == lines and out.getvalue() == b"", f"{len(failures)} errors: {said.strip():.120}"
        )
        expect(not any(c in said for c in "\x1b\x07\x00"), "control characters on standard error")
    if made is not None and code == 0:
        expect(made.exists(), "success, and nothing made")
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    left = sorted(os.listdir(folder / SCRATCH))
    expect(left == before, f"left behind: {set(left) ^ set(before)}")
    return code


@contextmanager
def captured(folder: Path) -> Iterator[tuple[io.BytesIO, io.StringIO]]:
    """Standard output and error of what runs inside, with the models below ``folder``."""
    out, err = io.BytesIO(), io.StringIO()
    kept = sys.stdout, sys.stderr, os.environ.get("RCC_MODELS")
    sys.stdout, sys.stderr = io.TextIOWrapper(out, write_through=True), err
    os.environ["RCC_MODELS"] = str(folder)
    try:
        yield out, err
    finally:
        sys.stdout.flush()
        sys.stdout.detach()
        sys.stdout, sys.stderr = kept[:2]
        if kept[2] is None:
            del os.environ["RCC_MODELS"]
        else:
            os.environ["RCC_MODELS"] = kept[2]
