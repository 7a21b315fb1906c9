"""Training checkpoints: tensors and plain values in one safetensors file, replaced atomically; no pickle.

A checksum of both is beside the values in the file's metadata; checkpoints from before it have none.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rcccodec.atomic import write_bytes
from rcccodec.errors import ModelError


def save_checkpoint(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write ``tensors`` and JSON-able ``values`` to ``path``; a reader sees the old file or the new one.

    Raises:
        OutputError: the file cannot be written.
    """
    stored, text = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, json.dumps(values)
    write_bytes(path, save(stored, {"values": text, "crc32": _checksum(stored, text)}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote: the tensors, on the CPU, and the values.

    Raises:
        ModelError: the file is missing, damaged or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            values = json.loads(metadata["values"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.keys() != {"values"} and metadata["crc32"] != _checksum(tensors, metadata["values"]):
            raise ValueError("damaged: its checksum does not match")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a readable checkpoint (no values)")
    return tensors, values


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
    """Put back what ``optimizer_tensors`` took out; learning rates and the like stay as they are.

    Raises:
        KeyError, ValueError: the names or shapes are not those of this optimizer's parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entry in state.items():
        if not 0 <= i < len(parameters) or any(
            v.dim() and v.shape != parameters[i].shape for v in entry.values()
        ):
            raise ValueError(f"optimizer state {i} does not fit")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
