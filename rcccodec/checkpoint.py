"""Training checkpoints: tensors and plain values in one safetensors file, replaced atomically; no pickle.

A checksum of both is beside the values in the file's metadata; checkpoints from before it have none.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rcccodec.atomic import write_bytes
from rcccodec.description import DAMAGE, parse_json, printable
from rcccodec.errors import ModelError, OutputError

MAX_HEADER_BYTES = 1 << 24  # it has the values, some of which grow with a run


def save_checkpoint(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write ``tensors`` and JSON-able ``values`` to ``path``; a reader sees the old file or the new one.

    Raises:
        OutputError: the file cannot be written, or is a link out of its folder, which may be a stranger's.
    """
    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
        raise OutputError(f"{path}: a link to another folder; link the whole folder instead")
    stored, text = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, json.dumps(values)
    write_bytes(path, save(stored, {"values": text, "crc32": _checksum(stored, text)}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote: the tensors, on the CPU, and the values.

    Raises:
        ModelError: the file is missing, damaged or no checkpoint.
    """
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            values = parse_json(metadata["values"], finite=False)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.keys() != {"values"} and metadata["crc32"] != _checksum(tensors, metadata["values"]):
            raise ValueError("damaged: its checksum does not match")
    except (OSError, SafetensorError, *DAMAGE) as error:
        raise ModelError(f"{path}: not a readable checkpoint ({printable(error, 200)})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a readable checkpoint (no values)")
    return tensors, values


def steps_done(values: dict[str, Any], steps: int) -> int:
    """How many of ``steps`` a checkpoint's run had made; ValueError or the like where that is no number."""
    done = values["step"]
    if not isinstance(done, int) or not 0 <= done <= steps:
        raise ValueError(f"step {printable(done, 20)} of {steps}")
    return done


def seconds_spent(values: dict[str, Any]) -> float:
    """How long a checkpoint's run had taken; ValueError or the like for what is no such number."""
    seconds = float(values["seconds"])
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} seconds")
    return seconds


def fitting(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors``, if they have the names, shapes and types of ``wanted``; else ValueError."""
    if tensors.keys() != wanted.keys():
        raise ValueError(f"tensors missing or left over: {min(tensors.keys() ^ wanted.keys())}")
    for name, value in tensors.items():
        if (value.shape, value.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise ValueError(f"tensor {name} is {value.dtype} {tuple(value.shape)}")
    return tensors


def _check_header(path: Path) -> None:
    """ValueError for what is no plain file, or begins with the length of an enormous header."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block
        raise ValueError("not a plain file")
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {header_bytes} bytes")


def _checksum(tensors: dict[str, Tensor], values: str) -> str:
    """CRC-32 of the values' text, then of each tensor, by name: what it is and its bytes."""
    crc = zlib.crc32(values.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state (Adam: step and moments) as tensors named ``<parameter number>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, s in state.items() for name, value in s.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` took out of Adam; learning rates and the like stay as they are.

    Raises:
        ValueError: the names or shapes are not those of this optimizer's parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, _, name = key.partition(".")
        state.setdefault(int(i), {})[name] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entry in state.items():
        if not 0 <= i < len(parameters) or not _fits(entry, parameters[i]):
            raise ValueError(f"optimizer state {i} does not fit")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fits(entry: dict[str, Tensor], parameter: Tensor) -> bool:
    """Whether these are a count of steps and the two moments of a parameter, or nothing."""
    shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    return (
        entry.keys() <= shapes.keys()
        and all(
            tuple(value.shape) == tuple(shapes[name]) and value.is_floating_point()
            for name, value in entry.items()
        )
        and len(entry) in (0, len(shapes))
    )
