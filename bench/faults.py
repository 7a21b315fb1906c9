"""Commands that are killed at every step, starved and signalled: what is left, and whether they go on.

    measure_faults() -> counts and failures; python bench/faults.py prints them

After each kill: nothing but whole results, old or new, under the final names; the same command then ends with
the very files of an uninterrupted run, searches nothing that was finished, and sweeps what the kill left.
"""

import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_child import Command, Fault, Outcome, run_child
from PIL import Image

from rcccodec import bundle, codec, parts
from rcccodec.checkpoint import load_checkpoint
from rcccodec.commands import compress_folder
from rcccodec.errors import RccError
from rcccodec.folder import JOURNAL
from rcccodec.latent import parts as latent_parts
from rcccodec.model_search import model_path
from rcccodec.rd import estimate
from rcccodec.sources.samples import sample_bytes
from rcccodec.training import trainer

DIGIT_OPTIONS = ["-m", "mnist", "--candidates", "2048", "--quiet"]
PHOTO_OPTIONS = ["-m", "photo", "-e", "1", "--quiet"]
TRAINING = ["sample-digits", "-o", "made", "--width", "8", "--vae-steps", "3", "--nerd-steps", "2",
            "--step-candidates", "16", "--candidates", "32", "--stage", "32:0.4", "--quiet"]  # fmt: skip
RD = ["gaussian:m=1", "--method", "exact,ba", "--beta", "1,2", "--json", "rd.json", "--quiet"]
PICTURES = 5
TIMES = ("seconds", "training_seconds", "date", "sweeps")  # of a run; sweeps: of its last start

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


@dataclass
class Tally:
    """Counts of one scenario, and what went wrong."""

    tried: int = 0
    killed: int = 0
    failures: list[str] = field(default_factory=list)


