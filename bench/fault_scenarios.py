"""What is killed, starved and signalled by `faults`: commands, the files they start from, what must hold.

Models are the shipped ones; pictures are pieces of those that come with the package.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_child import Command, Fault, run_child
from PIL import Image

from rcccodec import parts
from rcccodec.checkpoint import load_checkpoint
from rcccodec.commands import compress_folder
from rcccodec.errors import RccError
from rcccodec.folder import JOURNAL
from rcccodec.latent import parts as latent_parts
from rcccodec.rd import estimate
from rcccodec.sources.samples import sample_bytes
from rcccodec.training import trainer

DIGIT_OPTIONS = ["-m", "mnist", "--candidates", "2048", "--quiet"]
PHOTO_OPTIONS = ["-m", "photo", "-e", "1", "--quiet"]
TRAINING = ["sample-digits", "-o", "made", "--width", "8", "--vae-steps", "3", "--nerd-steps", "2",
            "--step-candidates", "16", "--candidates", "32", "--stage", "32:0.4", "--quiet"]  # fmt: skip
RD = ["gaussian:m=1", "--method", "exact,ba", "--beta", "1,2", "--json", "rd.json", "--quiet"]
PICTURES = 5
# tell of a run, not of what it made; sweeps are those of its last start
TIMES = ("seconds", "training_seconds", "date", "commit", "dirty", "sweeps")

Tree = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """A command, the files it starts from, and what must hold when it was killed.

    again: words that go on with it, if not the same. partial: of a file that may differ from its final form,
    whether it is whole in itself. units: how many of the counted calls a folder makes needless.
    ignored: names whose content depends on when and in which order things were made. most_steps: at most so
    many of the steps, since it takes long.
    """

    name: str
    words: Sequence[str]
    inputs: Tree
    old: Tree = field(default_factory=dict)
    again: Sequence[str] | None = None
    partial: Callable[[str, bytes], bool] = lambda _name, _data: False
    counted: Sequence[tuple[Any, str]] = ()
    units: Callable[[Path], int] = lambda _folder: 0
    before: Callable[[], None] = lambda: None
    ignored: Sequence[str] = ()
    most_steps: int = 1000


def scenarios(scratch: Path, only: Sequence[str] | None) -> Iterator[Scenario]:
    all_digits, all_photos = digits(PICTURES), photos(PICTURES)
    wanted = partial(_wanted, only)
    (digit, *_), (photo, *_) = all_digits.values(), all_photos.values()
    if wanted("digit"):
        words = ["compress", "in.png", "-o", "o.rcc", *DIGIT_OPTIONS]
        yield Scenario("digit", words, {"in.png": digit})
    if wanted("photo"):
        words = ["compress", "in.png", "-o", "o.rcc", *PHOTO_OPTIONS]
        yield Scenario("photo", words, {"in.png": photo}, {"o.rcc": b"old"})
    if wanted("no overwrite"):
        words = ["compress", "in.png", "-o", "o.rcc", "--no-overwrite", *DIGIT_OPTIONS]
        yield Scenario("no overwrite", words, {"in.png": digit}, before=_no_links)
    if wanted("archive of digits"):
        yield Scenario(
            "archive of digits",
            ["compress", "in", "-o", "o.rcc", *DIGIT_OPTIONS],
            below("in", all_digits),
            {"o.rcc": b"old"},
            counted=[(parts, "choose")],
            units=_whole_parts,
            before=_single_parts,
        )
    if wanted("archive of photos"):
        yield Scenario(
            "archive of photos",
            ["compress", "in", "-o", "o.rcc", *PHOTO_OPTIONS],
            below("in", all_photos),
            counted=[(latent_parts, "encode_picture")],
            units=_whole_parts,
        )
    if wanted("archive to a size"):
        yield Scenario(
            "archive to a size",
            ["compress", "in", "-o", "o.rcc", "--target-bpp", "0.4", *PHOTO_OPTIONS],
            below("in", all_photos),
            counted=[(latent_parts, "encode_picture")],
            units=_whole_parts,
        )
    if wanted("mirrored folder"):
        yield Scenario(
            "mirrored folder",
            ["compress", "in", "-o", "out/", *DIGIT_OPTIONS],
            below("in", all_digits) | below("in/deep", dict(list(all_photos.items())[:1])),
            counted=[(compress_folder, "_make")],
            units=lambda folder: sum(1 for _ in folder.rglob("out/**/*.rcc")),
            ignored=[f"out/{JOURNAL}"],
        )
    archive = made(
        scratch / "archive", ["compress", "in", "-o", "a.rcc", *DIGIT_OPTIONS], below("in", all_digits)
    )
    single = made(
        scratch / "single", ["compress", "in.png", "-o", "a.rcc", *PHOTO_OPTIONS], {"in.png": photo}
    )
    if wanted("decompress"):
        words = ["decompress", "a.rcc", "-o", "out.png", "--quiet"]
        yield Scenario("decompress", words, {"a.rcc": single}, {"out.png": b"old"})
    if wanted("archive to a folder"):
        words = ["decompress", "a.rcc", "-o", "out", "--quiet"]
        yield Scenario("archive to a folder", words, {"a.rcc": archive})
        old = {"out/0000.png": b"old", "out/0001.png": b"old", "out/other.txt": b"kept"}
        yield Scenario("archive to an old folder", words, {"a.rcc": archive}, old)
    if wanted("folder of files"):
        words = ["decompress", "in", "-o", "out", "--quiet"]
        yield Scenario("folder of files", words, {"in/a.rcc": archive, "in/deep/b.rcc": single})
    if wanted("train"):
        yield Scenario(
            "train",
            ["train", *TRAINING],
            {},
            again=["train", *TRAINING, "--resume"],
            partial=_is_checkpoint,
            counted=[(trainer, "_step_loss")],
            units=_steps_done,
            before=_eager_checkpoints,
            most_steps=12,
        )
    if wanted("rd"):
        yield Scenario(
            "rd",
            ["rd", *RD],
            {},
            partial=_is_result,
            counted=[(estimate, "trace")],
            units=_slopes_done,
            most_steps=16,
        )


def _wanted(only: Sequence[str] | None, name: str) -> bool:
    return only is None or name in only


def lasting(name: str, data: bytes) -> object:
    """A file without what tells of the run: when it was and how long it took."""
    if name.endswith("checkpoint-0.safetensors"):
        return [_without_times(values) for values in _read_checkpoint(data)]
    if name == "made/README.md":
        return None  # tells seconds, and the hash of a description that does
    try:
        return _without_times(json.loads(data))
    except ValueError:
        return data


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _read_checkpoint(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return load_checkpoint(Path(file.name))


def start(scenario: Scenario, folder: Path) -> Path:
    """The folder anew, with what the scenario starts from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in {**scenario.inputs, **scenario.old}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tree(folder: Path) -> Tree:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def below(folder: str, files: Tree) -> Tree:
    return {f"{folder}/{name}": data for name, data in files.items()}


