"""A latent model as a bundle: ``model.json``, ``weights.safetensors`` and a card, as other models are.

    model.json            bundle_version 3, kind "latent", sizes, slopes, held-out figures, index
                          codes of chunks, and the SHA-256 of the weights; its own hash is the identity
    weights.safetensors   network.<parameter>, centre, log_scale (float16); rates_millibits (int32);
                          left, up (int16)

Everything that parsing depends on is an integer here.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rcccodec.errors import ModelError
from rcccodec.latent.class_code import ClassCode
from rcccodec.latent.network import CODING, LatentNetwork
from rcccodec.latent.prior import SlopePrior
from rcccodec.latent.spec import LatentSpec
from rcccodec.model import number
from rcccodec.model_search import LATENT_BUNDLE_VERSION, folder_name, read_weights
from rcccodec.stored_tensors import parse_tensors
from rcccodec.threads import one_thread

WEIGHTS = "weights.safetensors"
MAX_WEIGHTS_BYTES = 1 << 26
MAX_RATE_MILLIBITS = 64_000
MAX_LOG_SCALE, MAX_CENTRE = 20.0, 65504.0  # float16's largest: what a bundle of ours holds
_PRIOR_FIELDS = ("centre", "log_scale", "rates_millibits", "left", "up")


@dataclass(frozen=True)
class LatentRung:
    """A slope, and what it costs on held-out pictures."""

    beta: float
    rate_bpp: float


@dataclass(frozen=True)
class LatentModel:
    """A loaded model.

    ``priors``, ``rungs``: one for each slope. ``chunk_codes``: class frequencies of the index codes of
    chunks, by coder and budget in bits.
    """

    name: str
    sha256: str
    spec: LatentSpec
    network: LatentNetwork
    priors: tuple[SlopePrior, ...]
    rungs: tuple[LatentRung, ...]
    default_rung: int
    default_seed: int
    chunk_codes: dict[str, dict[int, list[int]]]
    channels: int = 3


def stored_network(network: LatentNetwork) -> LatentNetwork:
    """A copy whose weights for coding are those that a bundle stores (float16 values in float32)."""
    stored = copy.deepcopy(network)
    for value in coding_tensors(stored).values():
        value.copy_(value.to(torch.float16))
    return stored


def assemble(network: LatentNetwork, tables: dict[str, Tensor]) -> LatentModel:
    """A model that is in no file yet, without index codes of chunks; tables as in `rcccodec.latent.fit`."""
    spec = replace(network.spec, classes=tables["centre"].shape[1])
    coding = copy.deepcopy(network)
    coding.spec = spec
    coding.drop_classes()
    slopes = range(len(spec.betas))
    return LatentModel(
        "", "0" * 64, spec, coding, tuple(_prior(spec, tables, k) for k in slopes),
        tuple(LatentRung(beta, 1.0) for beta in spec.betas), 0, 0, {},
    )  # fmt: skip


def bundle_files(card: dict[str, Any], model: LatentModel, tables: dict[str, Tensor]) -> dict[str, bytes]:
    """The bundle but its card, as file names and contents; model.json, which makes it one, comes last.

    Args:
        card: all of model.json but version, kind, spec and hash.
        model: of ``stored_network`` and these tables.

    Raises:
        ModelError: weights that float16 cannot hold.
    """
    from safetensors.torch import save

    coding = coding_tensors(model.network)
    tensors = {f"network.{name}": t.to(torch.float16).contiguous() for name, t in coding.items()}
    tensors |= {name: tables[name].contiguous() for name in _PRIOR_FIELDS}
    if broken := [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise ModelError(f"tensor {broken[0]} holds values that float16 cannot")
    weights = save(tensors)
    full = {
        "bundle_version": LATENT_BUNDLE_VERSION,
        "kind": "latent",
        **card,
        "channels": 3,
        "spec": model.spec.to_json(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return {WEIGHTS: weights, "model.json": json.dumps(full, indent=1).encode()}


def coding_tensors(network: LatentNetwork) -> dict[str, Tensor]:
    """The parameters that coding needs, as views: all but the classes, which are in tables."""
    return {name: p.data for name, p in network.named_parameters() if name.startswith(CODING)}


def build_model(path: Path, card: dict[str, Any], sha256: str) -> LatentModel:
    """The model of a parsed ``model.json`` at ``path``.

    Raises:
        ModelError: weights that are missing or another file. KeyError, TypeError, ValueError and the like:
        a description out of bounds, for the caller to name.
    """
    tensors = parse_tensors(read_weights(path / WEIGHTS, card, MAX_WEIGHTS_BYTES), path / WEIGHTS)
    spec = LatentSpec.from_json(card["spec"])
    slopes = len(spec.betas)
    return LatentModel(
        name=folder_name(path),
        sha256=sha256,
        spec=spec,
        network=_network(spec, tensors),
        priors=tuple(_prior(spec, tensors, k) for k in range(slopes)),
        rungs=tuple(
            LatentRung(beta, number(row, "rate_bpp", positive=True))
            for beta, row in zip(spec.betas, card["held_out"], strict=True)
        ),
        default_rung=_whole(card["default_rung"], 0, slopes - 1),
        default_seed=_whole(card["default_seed"], 0, (1 << 64) - 1),
        chunk_codes={
            str(coder): {
                _whole(int(bits), 1, 40): [_whole(f, 1, 1 << 16) for f in row] for bits, row in rows.items()
            }
            for coder, rows in card["chunk_codes"].items()
        },
    )


def _network(spec: LatentSpec, tensors: dict[str, Tensor]) -> LatentNetwork:
    with torch.device("meta"):  # shapes alone: no memory before they are known to be right
        network = LatentNetwork(spec)
    state = {}
    for name, blank in coding_tensors(network).items():
        value = tensors[f"network.{name}"]
        if (
            value.shape != blank.shape
            or not value.is_floating_point()
            or not torch.isfinite(value.float()).all()
        ):
            raise ValueError(f"tensor network.{name} is {value.dtype} {tuple(value.shape)}, or not finite")
        state[name] = value.float()
    network.load_state_dict(state, strict=False, assign=True)
    network.drop_classes()
    return network.eval().requires_grad_(False)


@one_thread()  # which exponentials are of a vector's end depends on their number
def _prior(spec: LatentSpec, tensors: dict[str, Tensor], slope: int) -> SlopePrior:
    slopes, shape = len(spec.betas), (spec.classes, spec.latent_dim)
    for name in _PRIOR_FIELDS:
        wanted = (slopes, spec.classes + 1, spec.classes) if name in ("left", "up") else (slopes, *shape)
        if tuple(tensors[name].shape) != wanted or not torch.isfinite(tensors[name].float()).all():
            raise ValueError(f"tensor {name} is {tuple(tensors[name].shape)}, not {wanted}, or not finite")
    rates = tensors["rates_millibits"][slope]
    if rates.dtype != torch.int32 or int(rates.min()) < 0 or int(rates.max()) > MAX_RATE_MILLIBITS:
        raise ValueError("rates out of bounds")
    log_scale = tensors["log_scale"][slope].float()
    if float(log_scale.abs().max()) > MAX_LOG_SCALE:
        raise ValueError("scales out of bounds")
    centre = tensors["centre"][slope].float()
    if float(centre.abs().max()) > MAX_CENTRE:
        raise ValueError("centres out of bounds")
    code = ClassCode(tensors["left"][slope].numpy(), tensors["up"][slope].numpy())
    return SlopePrior(centre, log_scale.exp(), rates.numpy().astype("int64"), code)


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is no whole number from {low} to {high}")
    return value