def measure_faults(
    only: Sequence[str] | None = None,
    *,
    most_steps: int = 1000,
    cuts: int = 4,
    moments: int = 4,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Kill every scenario at its steps, within its writes and at random moments, and try all other faults.

    Args:
        only: names of scenarios; None is all of them.
        most_steps: kill points of a scenario at steps of the file system, evenly chosen if it has more.
        cuts: kill points within a write. moments: at random times, in the search mostly.

    Returns:
        {"kill_points", "tried", "failed", "failures", "seconds", "scenarios": {name: {...}}}, for JSON.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    torch.set_num_threads(1)
    start_s, chance = time.monotonic(), random.Random(seed)
    rows: dict[str, Any] = {}
    with _cached_models(), tempfile.TemporaryDirectory(prefix="rcc-faults-") as name:
        for number, scenario in enumerate(_scenarios(Path(name), only)):
            began_s = time.monotonic()
            place = Path(name) / f"{number}"
            tally = _try_all(scenario, place, most_steps, cuts, moments, chance)
            rows[scenario.name] = {
                "tried": tally.tried,
                "kill_points": tally.killed,
                "failed": len(tally.failures),
                "failures": tally.failures,
                "seconds": round(time.monotonic() - began_s, 1),
            }
            say(f"{scenario.name}: {tally.killed} kill points, {len(tally.failures)} failures")
            for failure in tally.failures:
                say(f"  {failure}")
    return {
        "kill_points": sum(row["kill_points"] for row in rows.values()),
        "tried": sum(row["tried"] for row in rows.values()),
        "failed": sum(row["failed"] for row in rows.values()),
        "failures": [f"{name}: {line}" for name, row in rows.items() for line in row["failures"]],
        "seconds": round(time.monotonic() - start_s, 1),
        "scenarios": rows,
    }


@contextmanager
def _cached_models() -> Iterator[None]:
    """Models are loaded here, once; children inherit them."""
    before, by_path = bundle.load_model, lru_cache(bundle.load_model)

    def load(name: str | Path) -> bundle.AnyModel:
        return by_path(model_path(name))

    for name in ("mnist", "photo"):
        load(name)
    bundle.load_model = codec.load_model = load  # type: ignore[assignment]
    try:
        yield
    finally:
        bundle.load_model = codec.load_model = before


def _scenarios(scratch: Path, only: Sequence[str] | None) -> Iterator[Scenario]:
    digits, photos = _digits(PICTURES), _photos(PICTURES)
    wanted = partial(_wanted, only)
    (digit, *_), (photo, *_) = digits.values(), photos.values()
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
            _below("in", digits),
            {"o.rcc": b"old"},
            counted=[(parts, "choose")],
            units=_whole_parts,
            before=_single_parts,
        )
    if wanted("archive of photos"):
        yield Scenario(
            "archive of photos",
            ["compress", "in", "-o", "o.rcc", *PHOTO_OPTIONS],
            _below("in", photos),
            counted=[(latent_parts, "encode_picture")],
            units=_whole_parts,
        )
    if wanted("archive to a size"):
        yield Scenario(
            "archive to a size",
            ["compress", "in", "-o", "o.rcc", "--target-bpp", "0.4", *PHOTO_OPTIONS],
            _below("in", photos),
            counted=[(latent_parts, "encode_picture")],
            units=_whole_parts,
        )
    if wanted("mirrored folder"):
        yield Scenario(
            "mirrored folder",
            ["compress", "in", "-o", "out/", *DIGIT_OPTIONS],
            _below("in", digits) | _below("in/deep", dict(list(photos.items())[:1])),
            counted=[(compress_folder, "_make")],
            units=lambda folder: sum(1 for _ in folder.rglob("out/**/*.rcc")),
            ignored=[f"out/{JOURNAL}"],
        )
    archive = _made(
        scratch / "archive", ["compress", "in", "-o", "a.rcc", *DIGIT_OPTIONS], _below("in", digits)
    )
    single = _made(
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


def _try_all(
    scenario: Scenario, place: Path, most_steps: int, cuts: int, moments: int, chance: random.Random
) -> Tally:
    """All faults of one scenario, and what they leave."""
    tally = Tally()
    command = Command(scenario.words, scenario.counted, scenario.before)
    whole = _start(scenario, place / "whole")
    plain = run_child(command, whole, Fault())
    if plain.code != 0:
        raise RuntimeError(f"{scenario.name}: fails without any fault: {plain.stderr}")
    goal = _tree(whole)
    largest = max(len(data) for name, data in goal.items() if name not in scenario.inputs)
    steps = _spread(plain.steps, min(most_steps, scenario.most_steps))
    faults = [Fault(step=k) for k in steps]
    faults += [Fault(file_bytes=chance.randrange(largest), cuts=True) for _ in range(cuts)]
    faults += [Fault(after_s=chance.uniform(0, plain.seconds)) for _ in range(moments)]
    for number in (signal.SIGINT, signal.SIGTERM):
        some = chance.sample(range(1, plain.steps + 1), min(cuts, plain.steps))
        faults += [Fault(step=k, signal=number) for k in some]
        faults += [Fault(after_s=chance.uniform(0, plain.seconds), signal=number) for _ in range(moments)]
    faults += [Fault(file_bytes=chance.randrange(largest)) for _ in range(cuts)]
    for fault in faults:
        folder = _start(scenario, place / "trial")
        struck = run_child(command, folder, fault)
        tally.tried += 1
        tally.killed += struck.code is None
        wrong = _wrong_end(fault, struck) + _wrong_files(scenario, folder, goal, struck)
        if struck.code != 0:
            wrong += _wrong_second_run(scenario, command, folder, goal, plain)
        elif not scenario.ignored:
            wrong += _differences(scenario, _tree(folder), goal)
        tally.failures += [f"{_said(fault)}: {line}" for line in wrong]
    return tally


def _said(fault: Fault) -> str:
    name = fault.signal.name if isinstance(fault.signal, signal.Signals) else str(fault.signal)
    if fault.step is not None:
        return f"{name} before step {fault.step}"
    if fault.after_s is not None:
        return f"{name} after {fault.after_s:.2f} s"
    if fault.file_bytes is not None:
        return f"{'killed at' if fault.cuts else 'no more than'} {fault.file_bytes} bytes of a file"
    return f"no more than {fault.memory_bytes} bytes of memory"


def _wrong_end(fault: Fault, struck: Outcome) -> list[str]:
    """An undocumented exit code, or other than one line of cause."""
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: 6}[fault.signal]
    if struck.code in (0, None) or (struck.code == expected and len(struck.lines) == 1):
        return []
    return [f"exit code {struck.code} instead of {expected}, {struck.stderr!r:.600}"]


