"""``rcc train``: source -> blocks -> generator of each stage -> held-out R and D -> index codes -> bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rcccodec.atomic import write_folder
from rcccodec.bundle import bundle_files, rounded
from rcccodec.channel.search import select_channel, select_with_cost
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.proposals.generator import Generator, GeneratorProposal
from rcccodec.rd.nerd import RatePoint, estimate_nerd
from rcccodec.sources import load_source
from rcccodec.training.blocks import PHOTO_BLOCKS, residuals, source_blocks
from rcccodec.training.card import write_card
from rcccodec.training.index_codes import fit_codebook_prior, fit_histograms
from rcccodec.training.trainer import Progress, Trained, TrainingPlan, to_unit, train

HELD_OUT_BLOCKS = 2000
HELD_OUT_SEEDS = (1 << 32) + 11, (1 << 32) + 12, (1 << 32) + 13
HISTOGRAM_SEEDS = tuple((1 << 33) + i for i in range(8))
HISTOGRAM_BLOCKS = 16_000
PRIOR_BLOCKS = 60_000
RESIDUAL_SEEDS = (1 << 34, (1 << 34) + 1, (1 << 34) + 2)
RESIDUAL_BLOCKS = 300_000  # at most this many blocks of a later stage


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
    """A whole training run.  ``candidates`` is the N that the model is meant for; ``seed`` its codebook's."""

    name: str
    source: str
    channels: int
    stages: tuple[StagePlan, ...]
    candidates: int
    seed: int = 0
    default_rung: int | None = None
    photo_blocks: int = PHOTO_BLOCKS


Report = Callable[[int, Progress], None]  # stage, progress


