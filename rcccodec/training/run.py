"""``rcc train``: source -> blocks -> generator of each stage -> held-out R and D -> index codes -> bundle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.atomic import check_target, make_folder, sweep, write_folder
from rcccodec.bundle import bundle_files, rounded
from rcccodec.channel.search import select_channel
from rcccodec.distortion import parse_distortion
from rcccodec.errors import LimitError
from rcccodec.proposals.generator import Generator, GeneratorProposal
from rcccodec.ranks import ALONE, Ranks, shared_search
from rcccodec.sources import load_source
from rcccodec.training.blocks import residuals, source_blocks
from rcccodec.training.card import write_card
from rcccodec.training.objectives import HIGHEST_SLOPE, nerd_prior_loss, slope_for_distortion
from rcccodec.training.rungs import (
    HELD_OUT_BLOCKS,
    RunPlan,
    StagePlan,
    TrainedStage,
    carry_proposal,
    measure_and_fit,
    shuffled,
)
from rcccodec.training.trainer import Progress, TrainingPlan, plan_values, to_unit, train

__all__ = ["RunPlan", "StagePlan", "solved_slope", "train_model"]

RESIDUAL_SEEDS = (1 << 34, (1 << 34) + 1, (1 << 34) + 2)
RESIDUAL_BLOCKS = 300_000  # at most this many blocks of a later stage
# the slope for a wanted distortion is solved with so many distances, of at least so many blocks
SLOPE_DISTANCES, SLOPE_BLOCKS, SLOPE_CANDIDATES = 1 << 22, 64, 1 << 16

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
    ranks: Ranks = ALONE,
) -> Path | None:
    """Run a plan and write the bundle to the folder ``output``; checkpoints of every stage stay in it.

    Args:
        resume: go on from the checkpoints there are; stages without one begin anew.
        command: what to put on the card.
        report: told (stage, progress) after every step. say: takes lines of results.
        stop: polled at every step and between measurements.
        ranks: processes that train together and share the searches for residuals. The first alone measures,
            fits index codes and writes; the others return the folder before that.

    Returns:
        The folder, or None when ``stop`` ended the run early (a later ``resume`` goes on from there).

    Raises:
        InputError: the source is missing or does not fit the plan. ModelError: a checkpoint is damaged or of
        another plan. OutputError: the folder cannot be written. LimitError: the training diverged, or the
        wanted distortion is out of reach.
    """
    x, shape = first_blocks(plan, "train", data_root)
    held_out, _ = first_blocks(plan, "test", data_root)
    make_folder(output)
    trained_stages, seconds = [], 0.0
    first, before = x, 0
    if plan.extend is not None:
        before = len(plan.extend.stages)
        for s, stage in enumerate(plan.extend.stages):
            say(f"stage {s}: kept; residuals for the next one")
            sub = (*plan.extend.stages, plan.stages[0])[s + 1].block
            left = Remainder(
                stage.proposal(device), stage.beta, s, shape, sub, plan.candidates, device, ranks
            )
            x, held_out, shape = left.of(x), left.of(held_out), (*sub, plan.channels)
    for s, stage in enumerate(plan.stages, before):
        checkpoint = output / f"checkpoint-{s}.safetensors"
        check_target(checkpoint)
        sweep([checkpoint])
        trained = train(
            x,
            stage.training,
            checkpoint=checkpoint,
            resume=ranks.first_of(resume and os.path.exists(checkpoint)),
            device=device,
            report=None if report is None else (lambda p, s=s: report(s, p)),
            stop=stop,
            start_from=plan.start_from,
            ranks=ranks,
        )
        if ranks.any(stop()):
            return None
        seconds += trained.seconds
        generator = rounded(trained.generator)
        if stage.training.target_distortion is not None:
            beta = solved_slope(x, generator, stage.training, plan.candidates)
            met = "is out of reach; it ends" if beta >= HIGHEST_SLOPE else "is met"
            say(f"stage {s}: distortion {stage.training.target_distortion:g} {met} at slope beta {beta:g}")
            stage = replace(stage, betas=(beta,))
        trained_stages.append(TrainedStage(s, stage, generator, shape, held_out))
        if s + 1 < before + len(plan.stages):
            say(f"stage {s}: residuals for the next one")
            carry = carry_proposal(trained_stages[-1], device)
            sub = plan.stages[s + 1 - before].block
            left = Remainder(carry, stage.betas[-1], s, shape, sub, plan.candidates, device, ranks)
            x, held_out, shape = left.of(x), left.of(held_out), (*sub, plan.channels)
    if not ranks.is_first:
        return output
    del x
    measured = measure_and_fit(plan, trained_stages, first, device, say, stop)
    if measured is None:
        return None
    rungs, priors = measured
    default_rung = len(rungs) - 1 if plan.default_rung is None else plan.default_rung
    generators = [stage.generator for stage in trained_stages]
    training = [plan_values(stage.training) for stage in plan.stages]
    if plan.extend is not None:
        card, generators = plan.extend.card, plan.extend.generators + generators
        command, training = f"{card['command']}; {command}", card["training"] + training
        seconds += card["training_seconds"]
        default_rung = card["default_rung"] if plan.default_rung is None else plan.default_rung
    model = {
        "name": plan.name,
        "source": plan.source,
        "channels": plan.channels,
        "distortion": plan.stages[0].training.distortion,
        "command": command,
        "training": training,
        "training_seconds": round(seconds),
        "default_rung": default_rung,
        "default_num_candidates": plan.candidates,
        "default_seed": plan.seed,
        "rungs": rungs,
    }
    write_bundle(output, model, generators, priors)
    return output


def write_bundle(
    output: Path, model: dict[str, Any], generators: list[Generator], priors: dict[str, NDArray[np.uint8]]
) -> None:
    """Write the bundle and its card to the folder ``output``; see `rcccodec.bundle.bundle_files`."""
    files = bundle_files(model, generators, priors, "")
    card = write_card(model, hashlib.sha256(files["model.json"]).hexdigest())
    write_folder(output, files | {"README.md": card.encode()})


def first_blocks(plan: RunPlan, split: str, data_root: Path | None) -> tuple[Tensor, tuple[int, ...]]:
    """What the first stage of all codes, (n, dim), and the shape of one, for fitting or ("test") held out."""
    if plan.channels == 0:
        count = 50_000 if split == "train" else HELD_OUT_BLOCKS
        source = load_source(plan.source, split, data_root, limit=count)
        return source_blocks(source, (1, 1), channels=0)
    source = load_source(plan.source, split, data_root)
    block = plan.stages[0].block if plan.extend is None else plan.extend.stages[0].block
    if split == "train":
        return source_blocks(source, block, channels=plan.channels, count=plan.photo_blocks)
    return source_blocks(source, block, channels=plan.channels, count=HELD_OUT_BLOCKS, seed=1)


@dataclass(frozen=True)
class Remainder:
    """What a stage leaves of blocks of ``shape``, coded by PFR at slope beta, as blocks of ``sub``."""

    proposal: GeneratorProposal
    beta: float
    stage: int
    shape: tuple[int, ...]
    sub: tuple[int, int]
    num_candidates: int
    device: str
    ranks: Ranks = ALONE

    def of(self, x: Tensor) -> Tensor:
        """The residuals of x (n, dim), shuffled, RESIDUAL_BLOCKS of them at most."""
        left = residuals(
            x, self.shape, self.proposal, self._select, seeds=RESIDUAL_SEEDS, stage=self.stage,
            sub_block=self.sub, device=self.device,
        )  # fmt: skip
        return shuffled(left)[:RESIDUAL_BLOCKS]

    def _select(self, coordinates: Tensor, seed: int) -> Tensor:
        with shared_search(self.ranks):
            return select_channel(
                coordinates, self.proposal, beta=self.beta, coder="pfr", seed=seed, stage=self.stage,
                num_candidates=self.num_candidates, device=self.device,
            ).indices  # fmt: skip


def solved_slope(x: Tensor, generator: Generator, training: TrainingPlan, num_candidates: int) -> float:
    """The slope at which a trained generator meets the plan's ``target_distortion`` on blocks x, to 6 digits.

    Training knows it from its last batch alone; this takes more blocks, and candidates of its own.

    Returns:
        The slope; HIGHEST_SLOPE if the candidates, ``num_candidates`` at most, do not come so close.

    Raises:
        LimitError: the distortion is met at zero rate.
    """
    wanted = training.target_distortion
    assert wanted is not None
    count = min(num_candidates, SLOPE_CANDIDATES)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed + 1)
        some = x[torch.randperm(len(x))[: max(SLOPE_BLOCKS, SLOPE_DISTANCES // count)]]
        distortion = parse_distortion(training.distortion)
        _, distances = nerd_prior_loss(to_unit(some), training.slopes[1], generator, count, distortion)
    beta = slope_for_distortion(distances, wanted)
    if beta == 0:
        at_zero_rate = float(distances.double().mean())
        raise LimitError(
            f"distortion {wanted:g}: met without sending anything, at {at_zero_rate:.4g}; ask for less"
        )
    return float(f"{beta:.6g}")