def _wrong_second_run(
    scenario: Scenario, command: Command, folder: Path, goal: Tree, plain: Outcome
) -> list[str]:
    """What the same command, with ``--resume`` for training, makes of what is there."""
    units = scenario.units(folder)
    words = scenario.again or scenario.words
    taken = "--no-overwrite" in words and (folder / "o.rcc").exists()
    again = run_child(replace(command, words=words), folder, Fault())
    if again.code != (6 if taken else 0):
        return [f"the second run ends with {again.code}: {again.stderr!r:.600}"]
    wrong = _differences(scenario, _tree(folder), goal)
    if scenario.counted and again.calls != plain.calls - units:
        wrong.append(f"{again.calls} calls of {plain.calls} again, though {units} were done")
    return wrong


def _wrong_files(scenario: Scenario, folder: Path, goal: Tree, struck: Outcome) -> list[str]:
    """What is under final names and neither the old file nor the new one; litter unless it was killed."""
    found, wrong = _tree(folder), []
    for name, data in found.items():
        before = scenario.inputs.get(name) or scenario.old.get(name)
        if struck.code is not None and name.endswith(".tmp"):
            wrong.append(f"{name} is left over")
        if _is_private(name) or data == before or name in scenario.ignored:
            continue
        if _lasting(name, data) != _lasting(name, goal.get(name, b"")) and not scenario.partial(name, data):
            wrong.append(f"{name} is neither old nor new ({len(data)} bytes)")
    lost = [name for name in {**scenario.inputs, **scenario.old} if name not in found]
    return wrong + [f"{name} is lost" for name in lost]


def _differences(scenario: Scenario, found: Tree, goal: Tree) -> list[str]:
    """Between the files after the second run and those of an uninterrupted one."""
    wrong = [f"{name} is left over" for name in found if name not in goal]
    wrong += [f"{name} is missing" for name in goal if name not in found]
    return wrong + [
        f"{name} differs from that of an uninterrupted run"
        for name, data in goal.items()
        if name in found
        and name not in scenario.ignored
        and _lasting(name, found[name]) != _lasting(name, data)
    ]


def _lasting(name: str, data: bytes) -> object:
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


def _is_private(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts) or ".checkpoints/" in name


def _spread(steps: int, most: int) -> list[int]:
    """Numbers of at most ``most`` of the steps 1, 2, ..., the last included."""
    return sorted({round(k) for k in np.linspace(1, steps, min(steps, most))})


def _start(scenario: Scenario, folder: Path) -> Path:
    """The folder anew, with what the scenario starts from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in {**scenario.inputs, **scenario.old}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _tree(folder: Path) -> Tree:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _below(folder: str, files: Tree) -> Tree:
    return {f"{folder}/{name}": data for name, data in files.items()}


def _made(folder: Path, words: Sequence[str], inputs: Tree) -> bytes:
    """The a.rcc that a command makes."""
    _start(Scenario("", words, inputs), folder)
    outcome = run_child(Command(words), folder, Fault())
    if outcome.code != 0:
        raise RuntimeError(f"{words}: {outcome.stderr}")
    return (folder / "a.rcc").read_bytes()


def _png(folder: Path, picture: Image.Image) -> bytes:
    picture.save(folder / "x.png")
    return (folder / "x.png").read_bytes()


def _digits(count: int) -> Tree:
    sheet = Image.open(io.BytesIO(sample_bytes("digits.png")))
    boxes = [(32 * k, 0, 32 * k + 32, 32) for k in range(count)]
    with tempfile.TemporaryDirectory() as name:
        return {f"{k}.png": _png(Path(name), sheet.crop(box)) for k, box in enumerate(boxes)}


def _photos(count: int) -> Tree:
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


if __name__ == "__main__":
    result = measure_faults(sys.argv[1:] or None)
    print(json.dumps(result, indent=1))
    raise SystemExit(1 if result["failed"] else 0)
