"""Model bundles: a folder with ``model.json``, ``weights.safetensors`` and a card. Nothing is unpickled.

    model.json            version (2 where a stage has codes of shared indices), name, ladder, rates, index
                          codes, and the SHA-256 of the weights
    weights.safetensors   generators.<g>.<parameter> (float16; bases float32), priors.<name> (uint8),
                          prior_sums.<name> (int64; computed where an older bundle has none)
    README.md             the card, for people

The model's identity is the SHA-256 of ``model.json``, which pins everything else. A bundle is input like any
other: whatever its files hold, loading them ends in a Model within bounds or in one line of ModelError.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import ModelError
from rcccodec.index_code.codebook_prior import CodebookPrior, block_sums
from rcccodec.index_code.fitted import FittedCode
from rcccodec.joint import MAX_JOINT_BLOCKS, joint_size
from rcccodec.model_search import (
    BUNDLE_VERSION,
    JOINT_BUNDLE_VERSION,
    find_model,
    list_models,
    model_path,
    parse_card,
    read_bounded,
    read_card,
)

if TYPE_CHECKING:
    from torch import Tensor

    from rcccodec.proposals.generator import Generator, GeneratorProposal

__all__ = [
    "JointCodes", "Model", "Rung", "Stage", "bundle_files", "find_model", "list_models", "load_model",
    "model_path", "read_card", "read_weights", "rounded",
]  # fmt: skip

WEIGHTS = "weights.safetensors"
MAX_WEIGHTS_BYTES = 1 << 28
MAX_RUNGS, MAX_STAGES = 16, 8
MAX_CANDIDATES = 1 << 24
MAX_SLOPE = 1e9  # float32 scores must stay finite
MAX_TILE_SIDE = 512  # of the rectangle that the blocks of all stages divide


@dataclass(frozen=True)
class JointCodes:
    """The index codes of what ``size`` blocks share; ``fitted`` and ``priors`` as a stage has its own."""

    size: int
    fitted: dict[str, list[int]]
    priors: dict[str, CodebookPrior]


@dataclass(frozen=True)
class Stage:
    """One search of a rung: what it codes, at which slope, and what that costs.

    ``rate_bits`` and ``distortion`` are the held-out NERD estimates of one block, given the stages before.
    ``fitted`` maps a coder's name to the class frequencies of FittedCode; ``priors``, to the code of what it
    chooses from the codebook of the model's default seed and number of candidates, and from no other.
    ``joint`` has those of indices that blocks share at that number; None where none do, or in older bundles.
    """

    block: tuple[int, int]
    beta: float
    rate_bits: float
    distortion: float
    zipf_rate_millibits: int
    fitted: dict[str, list[int]]
    priors: dict[str, CodebookPrior]
    joint: JointCodes | None
    generator: Generator

    def proposal(self, device: str = "cpu") -> GeneratorProposal:
        """Q_Y of this stage with its slope folded in, on ``device``."""
        from rcccodec.proposals.generator import GeneratorProposal

        return GeneratorProposal(self.generator.at_slope(self.beta), device)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the slope of its last stage and all its stages, coarse to fine."""

    beta: float
    stages: tuple[Stage, ...]

    @property
    def rate_bpp(self) -> float:
        """The model's own R of all stages, in bits a pixel."""
        return sum(stage.rate_bits / math.prod(stage.block) for stage in self.stages)


@dataclass(frozen=True)
class Model:
    """A loaded bundle.

    ``channels``: 1 or 3, or 0 for a model of vectors. ``distortion``: trained for it, ``mse`` or ``lp:P``.
    """

    name: str
    sha256: str
    channels: int
    rungs: tuple[Rung, ...]
    default_rung: int
    default_num_candidates: int
    default_seed: int
    distortion: str = "mse"


def read_weights(path: Path, card: dict[str, Any]) -> bytes:
    """The weights' file of the bundle at ``path``, held against the hash in ``model.json``.

    Raises:
        ModelError: missing, too large or another file.
    """
    data = read_bounded(path / WEIGHTS, MAX_WEIGHTS_BYTES)
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise ModelError(f"{path / WEIGHTS}: its hash is not the one in model.json")
    return data


