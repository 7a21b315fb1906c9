"""Tensors of a safetensors file that is in memory already and has the hash that was wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rcccodec.description import DAMAGE, printable
from rcccodec.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 1 << 20  # a hundred times what any bundle of ours has


def parse_tensors(data: bytes, file: Path) -> dict[str, Tensor]:
    """The tensors of the content ``data`` of ``file``, by name; nothing is unpickled.

    Raises:
        ModelError: not a safetensors file, or one with a header of more than MAX_HEADER_BYTES.

    Invariant: memory is a small multiple of ``len(data)``, whatever shapes its header claims.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ModelError(f"{file}: not readable (a header of {header_bytes} bytes)")
    try:
        return load(data)
    except (SafetensorError, *DAMAGE) as error:
        raise ModelError(f"{file}: not readable ({printable(error, 200)})") from error
