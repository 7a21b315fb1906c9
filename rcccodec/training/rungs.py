"""A ladder from trained stages: held-out R and D of every stage and slope, and the index codes of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rcccodec.channel.search import select_with_cost
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.joint import joint_size
from rcccodec.proposals.generator import Generator, GeneratorProposal
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.rd.point import RatePoint
from rcccodec.training.blocks import PHOTO_BLOCKS, residuals
from rcccodec.training.extension import Kept
from rcccodec.training.index_codes import fit_channel_priors, fit_codebook_prior, fit_histograms
from rcccodec.training.joint_codes import fit_joint_codes
from rcccodec.training.trainer import TrainingPlan, to_unit

HELD_OUT_BLOCKS = 2000
HELD_OUT_SEEDS = (1 << 32) + 11, (1 << 32) + 12, (1 << 32) + 13
HISTOGRAM_SEEDS = tuple((1 << 33) + i for i in range(8))
HISTOGRAM_BLOCKS = 8000
PRIOR_BLOCKS = 40_000
COLLAPSED_BITS = 0.01  # a rate that says of a generator that it makes one thing only


@dataclass(frozen=True)
class StagePlan:
    """One stage of a model: its block, the slopes of its rungs, how it is trained.

    The last slope is the one whose residual the next stage codes.
    """

    block: tuple[int, int]
    betas: tuple[float, ...]
    training: TrainingPlan


@dataclass(frozen=True)
class RunPlan:
    """A whole training run.

    ``start_from``: checkpoint that the only stage begins with. ``channels``: 1 or 3, or 0 for vectors.
    ``candidates`` is the N that the model is meant for, ``seed`` its codebook's. ``default_rung`` None is the
    last. ``photo_blocks`` are cut from photographs. ``extend``: a model whose stages come before these, with
    its N and seed. ``codes_from``: a model of this N and seed, whose estimates and codes stay, but for those
    of shared indices.
    """

    name: str
    source: str
    channels: int
    stages: tuple[StagePlan, ...]
    candidates: int
    seed: int = 0
    default_rung: int | None = None
    photo_blocks: int = PHOTO_BLOCKS
    start_from: Path | None = None
    extend: Kept | None = None
    codes_from: Kept | None = None


@dataclass(frozen=True)
class TrainedStage:
    """A stage after training: number, plan, stored generator, block shape, held-out blocks (or residuals)."""

    number: int
    plan: StagePlan
    generator: Generator
    shape: tuple[int, ...]
    held_out: Tensor


def measure_and_fit(
    plan: RunPlan,
    stages: list[TrainedStage],
    x: Tensor,
    device: str,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Held-out R and D of every stage and slope, and its index codes, fitted on training blocks ``x``.

    Index codes of a later stage are fitted to what min-cost coding with the shipped codebook leaves, for that
    is what a codec sends.

    Returns:
        The ladder as model.json has it, and the priors by name; None when stopped.
    """
    rungs: list[dict[str, Any]] = []
    before: list[dict[str, Any]] = []
    priors: dict[str, Any] = {} if plan.codes_from is None else plan.codes_from.priors()
    x = x[:PRIOR_BLOCKS]
    if plan.extend is not None:
        rungs, priors = list(plan.extend.card["rungs"]), plan.extend.priors()
        before = list(rungs[-1]["stages"])
        for s, kept in enumerate(plan.extend.stages):
            sub = (*plan.extend.stages, plan.stages[0])[s + 1].block
            x = _left(x, kept.proposal(device), kept.beta, s, (*kept.block, plan.channels), sub,
                      kept.priors["mincost"], plan.seed, device)  # fmt: skip
    for i, stage in enumerate(stages):
        s, record = stage.number, {}
        coded = plan.channels > 0 and stage.plan.training.distortion == "mse"
        for b, beta in enumerate(stage.plan.betas):
            if stop():
                return None
            proposal = GeneratorProposal(stage.generator.at_slope(beta), device)
            if plan.codes_from is None:
                record = _measured(stage, proposal, beta, plan.candidates, device, say)
            else:
                record = _record_of(plan.codes_from, s, b)
            if coded:
                coordinates = proposal.analyse(to_unit(x))
                common = {"beta": beta, "num_candidates": plan.candidates, "stage": s, "device": device}
                if plan.codes_from is None:
                    priors |= _fit_own(record, f"{s}.{b}", coordinates, proposal, plan.seed, common)
                priors |= _fit_joint(record, f"{s}.{b}", coordinates, proposal, plan.seed, common)
            rungs.append({"beta": beta, "stages": [*before, record]})
        before.append(record)
        if coded and i + 1 < len(stages):
            code = CodebookPrior(priors[record["priors"]["mincost"]])
            sub = stages[i + 1].plan.block
            x = _left(x, carry_proposal(stage, device), record["beta"], s, stage.shape, sub,
                      code, plan.seed, device)  # fmt: skip
    return rungs, priors