def train_model(
    plan: RunPlan,
    output: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    command: str = "",
    report: Report | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Run a plan and write the bundle to the folder ``output``; checkpoints of every stage stay beside it.

    Returns:
        The folder, or None when ``stop`` ended the run early (a later ``resume`` goes on from there).

    Raises:
        InputError, ModelError, OutputError.
    """
    began = time.monotonic()
    x, shape = _blocks(plan, "train", data_root)
    held_out, _ = _blocks(plan, "test", data_root)
    output.mkdir(parents=True, exist_ok=True)
    trained_stages = []
    first = x
    for s, stage in enumerate(plan.stages):
        checkpoint = output / f"checkpoint-{s}.safetensors"
        trained = train(
            x,
            stage.training,
            checkpoint=checkpoint,
            resume=resume and checkpoint.exists(),
            device=device,
            report=None if report is None else (lambda p, s=s: report(s, p)),
            stop=stop,
        )
        if stop():
            return None
        stage = _with_solved_slope(stage, trained)
        generator = rounded(trained.generator)
        trained_stages.append(TrainedStage(s, stage, generator, shape, held_out))
        if s + 1 < len(plan.stages):
            say(f"stage {s}: residuals for the next one")
            carry = _carry(trained_stages[-1], device)
            sub = plan.stages[s + 1].block
            simulate = _by_pfr(carry, stage.betas[-1], s, plan.candidates, device)
            x, held_out = (
                _shuffled(
                    residuals(
                        part, shape, carry, simulate, seeds=RESIDUAL_SEEDS, stage=s, sub_block=sub, device=device
                    )
                )
                for part in (x, held_out)
            )
            x = x[:RESIDUAL_BLOCKS]
            shape = (*sub, plan.channels)
    del x
    rungs, priors = _measure_and_fit(plan, trained_stages, first, device, say)
    model = {
        "name": plan.name,
        "source": plan.source,
        "channels": plan.channels,
        "distortion": plan.stages[0].training.distortion,
        "command": command,
        "training_seconds": round(time.monotonic() - began),
        "default_rung": len(rungs) - 1 if plan.default_rung is None else plan.default_rung,
        "default_num_candidates": plan.candidates,
        "default_seed": plan.seed,
        "rungs": rungs,
    }
    generators = [stage.generator for stage in trained_stages]
    write_folder(output, bundle_files(model, generators, priors, write_card(model)))
    return output


def _blocks(plan: RunPlan, split: str, data_root: Path | None) -> tuple[Tensor, tuple[int, ...]]:
    if plan.channels == 0:
        count = 50_000 if split == "train" else HELD_OUT_BLOCKS
        source = load_source(plan.source, split, data_root, limit=count)
        return source_blocks(source, (1, 1), channels=0)
    source = load_source(plan.source, split, data_root)
    block = plan.stages[0].block
    if split == "train":
        return source_blocks(source, block, channels=plan.channels, count=plan.photo_blocks)
    return source_blocks(source, block, channels=plan.channels, count=HELD_OUT_BLOCKS, seed=1)


@dataclass(frozen=True)
class TrainedStage:
    """A stage after training: its number, plan, stored generator, block shape and held-out blocks (or residuals)."""

    number: int
    plan: StagePlan
    generator: Generator
    shape: tuple[int, ...]
    held_out: Tensor


def _measure_and_fit(
    plan: RunPlan, stages: list[TrainedStage], x: Tensor, device: str, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Held-out R and D of every stage and slope, and the index codes, fitted on training blocks ``x`` of stage 0.

    Index codes of a later stage are fitted to what min-cost coding of the shipped codebook leaves, as codecs send it.

    Returns:
        The ladder as model.json has it, and the priors by name.
    """
    rungs: list[dict[str, Any]] = []
    before: list[dict[str, Any]] = []
    priors: dict[str, Any] = {}
    x = x[:PRIOR_BLOCKS]
    for stage in stages:
        s, record = stage.number, {}
        coded = plan.channels > 0 and stage.plan.training.distortion == "mse"
        for b, beta in enumerate(stage.plan.betas):
            proposal = GeneratorProposal(stage.generator.at_slope(beta), device)
            point = estimate_nerd(
                to_unit(stage.held_out[:HELD_OUT_BLOCKS]),
                proposal,
                beta=beta,
                num_candidates=plan.candidates,
                seeds=HELD_OUT_SEEDS,
                stage=s,
                device=device,
                distortion=stage.plan.training.distortion,
            )
            say(
                f"stage {s} beta {beta:g}: R = {point.rate_bits:.2f} +- {point.rate_se_bits:.2f} bits, "
                f"D = {point.distortion:.4g}, Lagrangian {point.lagrangian_bits:.3f} +- "
                f"{point.lagrangian_se_codebooks_bits:.3f} bits{' (saturated)' if point.saturated else ''}"
            )
            record = _stage_record(s, stage.plan, beta, point)
            if coded:
                coordinates = proposal.analyse(to_unit(x))
                common: dict[str, Any] = {
                    "beta": beta,
                    "num_candidates": plan.candidates,
                    "stage": s,
                    "device": device,
                }
                record["fitted"] = fit_histograms(
                    coordinates[:HISTOGRAM_BLOCKS], proposal, seeds=HISTOGRAM_SEEDS, **common
                )
                record["prior"] = f"{s}.{b}"
                priors[record["prior"]] = fit_codebook_prior(coordinates, proposal, seed=plan.seed, **common)
            rungs.append({"beta": beta, "stages": [*before, record]})
        before.append(record)
        if coded and s + 1 < len(stages):
            levels = priors[record["prior"]]
            cost_nats = math.log(2) * CodebookPrior(levels).lengths_bits(np.arange(len(levels)))

            def cheapest(
                coordinates: Tensor, seed: int, s: int = s, beta: float = record["beta"], cost: Any = cost_nats
            ) -> Tensor:
                return select_with_cost(
                    coordinates, _carry(stages[s], device), beta=beta, cost_nats=cost, seed=seed, stage=s, device=device
                ).indices

            sub = stages[s + 1].plan.block
            x = _shuffled(
                residuals(
                    x, stage.shape, _carry(stage, device), cheapest, seeds=[plan.seed], stage=s, sub_block=sub,
                    device=device,
                )
            )[:PRIOR_BLOCKS]  # fmt: skip
    return rungs, priors


def _carry(stage: TrainedStage, device: str) -> GeneratorProposal:
    """The proposal at the slope whose residual the next stage codes."""
    return GeneratorProposal(stage.generator.at_slope(stage.plan.betas[-1]), device)


def _by_pfr(
    proposal: GeneratorProposal, beta: float, stage: int, num_candidates: int, device: str
) -> Callable[[Tensor, int], Tensor]:
    def select(coordinates: Tensor, seed: int) -> Tensor:
        return select_channel(
            coordinates, proposal, beta=beta, coder="pfr", seed=seed, stage=stage,
            num_candidates=num_candidates, device=device,
        ).indices  # fmt: skip

    return select


def _shuffled(x: Tensor) -> Tensor:
    """The rows in a fixed random order, so that any leading part is a fair sample."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def _with_solved_slope(stage: StagePlan, trained: Trained) -> StagePlan:
    """In the fixed-D form the slope is a result: put it where the fixed slopes stand."""
    if stage.training.target_distortion is None:
        return stage
    return replace(stage, betas=(float(f"{trained.beta:.6g}"),))


def _stage_record(s: int, stage: StagePlan, beta: float, point: RatePoint) -> dict[str, Any]:
    """A stage as model.json has it, index codes aside."""
    return {
        "generator": s,
        "block": list(stage.block),
        "beta": beta,
        "rate_bits": point.rate_bits,
        "rate_se_bits": point.rate_se_bits,
        "distortion": point.distortion,
        "distortion_se": point.distortion_se,
        "lagrangian_bits": point.lagrangian_bits,
        "lagrangian_se_bits": point.lagrangian_se_bits,
        "lagrangian_se_codebooks_bits": point.lagrangian_se_codebooks_bits,
        "held_out_blocks": point.num_blocks,
        "held_out_codebooks": point.num_codebooks,
        "num_candidates": point.num_candidates,
        "saturated": point.saturated,
        "zipf_rate_millibits": round(1000 * max(0.0, point.rate_bits)),
        "fitted": {},
        "prior": None,
    }
