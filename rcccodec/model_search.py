"""Where model bundles lie and what they are called: parses no weights, imports neither torch nor NumPy."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcccodec.description import MAX_JSON_BYTES, parse_json, printable
from rcccodec.errors import InputError, ModelError
from rcccodec.plain_file import open_plain
from rcccodec.published_models import published

BUNDLE_VERSION, JOINT_BUNDLE_VERSION = 1, 2  # 2: a program that knows 1 alone would misread shared indices
LATENT_BUNDLE_VERSION = 3  # of another kind: `rcccodec.latent.model`
MODEL = "model.json"
MAX_RUNGS = 16  # that a file can name


def model_folders() -> list[Path]:
    """Where models are looked for: RCC_MODELS, the installed package, the source checkout."""
    here = Path(__file__).resolve().parent
    places = [Path(os.environ["RCC_MODELS"])] if os.environ.get("RCC_MODELS") else []
    return [p for p in (*places, here / "_models", here.parent / "models") if os.path.isdir(p)]


def list_models() -> list[str]:
    """Names of the models that can be found, sorted."""
    return sorted({file.parent.name for file in descriptions(MODEL)})


def descriptions(name: str) -> Iterator[Path]:
    """The files ``name`` of all bundles, in the order in which they are looked for.

    Folders that cannot be read, and hidden ones, which a killed writer may leave, are passed over.
    """
    for folder in model_folders():
        with contextlib.suppress(OSError):
            for bundle in sorted(os.listdir(folder)):
                if not bundle.startswith(".") and os.path.isfile(folder / bundle / name):
                    yield folder / bundle / name


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
    raise ModelError(f"{printable(name_or_path)}: no such model (found: {_names()})")


def folder_name(path: Path) -> str:
    """What the bundle at ``path`` is called: its folder's name, fit to print."""
    name = os.path.basename(os.path.abspath(path))  # "." and "a/.." have names too
    return printable(name)


def _is_bundle(path: Path) -> bool:
    return os.path.isfile(path / "model.json")  # False for names the system cannot even look up


@dataclass(frozen=True)
class KnownModel:
    """What can be said of a model whose hash begins as a file says.

    ``name``: that of its folder if it is installed, else of its release; None if it is no release of ours.
    ``sha256``: hex, whole if the model is known, else what the file has. ``folder``: None if not installed.
    ``earlier``: a later release has taken its name.
    """

    name: str | None
    sha256: str
    folder: Path | None = None
    earlier: bool = False

    def __str__(self) -> str:
        of_release = ", an earlier release" if self.earlier else ""
        return f"{self.name} ({self.sha256[:12]}{of_release})" if self.name else self.sha256[:12]


def identify(model_id: bytes, description: str = MODEL) -> KnownModel:
    """The model whose SHA-256 begins with ``model_id``: an installed one, else one ever published."""
    for file, sha256 in _found(model_id, description):
        return KnownModel(folder_name(file.parent), sha256, file.parent)
    if known := published(model_id):
        name, sha256, earlier = known
        return KnownModel(name, sha256, earlier=earlier)
    return KnownModel(None, model_id.hex())


def find_models(model_id: bytes) -> list[Path]:
    """The folders of the models whose SHA-256 begins with ``model_id``: at least one, the first to be tried
    first. Unreadable ones are passed over.

    Raises:
        ModelError: it is not among the models found.
    """
    if folders := [file.parent for file, _ in _found(model_id, MODEL)]:
        return folders
    raise ModelError(
        f"made with model {identify(model_id)}, which is not installed (found: {_names()}); "
        "name its folder with -m, or put it into a folder that RCC_MODELS names"
    )


def find_model(model_id: bytes) -> Path:
    """The first of `find_models`.

    Raises:
        ModelError: it is not among the models found.
    """
    return find_models(model_id)[0]


def wrong_model(model_id: bytes, name: str, sha256: str) -> ModelError:
    """The error of a file made with ``model_id`` that was to be read with the model ``name``."""
    if bytes.fromhex(sha256).startswith(model_id):
        return ModelError(f"made with a model of another kind than {name} ({sha256[:12]}), under its hash")
    return ModelError(f"made with model {identify(model_id)}, not {name} ({sha256[:12]})")


def _found(model_id: bytes, description: str) -> Iterator[tuple[Path, str]]:
    """Descriptions of that file name whose hash begins with ``model_id``, and the hash."""
    for file in descriptions(description):
        with contextlib.suppress(ModelError):
            digest = hashlib.sha256(read_bounded(file, MAX_JSON_BYTES))
            if digest.digest().startswith(model_id):
                yield file, digest.hexdigest()


def _names() -> str:
    return ", ".join(map(printable, list_models())) or "none"


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
        card = parse_json(data)
    except ValueError as error:
        raise ModelError(f"{file}: not a model description ({printable(error, 200)})") from error
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
        with open_plain(file, limit) as stream:
            return stream.read(os.fstat(stream.fileno()).st_size)
    except InputError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from error


def read_weights(file: Path, card: dict[str, Any], limit: int) -> bytes:
    """The content of a bundle's file of weights, held against the hash that its description ``card`` gives.

    Raises:
        ModelError: missing, larger than ``limit`` bytes, or another file. KeyError: no hash.
    """
    data = read_bounded(file, limit)
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise ModelError(f"{file}: its hash is not the one in the description beside it")
    return data
