"""Bundles made to do harm, of all three kinds, and the count of those that get away with it.

Each case spoils a copy of a small bundle, in a folder of its own. Hashes are made right again where what they
pin was changed, for a stranger can do that too.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_baselines import write_tiny_baselines
from tiny_models import write_tiny_latent_model, write_tiny_models

from rcccodec.baselines.bundle import MAX_WEIGHTS_BYTES
from rcccodec.baselines.bundle import load_bundle as load_baseline_bundle
from rcccodec.bundle import load_model
from rcccodec.description import MAX_JSON_BYTES
from rcccodec.errors import ModelError
from rcccodec.stored_tensors import MAX_HEADER_BYTES

KINDS = ("grey", "latent", "factorized", "image")  # one-shot, of latents, two baselines
WEIGHTS = "weights.safetensors"
HANG_S = 10


@dataclass(frozen=True)
class Case:
    """``spoil`` changes the bundle in a folder; it is meant for these kinds."""

    name: str
    spoil: Callable[[Path], object]
    kinds: tuple[str, ...] = KINDS


def write_kinds(folder: Path) -> None:
    """A whole bundle of every kind below ``folder``."""
    write_tiny_models(folder)
    write_tiny_latent_model(folder / "latent")
    write_tiny_baselines(folder / "baselines")
    for kind in ("factorized", "image"):
        (folder / "baselines" / kind).rename(folder / kind)


def load(folder: Path, kind: str) -> Any:
    """The bundle in ``folder``, by the loader of its kind."""
    return load_model(folder) if kind in ("grey", "latent") else load_baseline_bundle(folder)


def fault(folder: Path, kind: str) -> str:
    """What loading does that it must not; "" if it ends in a ModelError of one short, printable line."""
    started = time.monotonic()
    try:
        with watched(HANG_S):
            load(folder, kind)
    except ModelError as error:
        message = str(error).replace(str(folder), "")
        if not message.isprintable() or len(message) > 400:
            return f"not one short, printable line: {message[:80]!r}"
        if "allocat" in message:
            return f"asked for too much memory: {message[:200]}"
        return "" if time.monotonic() - started < HANG_S / 2 else "took too long"
    except BaseException as error:
        return f"{type(error).__name__}: {error!s:.200}"
    return "loaded"


@contextmanager
def watched(seconds: int = HANG_S) -> Iterator[None]:
    """TimeoutError for what hangs."""

    def ring(_signal: int, _frame: object) -> None:
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def description(folder: Path) -> Path:
    """``model.json`` or ``baseline.json``."""
    return folder / ("model.json" if (folder / "model.json").exists() else "baseline.json")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change fields of the description."""
    card = json.loads(description(folder).read_bytes())
    edit(card)
    description(folder).write_text(json.dumps(card))


def put_weights(folder: Path, data: bytes) -> None:
    """Other weights, whose hash is right."""
    (folder / WEIGHTS).write_bytes(data)
    change(folder, lambda card: card.update(weights_sha256=hashlib.sha256(data).hexdigest()))


