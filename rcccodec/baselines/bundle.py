"""Baseline bundles: a folder with ``baseline.json``, ``weights.safetensors`` and a card.

    baseline.json         kind, sizes, slopes, source, command, held-out R and D, SHA-256 of the weights
    weights.safetensors   network.<parameter> (float16, or int8 with network.scale.<parameter>);
                          tables.<name>.{cdfs,lengths,offsets} (int32)
    README.md             the card, for people

The identity of a baseline is the SHA-256 of ``baseline.json``, which pins the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcccodec.description import DAMAGE, MAX_JSON_BYTES, parse_json, printable
from rcccodec.errors import ModelError, is_out_of_memory
from rcccodec.model_search import descriptions, model_folders, read_bounded, read_weights
from rcccodec.stored_tensors import parse_tensors

if TYPE_CHECKING:
    from rcccodec.baselines.networks import Network
    from rcccodec.baselines.spec import NtcSpec
    from rcccodec.baselines.tables import Tables

BUNDLE_VERSION = 1
DESCRIPTION, WEIGHTS = "baseline.json", "weights.safetensors"
MAX_WEIGHTS_BYTES = 1 << 28
_TABLE_FIELDS = ("cdfs", "lengths", "offsets")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; ``card`` is ``baseline.json`` as plain values."""

    name: str
    sha256: str
    card: dict[str, Any]
    spec: NtcSpec
    network: Network
    tables: dict[str, Tables]


def bundle_files(
    card: dict[str, Any], network: Network, tables: dict[str, Tables], *, compact: bool = False
) -> dict[str, bytes]:
    """The files of a bundle but its card; ``network`` holds weights rounded by ``round_to_stored``.

    Args:
        card: fields of ``baseline.json``, less version, spec and hash.
        compact: large matrices in int8.
    """
    import torch
    from safetensors.torch import save

    from rcccodec.baselines.networks import stored_tensors

    tensors = {f"network.{name}": t for name, t in stored_tensors(network, compact=compact).items()}
    for which, rows in tables.items():
        for field in _TABLE_FIELDS:
            tensors[f"tables.{which}.{field}"] = torch.from_numpy(getattr(rows, field))
    weights = save(tensors)
    described = {
        "baseline_version": BUNDLE_VERSION,
        **card,
        "spec": network.spec.to_json(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return {WEIGHTS: weights, DESCRIPTION: (json.dumps(described, indent=1) + "\n").encode()}


def load_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Load a bundle, its weights checked against the hash in ``baseline.json``.

    Raises:
        ModelError: missing, damaged, out of bounds or of another version. InputError: no CompressAI.
    """
    path = bundle_path(name_or_path)
    file = path / DESCRIPTION
    data = read_bounded(file, MAX_JSON_BYTES)
    try:
        card = parse_json(data)
    except ValueError as error:
        raise ModelError(f"{file}: not a description of a baseline ({printable(error, 200)})") from error
    if not isinstance(card, dict) or card.get("baseline_version") != BUNDLE_VERSION:
        raise ModelError(f"{file}: not a description of a baseline of version {BUNDLE_VERSION}")
    try:
        return _build(path, card, hashlib.sha256(data).hexdigest())
    except DAMAGE as error:
        if is_out_of_memory(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path}: damaged baseline ({printable(cause, 200)})") from error


def _build(path: Path, card: dict[str, Any], sha256: str) -> Bundle:
    from rcccodec.baselines.networks import loaded_tensors, with_weights
    from rcccodec.baselines.spec import NtcSpec
    from rcccodec.baselines.tables import Tables

    tensors = parse_tensors(read_weights(path / WEIGHTS, card, MAX_WEIGHTS_BYTES), path / WEIGHTS)
    spec = NtcSpec.from_json(card["spec"])
    weights = {k.removeprefix("network."): t for k, t in tensors.items() if k.startswith("network.")}
    network = with_weights(spec, loaded_tensors(weights))
    tables = {}
    for which, rows in _rows_wanted(spec).items():
        tables[which] = Tables(*(tensors[f"tables.{which}.{field}"].numpy() for field in _TABLE_FIELDS))
        if len(tables[which].cdfs) != rows:
            raise ValueError(f"tables {which} have {len(tables[which].cdfs)} rows, not {rows}")
    return Bundle(printable(card["name"], 100), sha256, card, spec, network, tables)


def _rows_wanted(spec: NtcSpec) -> dict[str, int]:
    from rcccodec.baselines.photo import SCALES

    slopes = len(spec.betas)
    if spec.kind == "hyperprior":
        return {"hyper": slopes * spec.width, "latents": len(SCALES)}
    return {"latents": slopes * spec.latent_dim}


def bundle_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a baseline.

    Raises:
        ModelError: there is none; the message lists those there are.
    """
    as_path = Path(name_or_path)
    places = [as_path]
    if as_path.name == str(name_or_path):
        places += [folder / as_path for folder in model_folders()]
    for place in places:
        if os.path.isfile(place / DESCRIPTION):  # False for names the system cannot even look up
            return place
    known = ", ".join(map(printable, list_bundles())) or "none"
    raise ModelError(f"{printable(name_or_path)}: no such baseline (found: {known})")


def list_bundles() -> list[str]:
    """Names of the baselines that can be found, sorted."""
    return sorted({file.parent.name for file in descriptions(DESCRIPTION)})
