"""Where model bundles lie and what they are called: reads no weights, imports neither torch nor NumPy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from rcccodec.errors import ModelError

BUNDLE_VERSION, JOINT_BUNDLE_VERSION = 1, 2  # 2: a program that knows 1 alone would misread shared indices
LATENT_BUNDLE_VERSION = 3  # of another kind: `rcccodec.latent.model`
MAX_JSON_BYTES = 1 << 24


def model_folders() -> list[Path]:
    """Where models are looked for: RCC_MODELS, the installed package, the source checkout."""
    here = Path(__file__).resolve().parent
    places = [Path(os.environ["RCC_MODELS"])] if os.environ.get("RCC_MODELS") else []
    return [p for p in (*places, here / "_models", here.parent / "models") if p.is_dir()]


def list_models() -> list[str]:
    """Names of the models that can be found, sorted."""
    return sorted(
        {p.parent.name for folder in model_folders() for p in folder.glob("*/model.json") if p.is_file()}
    )


def model_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The bundle's folder for a name or a path.

    Raises:
        ModelError: there is none; the message lists those there are.
    """
    as_path = Path(name_or_path)
    if _is_bundle(as_path):
        return as_path
    if as_path.name == str(name_or_path):
        for folder in model_folders():
            if _is_bundle(folder / as_path):
                return folder / as_path
    known = ", ".join(list_models()) or "none"
    raise ModelError(f"{name_or_path}: no such model (found: {known})")


def folder_name(path: Path) -> str:
    """What the bundle at ``path`` is called: its folder's name, fit to print."""
    name = os.path.basename(os.path.abspath(path))  # "." and "a/.." have names too
    return "".join(c if c.isprintable() else "?" for c in name)


def _is_bundle(path: Path) -> bool:
    return os.path.isfile(path / "model.json")  # False for names the system cannot even look up


def find_model(model_id: bytes) -> Path:
    """The folder of the model whose SHA-256 begins with ``model_id``; unreadable ones are passed over.

    Raises:
        ModelError: it is not among the models found.
    """
    for folder in model_folders():
        for file in sorted(folder.glob("*/model.json")):
            with contextlib.suppress(ModelError):
                if hashlib.sha256(read_bounded(file, MAX_JSON_BYTES)).digest().startswith(model_id):
                    return file.parent
    raise ModelError(
        f"the file was made with model {model_id.hex()}, which is not among those found "
        f"({', '.join(list_models()) or 'none'}); name its folder with --model"
    )


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """``model.json`` as plain values.

    Raises:
        ModelError: missing, damaged or of another version.
    """
    return parse_card(model_path(name_or_path))[0]


def parse_card(path: Path) -> tuple[dict[str, Any], str]:
    """``model.json`` of the bundle at ``path``, and its SHA-256, which is the model's identity.

    Raises:
        ModelError: as `read_card`.
    """
    file = path / "model.json"
    data = read_bounded(file, MAX_JSON_BYTES)
    try:
        card = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not a model description ({error})") from error
    known = BUNDLE_VERSION, JOINT_BUNDLE_VERSION, LATENT_BUNDLE_VERSION
    if not isinstance(card, dict) or card.get("bundle_version") not in known:
        raise ModelError(f"{file}: not a model description of version {known[0]} to {known[-1]}")
    return card, hashlib.sha256(data).hexdigest()


def read_bounded(file: Path, limit: int) -> bytes:
    """The content of a plain file of at most ``limit`` bytes.

    Raises:
        ModelError: it is missing, unreadable, too large, or a pipe or device.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device would never end
            raise ModelError(f"{file}: not a plain file")
        if status.st_size > limit:
            raise ModelError(f"{file}: {status.st_size} bytes, more than the {limit} a model may have there")
        with open(file, "rb") as stream:
            return stream.read(status.st_size)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from error
