"""``rcc refit``: index codes of a finished model for another N or codebook; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rcccodec.errors import LimitError, ModelError
from rcccodec.proposals.generator import GeneratorSpec
from rcccodec.training.blocks import PHOTO_BLOCKS
from rcccodec.training.extension import Kept
from rcccodec.training.run import Remainder, first_blocks, write_bundle
from rcccodec.training.rungs import RunPlan, StagePlan, TrainedStage, measure_and_fit
from rcccodec.training.trainer import TrainingPlan

_FROM_BUNDLE = ("bundle_version", "generators", "weights_sha256")  # what bundle_files adds itself


def refit_plan(
    kept: Kept,
    name: str,
    *,
    candidates: int | None,
    seed: int | None,
    blocks: int = PHOTO_BLOCKS,
    shared_only: bool = False,
) -> RunPlan:
    """The run that would have trained this model, for another N or codebook; None keeps the model's own.

    ``shared_only``: of the codes, fit those of shared indices; the others stay, and so do N and codebook.

    Raises:
        ModelError: rungs that do not build on one another. LimitError: others cannot stay for this N or seed.
    """
    own_n, own_seed = kept.model.default_num_candidates, kept.model.default_seed
    if shared_only and not (candidates in (None, own_n) and seed in (None, own_seed)):
        raise LimitError(f"index codes of {own_n} candidates and seed {own_seed} are of no use for others")
    card, model, stages = kept.card, kept.model, []
    slopes = tuple(stage.beta for stage in kept.stages)
    for number, (stage, fields) in enumerate(zip(kept.stages, card["training"], strict=True)):
        own = [tuple(s.beta for s in rung.stages) for rung in model.rungs if len(rung.stages) == number + 1]
        betas = tuple(rung[-1] for rung in own)
        if not own or betas[-1] != stage.beta or {rung[:-1] for rung in own} != {slopes[:number]}:
            raise ModelError(f"model {model.name}: its rungs do not build on one another")
        spec = GeneratorSpec.from_json(fields["generator"])
        training = TrainingPlan(**{**fields, "generator": spec, "slopes": tuple(fields["slopes"])})
        stages.append(StagePlan(stage.block, betas, training))
    return RunPlan(
        name,
        card["source"],
        model.channels,
        tuple(stages),
        model.default_num_candidates if candidates is None else candidates,
        model.default_seed if seed is None else seed,
        model.default_rung,
        blocks,
        codes_from=kept if shared_only else None,
    )


def refit_model(
    kept: Kept,
    plan: RunPlan,
    output: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Measure R and D and fit index codes for the plan's N and codebook; write the bundle to ``output``.

    Returns:
        The folder, or None when ``stop`` ended the run early.

    Raises:
        InputError: the source is missing. OutputError: the folder cannot be written.

    Invariants: the generators' weights are those of the model; the same N and seed give its own codes again.
    """
    x, shape = first_blocks(plan, "train", data_root)
    held_out, _ = first_blocks(plan, "test", data_root)
    stages: list[TrainedStage] = []
    for number, (stage, generator) in enumerate(zip(plan.stages, kept.generators, strict=True)):
        stages.append(TrainedStage(number, stage, generator, shape, held_out))
        if number + 1 < len(plan.stages):
            sub = plan.stages[number + 1].block
            carry = kept.stages[number].proposal(device)
            left = Remainder(carry, stage.betas[-1], number, shape, sub, plan.candidates, device)
            shape = (*sub, plan.channels)
            held_out = held_out if plan.codes_from else left.of(held_out)  # for estimates alone
    measured = measure_and_fit(plan, stages, x, device, say, stop)
    if measured is None:
        return None
    rungs, priors = measured
    model: dict[str, Any] = {k: v for k, v in kept.card.items() if k not in _FROM_BUNDLE} | {
        "name": plan.name,
        "command": f"{kept.card['command']}; {command}",
        "default_num_candidates": plan.candidates,
        "default_seed": plan.seed,
        "rungs": rungs,
    }
    write_bundle(output, model, kept.generators, priors)
    return output
