"""``rcc train --arch latent``: photographs -> networks -> tables -> held-out figures -> bundle."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rcccodec.atomic import check_target, make_folder, sweep, write_folder
from rcccodec.baselines.run import CHECKPOINT, steps_for
from rcccodec.baselines.training import NtcPlan, Progress, is_latent, plan_values, train
from rcccodec.errors import InputError
from rcccodec.latent import file as latent_file
from rcccodec.latent.codec import analyse_picture, make_target
from rcccodec.latent.file import choose_settings
from rcccodec.latent.fit import fit_chunk_codes, fit_tables
from rcccodec.latent.model import LatentModel, assemble, bundle_files, stored_network
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.payload import Channel
from rcccodec.latent.spec import LatentSpec
from rcccodec.latent.windows import LATENT_STRIDE, TILE, tiles_of
from rcccodec.sources import load_source
from rcccodec.training.blocks import source_blocks
from rcccodec.training.plan import channels_of, checkpoint_name

BETA_OF_LAMBDA = 65025 / 3 * math.log(2)  # bits a pixel + lambda 255^2 mse, in nats a summed squared error
DEFAULT_LAMBDAS = (0.00053, 0.0015, 0.004, 0.0107, 0.028, 0.073)
DEFAULT_STEPS, LEARNING_RATE, CONTINUED_RATE = 16_000, 1e-3, 5e-4
SOFT_UNTIL = 0.5  # of the steps: classes are marginalised, then chosen
CROP_SIDE, CROPS = 128, 6000
TABLE_PICTURES, HELD_OUT_PICTURES, CODE_PICTURES = 500, 16, 4
HELD_OUT_EFFORT = 4


@dataclass(frozen=True)
class LatentRun:
    """A whole run: the plan, and where its data and first networks come from."""

    name: str
    source: str
    plan: NtcPlan
    start_from: Path | None
    note: str = ""


def make_run(
    source: str,
    name: str,
    *,
    data_root: Path | None,
    lambdas: tuple[float, ...] | None = None,
    betas: tuple[float, ...] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    latent_dim: int | None = None,
    width: int | None = None,
    start_from: Path | None = None,
    bfloat16: bool = False,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: Path | None = None,
    note: str = "",
) -> LatentRun:
    """Fill in what was not said; the arguments are options of ``rcc train``.

    ``lambdas`` weigh 255^2 times the mean squared error against bits a pixel, as CompressAI's do; ``betas``
    are the same slopes in nats a summed squared error. A run that starts from latents chooses classes at
    once.

    Raises:
        InputError: not photographs, or sizes out of bounds. ModelError: a damaged checkpoint.
    """
    channels, native = channels_of(source, data_root)
    if channels != 3 or native is not None:
        raise InputError(f"{source}: latents are for photographs, images of any size in colour")
    slopes = betas or tuple(BETA_OF_LAMBDA * one for one in lambdas or DEFAULT_LAMBDAS)
    try:
        spec = LatentSpec((CROP_SIDE, CROP_SIDE, 3), slopes, latent_dim or 192, width or 64)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    goes_on = start_from is not None and is_latent(start_from)
    plan = NtcPlan(
        spec, steps or DEFAULT_STEPS, batch_size=1, learning_rate=CONTINUED_RATE if goes_on else
        LEARNING_RATE, soft_from=0.0 if goes_on else SOFT_UNTIL, hard_from=0.9, bfloat16=bfloat16, seed=seed,
        least_rate_weight=1.0 if goes_on else NtcPlan.least_rate_weight,
        start=checkpoint_name(start_from) if start_from else "",
    )  # fmt: skip
    if minutes is not None and steps is None:
        plan = steps_for(plan, minutes, checkpoint, device)
    return LatentRun(name, source, plan, start_from, note)


def train_latent(
    run: LatentRun,
    output: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    command: str = "",
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Train and write the bundle to the folder ``output``, beside its checkpoint.

    Returns:
        The folder, or None when ``stop`` ended the run early.

    Raises:
        InputError, ModelError, OutputError, LimitError: as `rcccodec.baselines.training.train` does.
    """
    spec = run.plan.spec
    source = load_source(run.source, "train", data_root)
    crops = source_blocks(source, spec.shape[:2], channels=3, count=CROPS)[0]
    pictures = _tiles(run.source, "train", TABLE_PICTURES, data_root)
    held_out = _tiles(run.source, "test", HELD_OUT_PICTURES, data_root)
    make_folder(output)
    checkpoint = output / CHECKPOINT
    check_target(checkpoint)
    sweep([checkpoint])
    trained = train(
        crops, run.plan, checkpoint=checkpoint, resume=resume and os.path.exists(checkpoint), device=device,
        report=report, stop=stop, start_from=run.start_from,
    )  # fmt: skip
    if stop():
        return None
    assert isinstance(trained.network, LatentNetwork)
    network = stored_network(trained.network.cpu().eval().requires_grad_(False))
    tables = fit_tables(network, pictures, say=say)
    model = assemble(network, tables)
    codes = fit_chunk_codes(_targets(model, pictures[:CODE_PICTURES]), say=say)
    rows = []
    for slope, beta in enumerate(model.spec.betas):
        rows.append({"beta": beta, **measure(model, held_out, slope)})
        say(f"beta {beta:g}: {rows[-1]['rate_bpp']:.4f} bpp, {rows[-1]['psnr_db']:.2f} dB")
        if stop():
            return None
    card: dict[str, Any] = {
        "name": run.name,
        "source": run.source,
        "command": command,
        "note": run.note,
        "training": plan_values(run.plan),
        "training_seconds": round(trained.seconds),
        "held_out": rows,
        "held_out_pictures": len(held_out),
        "default_rung": len(rows) // 2,
        "default_seed": 0,
        "chunk_codes": codes,
    }
    files = bundle_files(card, model, tables)
    files["README.md"] = write_card(card, hashlib.sha256(files["model.json"]).hexdigest(), model).encode()
    write_folder(output, files)
    return output


