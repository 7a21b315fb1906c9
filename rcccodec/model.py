"""A loaded model, and its stages from ``model.json``, which is checked field by field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rcccodec.errors import ModelError
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.index_code.fitted import FittedCode
from rcccodec.joint import MAX_JOINT_BLOCKS, joint_size

if TYPE_CHECKING:
    from rcccodec.proposals.generator import Generator, GeneratorProposal

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
        from rcccodec.threads import one_thread

        with one_thread():
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

    ``name``: its folder's, fit to print. ``channels``: 1 or 3, or 0 for a model of vectors. ``distortion``:
    trained for it, ``mse`` or ``lp:P``.
    """

    name: str
    sha256: str
    channels: int
    rungs: tuple[Rung, ...]
    default_rung: int
    default_num_candidates: int
    default_seed: int
    distortion: str = "mse"


def parse_stage(
    fields: dict[str, Any],
    generators: list[Generator],
    priors: dict[str, CodebookPrior],
    channels: int,
    num_candidates: int,
) -> Stage:
    """One stage of a rung; KeyError, TypeError or ValueError for a field that is missing or cannot be."""
    block = {"h": fields["block"][0], "w": fields["block"][1]}
    height, width = (whole_number(block, axis, 1, MAX_TILE_SIDE) for axis in "hw")
    generator = generators[whole_number(fields, "generator", 0, len(generators) - 1)]
    if channels and generator.spec.shape != (height, width, channels):
        raise ValueError("a stage's block is not what its generator makes")
    names = dict(fields.get("priors", {"mincost": fields.get("prior")}))  # older bundles have one, min-cost's
    if not fields["beta"] <= MAX_SLOPE:
        raise ValueError(f"beta must be at most {MAX_SLOPE:g}")
    if not fields["rate_bits"] > -1:  # log2(R + 1) of the guarantee needs this; an estimate is 0 at least
        raise ValueError("rate_bits must not be negative")
    rate_millibits = whole_number(fields, "zipf_rate_millibits", 0, 1 << 31)
    joint = fields.get("joint")
    return Stage(
        block=(height, width),
        beta=number(fields, "beta", positive=True),
        rate_bits=number(fields, "rate_bits"),
        distortion=number(fields, "distortion"),
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
    whole_number(fields, "num_candidates", num_candidates, num_candidates)
    size = whole_number(fields, "blocks", 2, MAX_JOINT_BLOCKS)
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


def whole_number(fields: dict[str, Any], key: str, low: int, high: int) -> int:
    """The field ``key``, from ``low`` to ``high``, else ValueError."""
    value = fields[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{key} must be a whole number from {low} to {high}")
    return value


def number(fields: dict[str, Any], key: str, *, positive: bool = False) -> float:
    """The field ``key``, finite, else ValueError."""
    value = fields[key]
    if not isinstance(value, int | float) or not math.isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{key} must be a {'positive' if positive else 'finite'} number")
    return float(value)