def _measured(
    stage: TrainedStage,
    proposal: GeneratorProposal,
    beta: float,
    num_candidates: int,
    device: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A stage's record with its held-out R and D, index codes aside."""
    s, distortion = stage.number, stage.plan.training.distortion
    point = estimate_nerd(
        to_unit(stage.held_out[:HELD_OUT_BLOCKS]),
        proposal,
        beta=beta,
        num_candidates=num_candidates,
        seeds=HELD_OUT_SEEDS,
        stage=s,
        device=device,
        distortion=distortion,
    )
    say(
        f"stage {s} beta {beta:g}: R = {point.rate_bits:.2f} +- {point.rate_se_bits:.2f} bits, "
        f"D = {point.distortion:.4g}, Lagrangian {point.lagrangian_bits:.3f} +- "
        f"{point.lagrangian_se_samples_bits:.3f} bits{' (saturated)' if point.saturated else ''}"
    )
    if point.rate_bits < COLLAPSED_BITS:
        say("  the candidates are all alike: train longer, or at a higher slope")
    return _stage_record(s, stage.plan, beta, point)


def _record_of(kept: Kept, stage: int, number: int) -> dict[str, Any]:
    """The record of a model's stage in the ``number``th rung that ends with it, less its shared codes."""
    own = [rung["stages"] for rung in kept.card["rungs"] if len(rung["stages"]) == stage + 1]
    record = {k: v for k, v in own[number][stage].items() if k not in ("joint", "prior")}
    names = own[number][stage].get("priors", {"mincost": own[number][stage].get("prior")})
    return record | {"priors": {coder: name for coder, name in names.items() if name is not None}}


def _fit_own(
    record: dict[str, Any],
    name: str,
    coordinates: Tensor,
    proposal: GeneratorProposal,
    seed: int,
    common: dict[str, Any],
) -> dict[str, Any]:
    """Put the codes of blocks with an index each into the record; the priors' levels by name."""
    record["fitted"] = fit_histograms(
        coordinates[:HISTOGRAM_BLOCKS], proposal, seeds=HISTOGRAM_SEEDS, **common
    )
    levels = {"mincost": fit_codebook_prior(coordinates, proposal, seed=seed, **common)}
    levels |= fit_channel_priors(coordinates, proposal, seed=seed, fitted=record["fitted"], **common)
    record["priors"] = {coder: f"{name}.{coder}" for coder in levels}
    return {f"{name}.{coder}": row for coder, row in levels.items()}


def _fit_joint(
    record: dict[str, Any],
    name: str,
    coordinates: Tensor,
    proposal: GeneratorProposal,
    seed: int,
    common: dict[str, Any],
) -> dict[str, Any]:
    """Put the codes of blocks that share an index into the record, if any do; the priors' levels by name."""
    size = joint_size(common["num_candidates"], record["zipf_rate_millibits"])
    if size == 1:
        return {}
    made = fit_joint_codes(coordinates, proposal, size=size, seed=seed, **common)
    record["joint"] = {
        "blocks": size,
        "num_candidates": common["num_candidates"],
        "fitted": made.fitted,
        "priors": {coder: f"{name}.x{size}.{coder}" for coder in made.levels},
    }
    return {f"{name}.x{size}.{coder}": row for coder, row in made.levels.items()}


def _left(
    x: Tensor,
    proposal: GeneratorProposal,
    beta: float,
    stage: int,
    shape: tuple[int, ...],
    sub: tuple[int, int],
    code: CodebookPrior,
    seed: int,
    device: str,
) -> Tensor:
    """What min-cost coding with a codebook's prior leaves of blocks x, as blocks of ``sub``, shuffled."""
    cost_nats = math.log(2) * code.lengths_bits(np.arange(code.num_candidates))
    cheapest = _by_cost(proposal, beta, stage, cost_nats, device)
    left = {"seeds": [seed], "stage": stage, "sub_block": sub, "device": device}
    return shuffled(residuals(x, shape, proposal, cheapest, **left))[:PRIOR_BLOCKS]


def carry_proposal(stage: TrainedStage, device: str) -> GeneratorProposal:
    """The proposal at the slope whose residual the next stage codes."""
    return GeneratorProposal(stage.generator.at_slope(stage.plan.betas[-1]), device)


def _by_cost(
    proposal: GeneratorProposal, beta: float, stage: int, cost_nats: np.ndarray, device: str
) -> Callable[[Tensor, int], Tensor]:
    def select(coordinates: Tensor, seed: int) -> Tensor:
        return select_with_cost(
            coordinates, proposal, beta=beta, cost_nats=cost_nats, seed=seed, stage=stage, device=device
        ).indices

    return select


def shuffled(x: Tensor) -> Tensor:
    """The rows in a fixed random order, so that any leading part is a fair sample."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def _stage_record(s: int, stage: StagePlan, beta: float, point: RatePoint) -> dict[str, Any]:
    """A stage as model.json has it, index codes aside; a standard error of one sample is null."""
    record = {
        "generator": s,
        "block": list(stage.block),
        "beta": beta,
        "rate_bits": point.rate_bits,
        "rate_se_bits": point.rate_se_bits,
        "distortion": point.distortion,
        "distortion_se": point.distortion_se,
        "lagrangian_bits": point.lagrangian_bits,
        "lagrangian_se_bits": point.lagrangian_se_bits,
        "lagrangian_se_codebooks_bits": point.lagrangian_se_samples_bits,
        "held_out_blocks": point.num_blocks,
        "held_out_codebooks": point.num_repeats,
        "num_candidates": point.num_samples,
        "saturated": point.saturated,
        "zipf_rate_millibits": round(1000 * max(0.0, point.rate_bits)),
        "fitted": {},
        "priors": {},
    }
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