def load_model(name_or_path: str | os.PathLike[str], *, for_images: bool = True) -> Model:
    """Load a bundle, its weights checked against the hash that ``model.json`` gives.

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
        raise ModelError(f"{path}: trained for distortion {card['distortion']!s:.20}; the codec needs mse")
    try:
        return _build(path, card, sha256)
    except _DAMAGE as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path}: damaged model bundle ({cause:.200})") from error


# what reading a description of the wrong shape can raise before a check of ours does
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError)


def _build(path: Path, card: dict[str, Any], sha256: str) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_weights(path, card)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ModelError(f"{path / WEIGHTS}: not readable ({error})") from error
    del data
    if not 1 <= len(card["generators"]) <= MAX_RUNGS * MAX_STAGES:
        raise ValueError("number of generators out of bounds")
    if not 1 <= len(card["rungs"]) <= MAX_RUNGS:
        raise ValueError("number of rungs out of bounds")
    generators = [_generator(g, fields, tensors) for g, fields in enumerate(card["generators"])]
    num_candidates = _integer(card, "default_num_candidates", 1, MAX_CANDIDATES)
    channels = _integer(card, "channels", 0, 3)
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
        stages = [_stage(f, generators, priors, channels, num_candidates) for f in fields["stages"]]
        if card["bundle_version"] == BUNDLE_VERSION and any(s.joint is not None for s in stages):
            raise ValueError("codes of shared indices in a bundle of version 1")
        if any(math.lcm(*(s.block[axis] for s in stages)) > MAX_TILE_SIDE for axis in (0, 1)):
            raise ValueError("the blocks of a rung do not fit together")
        rungs.append(Rung(_number(fields, "beta", positive=True), tuple(stages)))
    return Model(
        name="".join(c if c.isprintable() else "?" for c in str(card["name"])[:255]),
        sha256=sha256,
        channels=channels,
        rungs=tuple(rungs),
        default_rung=_integer(card, "default_rung", 0, len(rungs) - 1),
        default_num_candidates=num_candidates,
        default_seed=_integer(card, "default_seed", 0, (1 << 64) - 1),
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


def _stage(
    fields: dict[str, Any],
    generators: list[Generator],
    priors: dict[str, CodebookPrior],
    channels: int,
    num_candidates: int,
) -> Stage:
    block = {"h": fields["block"][0], "w": fields["block"][1]}
    height, width = (_integer(block, axis, 1, MAX_TILE_SIDE) for axis in "hw")
    generator = generators[_integer(fields, "generator", 0, len(generators) - 1)]
    if channels and generator.spec.shape != (height, width, channels):
        raise ValueError("a stage's block is not what its generator makes")
    names = dict(fields.get("priors", {"mincost": fields.get("prior")}))  # older bundles have one, min-cost's
    if not fields["beta"] <= MAX_SLOPE:
        raise ValueError(f"beta must be at most {MAX_SLOPE:g}")
    if not fields["rate_bits"] > -1:  # log2(R + 1) of the guarantee needs this; an estimate is 0 at least
        raise ValueError("rate_bits must not be negative")
    rate_millibits = _integer(fields, "zipf_rate_millibits", 0, 1 << 31)
    joint = fields.get("joint")
    return Stage(
        block=(height, width),
        beta=_number(fields, "beta", positive=True),
        rate_bits=_number(fields, "rate_bits"),
        distortion=_number(fields, "distortion"),
        zipf_rate_millibits=rate_millibits,
        fitted=_fitted(fields["fitted"]),
        priors=_named(names, priors),
        joint=None if joint is None else _joint(joint, priors, num_candidates, rate_millibits),
        generator=generator,
    )


def _joint(
    fields: dict[str, Any], priors: dict[str, CodebookPrior], num_candidates: int, rate_millibits: int
) -> JointCodes:
    """A stage's codes of shared indices, which must be those of the model's N and of as many blocks."""
    wanted = joint_size(num_candidates, rate_millibits)
    _integer(fields, "num_candidates", num_candidates, num_candidates)
    size = _integer(fields, "blocks", 2, MAX_JOINT_BLOCKS)
    if size != wanted:
        raise ValueError(f"codes of {size} blocks an index, but {num_candidates} candidates carry {wanted}")
    fitted = _fitted(fields["fitted"])
    try:
        for row in fitted.values():
            FittedCode(row, num_candidates)
    except ModelError as error:
        raise ValueError(f"codes of shared indices: {error}") from error
    return JointCodes(size, fitted, _named(dict(fields["priors"]), priors))


def _fitted(fields: dict[str, Any]) -> dict[str, list[int]]:
    fitted = {str(coder): list(row) for coder, row in fields.items()}
    if not all(isinstance(frequency, int) for row in fitted.values() for frequency in row):
        raise ValueError("a fitted code's frequencies are not whole numbers")
    return fitted


def _named(names: dict[Any, Any], priors: dict[str, CodebookPrior]) -> dict[str, CodebookPrior]:
    """The priors by coder; null is none."""
    if unknown := {str(name) for name in names.values() if name is not None} - priors.keys():
        raise ValueError(f"tensor priors.{min(unknown)} is missing")
    return {str(coder): priors[str(name)] for coder, name in names.items() if name is not None}


def _integer(fields: dict[str, Any], key: str, low: int, high: int) -> int:
    value = fields[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{key} must be a whole number from {low} to {high}")
    return value


def _number(fields: dict[str, Any], key: str, *, positive: bool = False) -> float:
    value = fields[key]
    if not isinstance(value, int | float) or not math.isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{key} must be a {'positive' if positive else 'finite'} number")
    return float(value)


def bundle_files(
    card: dict[str, Any], generators: list[Generator], priors: dict[str, NDArray[np.uint8]], readme: str
) -> dict[str, bytes]:
    """The bundle as file names and contents, for `rcccodec.atomic.write_folder`.

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
    return {"model.json": text.encode(), "weights.safetensors": weights, "README.md": readme.encode()}


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