def safetensors(header: bytes | dict[str, Any], payload: bytes = b"") -> bytes:
    """A file of this header, made by hand."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + payload


def _text(change_text: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: description(folder).write_bytes(
        change_text(description(folder).read_text()).encode("utf-8", "surrogatepass")
    )


def _more(value: str) -> Callable[[Path], object]:
    """A further field, of this JSON text."""
    return _text(lambda text: f'{{"more": {value},{text[1:]}')


def _weights(data: bytes) -> Callable[[Path], object]:
    return lambda folder: put_weights(folder, data)


def _tensor(dtype: str = "F32", shape: tuple[int, ...] = (1,), offsets: tuple[int, int] = (0, 4)) -> bytes:
    return safetensors({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, bytes(4))


def _instead(which: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """``make`` something else in place of a file."""

    def spoil(folder: Path) -> None:
        place = description(folder) if which == "description" else folder / which
        place.unlink()
        make(place)

    return spoil


def _put(name: str, value: object, card: dict[str, Any]) -> None:
    card[name] = value


def _sparse(size: int, place: Path) -> None:
    with open(place, "wb") as file:
        file.truncate(size)


def _loop(place: Path) -> None:
    place.symlink_to(place.name)


def _spec(**sizes: object) -> Callable[[Path], object]:
    """Other sizes of the network: of the first generator, or of ``spec``."""

    def edit(card: dict[str, Any]) -> None:
        (card["spec"] if "spec" in card else card["generators"][0]).update(sizes)

    return lambda folder: change(folder, edit)


def _escapes(folder: Path) -> None:
    """A tensor whose name steers terminals."""
    from safetensors.torch import load as load_tensors
    from safetensors.torch import save

    prefix = "generators.0." if folder.name == "grey" else "network."
    tensors = load_tensors((folder / WEIGHTS).read_bytes())
    put_weights(folder, save(tensors | {f"{prefix}\x1b]0;owned\x07\x9b31m\n\u202e": torch.zeros(1)}))


PLACES = {
    "pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir,
    "dangling link": lambda p: p.symlink_to("nowhere"), "loop of links": _loop,
    "link to a file outside": lambda p: p.symlink_to("/proc/self/status"),
    "link up": lambda p: p.symlink_to("../../../../../../../../etc/passwd"),
}  # fmt: skip
VALUES = {
    "deep list": "[" * 1000 + "]" * 1000, "very deep list": "[" * 200_000,
    "deep object": '{"a":' * 40 + "1" + "}" * 40,
    "5000 digits": "9" * 5000, "a million digits": "9" * 1_000_000, "2^64": str(1 << 64),
    "-2^64": str(-(1 << 64)),
    "NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "1e999": "1e999",
    "a name twice": '{"a": 1, "a": 2}', "its last field twice": '1, "weights_sha256": "00"', "open text": '"',
    "a control character": '"\x07"', "text without a second half": '"\ud800"',
}  # fmt: skip
HEADERS = {
    "no length": b"1234", "a length of 2^63": (1 << 63).to_bytes(8, "little"),
    "a length of all ones": b"\xff" * 8 + b"{}", "longer than the file": (100).to_bytes(8, "little") + b"{}",
    "a large header": safetensors(b"{" + b" " * MAX_HEADER_BYTES + b"}"),
    "deep": safetensors(b"[" * 50_000), "no JSON": safetensors(b"\xff\xfe"), "a list": safetensors(b"[]"),
    "negative offsets": _tensor(offsets=(-4, 0)), "turned offsets": _tensor(offsets=(4, 0)),
    "offsets beyond the end": _tensor(offsets=(0, 1 << 40)), "a shape of 2^62": _tensor(shape=(1 << 62,)),
    "a shape that wraps around": _tensor(shape=(1 << 32, 1 << 32, 1)),
    "nothing, 2^60 times": _tensor(shape=(0, 1 << 60), offsets=(0, 0)),
    "an unknown type": _tensor("F1"), "half bytes": _tensor("F4", (8,)),
    "overlapping": safetensors(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)
    ),
    "thousands of nothing": safetensors(
        {str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(15_000)}
    ),
    "none": safetensors({}), "other tensors": _tensor(), "a pickle": pickle.dumps({"a": 1}),
    "a zip": b"PK\x03\x04" * 9,
}  # fmt: skip

CASES = [
    *(Case(f"description: {name}", _instead("description", make)) for name, make in PLACES.items()),
    *(Case(f"weights: {name}", _instead(WEIGHTS, make)) for name, make in PLACES.items()),
    *(Case(f"description with {name}", _more(value)) for name, value in VALUES.items()),
    *(Case(f"weights of {name}", _weights(data)) for name, data in HEADERS.items()),
    Case("description of too many bytes", _instead("description", partial(_sparse, MAX_JSON_BYTES + 1))),
    Case("description of many terabytes", _instead("description", partial(_sparse, 1 << 43))),
    Case("weights of too many bytes", _instead(WEIGHTS, partial(_sparse, MAX_WEIGHTS_BYTES + 1))),
    Case("weights of many terabytes", _instead(WEIGHTS, partial(_sparse, 1 << 43))),
    Case("nothing described", _text(lambda _: "")),
    Case("described in UTF-16", lambda f: description(f).write_text(description(f).read_text(), "utf-16")),
    Case("described after a mark", _text(lambda text: "\ufeff" + text)),
    Case("described in part", _text(lambda text: text[: len(text) // 2])),
    Case("another weight", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1] + b"?")),
    Case("a hash that is a list", lambda f: change(f, lambda card: card.update(weights_sha256=["0"] * 64))),
    Case("a name that steers terminals", _escapes, ("grey", "factorized", "image")),
    *(
        Case(f"a network of {sizes}", _spec(**sizes), ("grey",))
        for sizes in (
            {"width": 1 << 13, "depth": 64}, {"latent_dim": 1 << 12, "width": 1 << 13}, {"width": 1 << 40},
            {"shape": [128, 128, 1]}, {"shape": [1 << 20, 1 << 20, 1]}, {"arch": "dcgan", "width": 256},
            {"arch": "patches", "features": 256, "shape": [128, 128, 1]}, {"depth": -1}, {"width": 1.5},
            {"arch": "fc", "width": 1 << 13}, {"slope_range": [2.0, 1e-320]}, {"arch": "../../escape"},
        )
    ),
    *(
        Case(f"a network of {sizes}", _spec(**sizes), ("latent",))
        for sizes in (
            {"width": 320, "latent_dim": 320, "classes": 256}, {"latent_dim": 1 << 40}, {"classes": 1 << 31},
            {"betas": [1.0] * 1000}, {"betas": list(range(1, 100))}, {"shape": [1 << 30, 1 << 30, 3]},
        )
    ),
    *(
        Case(f"a network of {sizes}", _spec(**sizes), ("factorized", "image"))
        for sizes in (
            {"width": 320, "latent_dim": 320}, {"kind": "hyperprior", "width": 320, "latent_dim": 320},
            {"kind": "vector", "shape": [1 << 14], "width": 4096}, {"width": 4096, "depth": 16},
            {"depth": 1 << 30}, {"kind": "block", "images_per_code": 1 << 10}, {"features": 1 << 40},
            {"maps": 256, "shape": [64, 64, 1]}, {"betas": [float(b) for b in range(1, 65)]},
            {"shape": [1 << 40]}, {"kind": "__class__"},
        )
    ),
    *(
        Case(f"{name} that is {value!r:.20}", partial(change, edit=partial(_put, name, value)), kinds)
        for name, kinds in (
            ("rungs", ("grey",)), ("generators", ("grey",)), ("default_num_candidates", ("grey",)),
            ("held_out", ("latent",)), ("chunk_codes", ("latent",)), ("default_seed", ("grey", "latent")),
            ("spec", ("latent", "factorized", "image")),
        )
        for value in (None, [], "", "x" * 100_000, -1, [[]] * 9999, 0.5)
    ),
]  # fmt: skip


def attempts() -> Iterator[tuple[Case, str]]:
    """Every case with every kind that it is meant for."""
    return ((case, kind) for case in CASES for kind in case.kinds)


def measure_hostile_bundles() -> dict[str, Any]:
    """Load every hostile bundle; counts by kind, and what went wrong with which.

    Returns:
        ``tried`` and ``failed`` by kind, ``failures`` (one line each), ``seconds``, and ``whole``: the kinds
        whose untouched bundle loads, as a control.
    """
    began = time.monotonic()
    tried, failed = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        write_kinds(Path(scratch) / "whole")
        for case, kind in attempts():
            folder = Path(shutil.copytree(Path(scratch) / "whole" / kind, Path(scratch) / "copy" / kind))
            case.spoil(folder)
            tried[kind] += 1
            if found := fault(folder, kind):
                failed[kind] += 1
                failures.append(f"{kind}: {case.name}: {found}")
            shutil.rmtree(folder)
        whole = [kind for kind in KINDS if fault(Path(scratch) / "whole" / kind, kind) == "loaded"]
    print(f"hostile bundles: {sum(tried.values())} tried, {len(failures)} not refused", file=sys.stderr)
    return {
        "tried": tried, "failed": failed, "failures": failures, "whole": whole,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