def measure(model: LatentModel, pictures: Tensor, slope: int) -> dict[str, float]:
    """Files of single pictures uint8 (n, h, w, 3) at one slope: means, with standard errors."""
    settings = choose_settings(model, slope=slope, effort=HELD_OUT_EFFORT)
    made = [latent_file.compress([x.numpy()], settings).report for x in pictures]
    rates = np.array([r.payload_bits / (256 * r.positions) for r in made])
    ideal = np.array([(r.divergence_bits + r.class_bits) / (256 * r.positions) for r in made])
    psnr = np.array([r.psnr_db for r in made])
    errors = [standard_error(values) for values in (rates, psnr)]
    return {
        "rate_bpp": float(rates.mean()), "rate_se_bpp": errors[0], "ideal_bpp": float(ideal.mean()),
        "psnr_db": float(psnr.mean()), "psnr_se_db": errors[1],
    }  # fmt: skip


def standard_error(values: np.ndarray) -> float:
    """Of the mean; 0 of a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def write_card(card: dict[str, Any], sha256: str, model: LatentModel) -> str:
    """README.md of the bundle."""
    lines = [
        f"# {card['name']}",
        "",
        "A learned Gaussian channel for photographs of any size, all slopes in one network: CompressAI's",
        "transforms of bmshj2018-factorized, noise instead of a quantiser, a class for every 16x16 pixels.",
        "",
        f"- data: `{card['source']}`, training split; figures below are from the test split",
        f"- command: `{card['command']}`",
        f"- training: {card['training_seconds']} s, {card['training']['steps']} steps"
        + (f", {card['note']}" if card["note"] else ""),
        f"- width {model.spec.width}, {model.spec.latent_dim} latents, {model.spec.classes} classes",
        f"- hash: `{sha256}`",
        "",
        f"Payloads of {card['held_out_pictures']} pictures of 256x256, coded with `-e {HELD_OUT_EFFORT}` and",
        "decoded, means with standard errors; the ideal is the divergence and the classes' bits.",
        "",
        "| rung | beta | lambda | bpp | ideal bpp | PSNR (dB) |",
        "|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(card["held_out"]):
        lines.append(
            f"| {number} | {row['beta']:.4g} | {row['beta'] / BETA_OF_LAMBDA:.2g} | "
            f"{row['rate_bpp']:.4f} ± {row['rate_se_bpp']:.4f} | {row['ideal_bpp']:.4f} | "
            f"{row['psnr_db']:.2f} ± {row['psnr_se_db']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _tiles(source: str, split: str, count: int, data_root: Path | None) -> Tensor:
    """Pictures of one tile each, uint8 (n, 256, 256, 3)."""
    side = TILE * LATENT_STRIDE
    found = load_source(source, split, data_root)
    return source_blocks(found, (side, side), channels=3, count=count, seed=1)[0].view(-1, side, side, 3)


def _targets(model: LatentModel, pictures: Tensor) -> list[Any]:
    targets = []
    for slope, prior in enumerate(model.priors):
        for x in pictures:
            latents = analyse_picture(model, x.numpy(), slope)
            (place,) = tiles_of(*latents.mean.shape[1:])
            targets.append(
                make_target(prior, latents, place, latents.classes[0], Channel("trellis", 64, 0), 1.0)
            )
    return targets
