"""Model bundles: a folder with ``model.json``, ``weights.safetensors`` and a card. Nothing is unpickled.

    model.json            version (2 where a stage has codes of shared indices), name, ladder, rates, index
                          codes, and the SHA-256 of the weights
    weights.safetensors   generators.<g>.<parameter> (float16; bases float32), priors.<name> (uint8),
                          prior_sums.<name> (int64; computed where an older bundle has none)
    README.md             the card, for people

The model's identity is the SHA-256 of ``model.json``, which pins everything else. What it is called is its
folder's name, whatever name it was made under. A bundle is input like any other: whatever its files hold,
loading them ends in a Model within bounds or in one line of ModelError.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rcccodec.description import DAMAGE, printable
from rcccodec.errors import ModelError, is_out_of_memory
from rcccodec.index_code.codebook_prior import CodebookPrior, block_sums
from rcccodec.model import (
    MAX_TILE_SIDE,
    JointCodes,
    Model,
    Rung,
    Stage,
    number,
    parse_stage,
    whole_number,
)
from rcccodec.model_search import (
    BUNDLE_VERSION,
    JOINT_BUNDLE_VERSION,
    LATENT_BUNDLE_VERSION,
    MAX_RUNGS,
    find_model,
    find_models,
    folder_name,
    list_models,
    model_path,
    parse_card,
    read_card,
    read_weights,
)
from rcccodec.stored_tensors import parse_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from rcccodec.latent.model import LatentModel
    from rcccodec.proposals.generator import Generator

__all__ = [
    "AnyModel", "JointCodes", "Model", "Rung", "Stage", "bundle_files", "find_model", "list_models",
    "load_model", "load_model_of", "load_one_shot", "model_path", "read_card", "rounded",
]  # fmt: skip

AnyModel: TypeAlias = "Model | LatentModel"

WEIGHTS = "weights.safetensors"
MAX_WEIGHTS_BYTES = 1 << 28
MAX_STAGES = 8
MAX_CANDIDATES = 1 << 24


def load_model(name_or_path: str | os.PathLike[str], *, for_images: bool = True) -> AnyModel:
    """Load a bundle of either kind, its weights checked against the hash that ``model.json`` gives.

    Args:
        for_images: refuse models that no codec can use: of vectors, or trained for another distortion than
            the squared error that the search minimises.

    Raises:
        ModelError: missing, damaged, out of bounds, of another version or not for images.

    Invariants: memory is bounded by the size of the files; the global random state is left as it was.
    """
    path = model_path(name_or_path)
    card, sha256 = parse_card(path)
    if for_images and card.get("channels") == 0:
        raise ModelError(f"{path}: a model of vectors, not of images")
    if for_images and card.get("distortion", "mse") != "mse":
        trained_for = printable(card["distortion"], 20)
        raise ModelError(f"{path}: trained for distortion {trained_for}; the codec needs mse")
    try:
        if card["bundle_version"] == LATENT_BUNDLE_VERSION:
            from rcccodec.latent.model import build_model

            return build_model(path, card, sha256)
        return _build(path, card, sha256)
    except DAMAGE as error:
        if is_out_of_memory(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path}: damaged model bundle ({printable(cause, 200)})") from error


def load_model_of(model_id: bytes) -> AnyModel:
    """Load the model whose SHA-256 begins with ``model_id``; of several copies, the first that is whole.

    Raises:
        ModelError: it is not installed, or every copy is damaged; said of the first.
    """
    failure: ModelError | None = None
    for path in find_models(model_id):
        try:
            return load_model(path)
        except ModelError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def load_one_shot(name_or_path: str | os.PathLike[str]) -> Model:
    """A bundle of generators.

    Raises:
        ModelError: as `load_model`, or it is one of latents.
    """
    model = load_model(name_or_path)
    if not isinstance(model, Model):
        raise ModelError(f"{name_or_path}: a model of latents, which this does not work with")
    return model


def _build(path: Path, card: dict[str, Any], sha256: str) -> Model:
    tensors = parse_tensors(read_weights(path / WEIGHTS, card, MAX_WEIGHTS_BYTES), path / WEIGHTS)
    if not 1 <= len(card["generators"]) <= MAX_RUNGS * MAX_STAGES:
        raise ValueError("number of generators out of bounds")
    if not 1 <= len(card["rungs"]) <= MAX_RUNGS:
        raise ValueError("number of rungs out of bounds")
    generators = [_generator(g, fields, tensors) for g, fields in enumerate(card["generators"])]
    num_candidates = whole_number(card, "default_num_candidates", 1, MAX_CANDIDATES)
    channels = whole_number(card, "channels", 0, 3)
    if channels == 2:
        raise ValueError("channels is 2")
    priors = {
        key.removeprefix("priors."): _prior(key, tensors, num_candidates)
        for key in tensors
        if key.startswith("priors.")
    }
    rungs = []
    for fields in card["rungs"]:
        if not 1 <= len(fields["stages"]) <= MAX_STAGES:
            raise ValueError("number of stages out of bounds")
        stages = [parse_stage(f, generators, priors, channels, num_candidates) for f in fields["stages"]]
        if card["bundle_version"] == BUNDLE_VERSION and any(s.joint is not None for s in stages):
            raise ValueError("codes of shared indices in a bundle of version 1")
        if any(math.lcm(*(s.block[axis] for s in stages)) > MAX_TILE_SIDE for axis in (0, 1)):
            raise ValueError("the blocks of a rung do not fit together")
        rungs.append(Rung(number(fields, "beta", positive=True), tuple(stages)))
    return Model(
        name=folder_name(path),
        sha256=sha256,
        channels=channels,
        rungs=tuple(rungs),
        default_rung=whole_number(card, "default_rung", 0, len(rungs) - 1),
        default_num_candidates=num_candidates,
        default_seed=whole_number(card, "default_seed", 0, (1 << 64) - 1),
        distortion=str(card.get("distortion", "mse")),
    )


def _generator(g: int, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
    """Generator ``g`` of the bundle, in float32; every tensor must be there, finite and of its shape."""
    import torch

    from rcccodec.proposals.generator import GeneratorSpec, build_generator

    with torch.device("meta"):  # shapes alone: no memory before they are known to be right
        generator = build_generator(GeneratorSpec.from_json(fields))
    prefix = f"generators.{g}."
    wanted = {prefix + name: blank for name, blank in generator.state_dict().items()}
    if unknown := {name for name in tensors if name.startswith(prefix)} - wanted.keys():
        raise ValueError(f"tensor {min(unknown)} is unknown")
    state = {}
    for name, blank in wanted.items():
        value = tensors[name]
        if value.shape != blank.shape or value.is_floating_point() != blank.is_floating_point():
            raise ValueError(f"tensor {name} is {value.dtype} {tuple(value.shape)}, not {tuple(blank.shape)}")
        state[name.removeprefix(prefix)] = value.to(blank.dtype)
        if not torch.isfinite(state[name.removeprefix(prefix)]).all():
            raise ValueError(f"tensor {name} is not finite")
    generator.load_state_dict(state, assign=True)
    return generator.eval().requires_grad_(False)


def _prior(key: str, tensors: dict[str, Tensor], num_candidates: int) -> CodebookPrior:
    levels, sums = tensors[key].numpy(), tensors.get(key.replace("priors.", "prior_sums.", 1))
    if levels.dtype != np.uint8 or levels.shape != (num_candidates,):
        raise ValueError(f"tensor {key} is {levels.dtype} {levels.shape}, not uint8 ({num_candidates},)")
    try:
        return CodebookPrior(levels, None if sums is None else sums.numpy())
    except ModelError as error:
        raise ValueError(f"tensor {key}: {error}") from error


def bundle_files(
    card: dict[str, Any], generators: list[Generator], priors: dict[str, NDArray[np.uint8]], readme: str
) -> dict[str, bytes]:
    """The bundle as file names and contents, for `rcccodec.atomic.write_folder`; model.json comes last.

    Args:
        card: all of model.json but version, generators and hashes. The version is 2 if a stage has ``joint``.
        generators: stored in float16; ``rounded`` gives what a reader will have.
        priors: uint8 (default_num_candidates,) each, by the names that stages give in ``priors``.
        readme: the card for people.

    Raises:
        ModelError: weights that float16 cannot hold.
    """
    import torch
    from safetensors.torch import save

    tensors = {
        f"generators.{g}.{name}": _stored(name, value.detach().cpu())
        for g, generator in enumerate(generators)
        for name, value in generator.state_dict().items()
    }
    if broken := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise ModelError(f"tensor {broken[0]} holds values that float16 cannot")
    tensors |= {f"priors.{name}": torch.from_numpy(levels) for name, levels in priors.items()}
    tensors |= {f"prior_sums.{name}": torch.from_numpy(block_sums(levels)) for name, levels in priors.items()}
    weights = save(tensors)
    joint = any(stage.get("joint") for rung in card.get("rungs", ()) for stage in rung["stages"])
    full = {
        "bundle_version": JOINT_BUNDLE_VERSION if joint else BUNDLE_VERSION,
        **card,
        "generators": [generator.spec.to_json() for generator in generators],
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(full, indent=1)
    return {WEIGHTS: weights, "README.md": readme.encode(), "model.json": text.encode()}


def rounded(generator: Generator) -> Generator:
    """A frozen copy whose weights are those that a bundle stores (float16 values in float32)."""
    import copy

    stored = copy.deepcopy(generator).cpu().eval().requires_grad_(False)
    for name, value in stored.state_dict().items():
        value.copy_(_stored(name, value))
    return stored


def _stored(name: str, value: Tensor) -> Tensor:
    """Weights in float16; means and bases in float32, whose orthonormality the search relies on."""
    import torch

    exact = name in ("mean", "basis") or not value.is_floating_point()
    return (value if exact else value.to(torch.float16)).contiguous()
