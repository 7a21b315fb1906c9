"""Model bundles: a folder with ``model.json``, ``weights.safetensors`` and a card, named by a hash; nothing is unpickled.

    model.json            name, ladder, rates, index codes, and the SHA-256 of the weights
    weights.safetensors   generators.<g>.<parameter> (float16; bases float32), priors.<name> (uint8)
    README.md             the card, for people

The model's identity is the SHA-256 of ``model.json``, which pins everything else.
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

if TYPE_CHECKING:
    from torch import Tensor

    from rcccodec.proposals.generator import Generator, GeneratorProposal

BUNDLE_VERSION = 1
MAX_JSON_BYTES = 1 << 24
MAX_WEIGHTS_BYTES = 1 << 30
MAX_RUNGS, MAX_STAGES = 16, 8


@dataclass(frozen=True)
class Stage:
    """One search of a rung: what it codes, at which slope, and what that costs.

    ``rate_bits`` and ``distortion`` are the held-out NERD estimates of one block, given the stages before.
    ``fitted`` maps a coder's name to the class frequencies of FittedCode; ``prior_levels`` (N,) belong to the
    model's default seed and number of candidates only.
    """

    block: tuple[int, int]
    beta: float
    rate_bits: float
    distortion: float
    zipf_rate_millibits: int
    fitted: dict[str, list[int]]
    prior_levels: NDArray[np.uint8] | None
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


@dataclass(frozen=True)
class Model:
    """A loaded bundle."""

    name: str
    sha256: str
    channels: int
    rungs: tuple[Rung, ...]
    default_rung: int
    default_num_candidates: int
    default_seed: int


def model_folders() -> list[Path]:
    """Where models are looked for: RCC_MODELS, the installed package, the source checkout."""
    here = Path(__file__).resolve().parent
    places = [Path(os.environ["RCC_MODELS"])] if os.environ.get("RCC_MODELS") else []
    return [p for p in (*places, here / "_models", here.parent / "models") if p.is_dir()]


def list_models() -> list[str]:
    """Names of the models that can be found, sorted."""
    return sorted({p.parent.name for folder in model_folders() for p in folder.glob("*/model.json")})


def model_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The bundle's folder for a name or a path.

    Raises:
        ModelError: there is none; the message lists those there are.
    """
    as_path = Path(name_or_path)
    if (as_path / "model.json").is_file():
        return as_path
    if as_path.name == str(name_or_path):
        for folder in model_folders():
            if (folder / as_path / "model.json").is_file():
                return folder / as_path
    known = ", ".join(list_models()) or "none"
    raise ModelError(f"{name_or_path}: no such model (found: {known})")


def find_model(model_id: bytes) -> Path:
    """The folder of the model whose SHA-256 begins with ``model_id``.

    Raises:
        ModelError: it is not among the models found.
    """
    for folder in model_folders():
        for path in sorted(folder.glob("*/model.json")):
            if hashlib.sha256(path.read_bytes()).digest().startswith(model_id):
                return path.parent
    raise ModelError(
        f"the file was made with model {model_id.hex()}, which is not among those found "
        f"({', '.join(list_models()) or 'none'}); name its folder with --model"
    )


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """``model.json`` as plain values, without loading weights (or torch).

    Raises:
        ModelError: missing, damaged or of another version.
    """
    return _parse(model_path(name_or_path))[0]


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a bundle, its weights checked against the hash that ``model.json`` gives.

    Raises:
        ModelError: missing, damaged, out of bounds or of another version.
    """
    path = model_path(name_or_path)
    card, sha256 = _parse(path)
    try:
        return _build(path, card, sha256)
    except ModelError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{path}: damaged model bundle ({type(error).__name__}: {error})") from error


def _parse(path: Path) -> tuple[dict[str, Any], str]:
    file = path / "model.json"
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{file}: too large for a model description")
        data = file.read_bytes()
        card = json.loads(data)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not a model description ({error})") from error
    if not isinstance(card, dict) or card.get("bundle_version") != BUNDLE_VERSION:
        raise ModelError(f"{file}: not a model description of version {BUNDLE_VERSION}")
    return card, hashlib.sha256(data).hexdigest()


def _build(path: Path, card: dict[str, Any], sha256: str) -> Model:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from rcccodec.proposals.generator import GeneratorSpec, build_generator

    file = path / "weights.safetensors"
    try:
        if file.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ModelError(f"{file}: too large")
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise ModelError(f"{file}: its hash is not the one in model.json")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ModelError(f"{file}: not readable ({error})") from error
    generators = []
    for g, fields in enumerate(card["generators"]):
        spec = GeneratorSpec.from_json(fields)
        with torch.device("meta"):
            generator = build_generator(spec)
        prefix = f"generators.{g}."
        state = {
            k.removeprefix(prefix): v.float() if v.is_floating_point() else v
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
        generator.load_state_dict(state, assign=True)
        generators.append(generator.eval().requires_grad_(False))
    rungs = []
    for rung in card["rungs"]:
        stages = [_stage(fields, tensors, generators) for fields in rung["stages"]]
        if not 1 <= len(stages) <= MAX_STAGES:
            raise ValueError("number of stages out of bounds")
        rungs.append(Rung(float(rung["beta"]), tuple(stages)))
    channels, default_rung = card["channels"], card["default_rung"]
    if channels not in (1, 3) or not 1 <= len(rungs) <= MAX_RUNGS or not 0 <= default_rung < len(rungs):
        raise ValueError("channels or ladder out of bounds")
    if any(math.prod(s.block) * channels != s.generator.dim for r in rungs for s in r.stages):
        raise ValueError("a stage's block is not what its generator makes")
    return Model(
        str(card["name"]), sha256, channels, tuple(rungs), int(default_rung),
        int(card["default_num_candidates"]), int(card["default_seed"]),
    )  # fmt: skip


def _stage(fields: dict[str, Any], tensors: dict[str, Any], generators: list[Generator]) -> Stage:
    prior = fields.get("prior")
    height, width = (int(n) for n in fields["block"])
    return Stage(
        block=(height, width),
        beta=float(fields["beta"]),
        rate_bits=float(fields["rate_bits"]),
        distortion=float(fields["distortion"]),
        zipf_rate_millibits=int(fields["zipf_rate_millibits"]),
        fitted={str(coder): [int(f) for f in row] for coder, row in fields["fitted"].items()},
        prior_levels=None if prior is None else tensors[f"priors.{prior}"].numpy(),
        generator=generators[fields["generator"]],
    )


def bundle_files(
    card: dict[str, Any], generators: list[Generator], priors: dict[str, NDArray[np.uint8]], readme: str
) -> dict[str, bytes]:
    """The bundle as file names and contents.  ``card`` holds all of model.json but versions, generators and hashes.

    Weights are stored in float16; ``rounded`` gives the generator that a reader will have.
    """
    import torch
    from safetensors.torch import save

    tensors = {
        f"generators.{g}.{name}": _stored(name, value.detach().cpu())
        for g, generator in enumerate(generators)
        for name, value in generator.state_dict().items()
    }
    tensors |= {f"priors.{name}": torch.from_numpy(levels) for name, levels in priors.items()}
    weights = save(tensors)
    full = {
        "bundle_version": BUNDLE_VERSION,
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