def made(folder: Path, words: Sequence[str], inputs: Tree) -> bytes:
    """The a.rcc that a command makes."""
    start(Scenario("", words, inputs), folder)
    outcome = run_child(Command(words), folder, Fault())
    if outcome.code != 0:
        raise RuntimeError(f"{words}: {outcome.stderr}")
    return (folder / "a.rcc").read_bytes()


def _png(folder: Path, picture: Image.Image) -> bytes:
    picture.save(folder / "x.png")
    return (folder / "x.png").read_bytes()


def digits(count: int) -> Tree:
    sheet = Image.open(io.BytesIO(sample_bytes("digits.png")))
    boxes = [(32 * k, 0, 32 * k + 32, 32) for k in range(count)]
    with tempfile.TemporaryDirectory() as name:
        return {f"{k}.png": _png(Path(name), sheet.crop(box)) for k, box in enumerate(boxes)}


def tiled(times: int) -> bytes:
    """A photograph of some megapixels: so many copies each way."""
    picture = np.asarray(Image.open(io.BytesIO(sample_bytes("coffee.png"))))
    with tempfile.TemporaryDirectory() as name:
        return _png(Path(name), Image.fromarray(np.tile(picture, (times, times, 1))))


def photos(count: int) -> Tree:
    """Pieces of a photograph, each of another size."""
    sheet = Image.open(io.BytesIO(sample_bytes("coffee.png")))
    with tempfile.TemporaryDirectory() as name:
        return {
            f"p{k}.png": _png(Path(name), sheet.crop((40 * k, 30 * k, 40 * k + 64 - k, 30 * k + 48 + k)))
            for k in range(count)
        }


def _single_parts() -> None:
    parts.PART_BLOCKS = 1


def _eager_checkpoints() -> None:
    trainer.CHECKPOINT_EVERY_S = 0.0


def _no_links() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    os.link = refuse  # type: ignore[assignment]


def _whole_parts(folder: Path) -> int:
    return sum(1 for file in folder.glob(".o.rcc.parts/*") if parts.read_part(file) is not None)


def _steps_done(folder: Path) -> int:
    checkpoint = folder / "made" / "checkpoint-0.safetensors"
    return int(load_checkpoint(checkpoint)[1]["step"]) if checkpoint.exists() else 0


def _slopes_done(folder: Path) -> int:
    file = folder / "rd.json"
    methods = json.loads(file.read_bytes())["methods"] if file.exists() else {}
    return sum(len(entry["betas"]) for entry in methods.values())


def _is_checkpoint(name: str, data: bytes) -> bool:
    if not name.endswith("checkpoint-0.safetensors"):
        return False
    try:
        return "step" in _read_checkpoint(data)[1]
    except RccError:
        return False


def _is_result(name: str, data: bytes) -> bool:
    return name == "rd.json" and bool(json.loads(data)["methods"])


def is_private(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts) or ".checkpoints/" in name
