"""``rcc train-ntc``: source -> items -> networks -> integer tables -> held-out R and D -> bundle."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rcccodec.atomic import check_target, make_folder, sweep, write_folder
from rcccodec.baselines.baseline import DEFAULT_SEARCH_PASSES
from rcccodec.baselines.bundle import DESCRIPTION, bundle_files
from rcccodec.baselines.card import write_card
from rcccodec.baselines.coding import code_parts, part_bits, picture_parts, read_codes, read_picture
from rcccodec.baselines.networks import Network, round_to_stored
from rcccodec.baselines.spec import NtcSpec, whole_patches
from rcccodec.baselines.tables import Reader, Tables, encode
from rcccodec.baselines.training import NtcPlan, Progress, plan_values, train
from rcccodec.checkpoint import load_checkpoint
from rcccodec.description import DAMAGE
from rcccodec.errors import InputError, ModelError
from rcccodec.sources import load_source
from rcccodec.training.blocks import source_blocks
from rcccodec.training.plan import FEATURES, channels_of, checkpoint_name
from rcccodec.training.trainer import to_unit

CHECKPOINT = "checkpoint-ntc.safetensors"
HELD_OUT_ITEMS, HELD_OUT_CROPS = 10_000, 32
SEARCHED_LATENTS = 64_000  # each costs two syntheses
VECTORS = 50_000
CROPS = 6000  # cut from photographs
CROP_SIDE = 128
IMAGES_PER_BLOCK = 4
TIMED_STEPS = 20

DEFAULT_BETAS = {
    "image": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0),
    "block": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0),
    "vector": (0.5, 1.0, 2.0, 4.0, 8.0),
    "factorized": (8.0, 20.0, 50.0, 130.0),
    "hyperprior": (8.0, 20.0, 50.0, 130.0),
}
# latents, hidden width, steps, codes of each slope a step, learning rate
_DEFAULTS = {
    "image": (32, 640, 15_000, 16, 3e-3),
    "block": (128, 640, 8000, 4, 1.5e-3),
    "factorized": (96, 64, 8000, 1, 1e-3),
    "hyperprior": (96, 64, 8000, 1, 1e-3),
}


@dataclass(frozen=True)
class NtcRun:
    """A whole run: the plan, where its data and first networks come from, whether its bundle is compact."""

    name: str
    source: str
    plan: NtcPlan
    start_from: Path | None = None
    compact: bool = False


def make_run(
    source: str,
    name: str,
    *,
    data_root: Path | None,
    kind: str | None = None,
    betas: tuple[float, ...] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    latent_dim: int | None = None,
    width: int | None = None,
    learning_rate: float | None = None,
    start_from: Path | None = None,
    compact: bool = False,
    jitter: float = 0.0,
    bfloat16: bool = False,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> NtcRun:
    """Fill in what was not said; the arguments are the options of ``rcc train-ntc``.

    With ``minutes`` the steps are those that a short timing of random data on ``device`` allows, or, when
    ``checkpoint`` exists, the ones it was made with.

    Raises:
        InputError: a kind or sizes that do not go with the source. ModelError: a damaged checkpoint.
    """
    channels, native = channels_of(source, data_root)
    fitting = (
        ("vector",)
        if channels == 0
        else ("factorized", "hyperprior")
        if native is None
        else ("image", "block")
    )
    kind = kind or fitting[0]
    if kind not in fitting:
        raise InputError(f"{source}: --kind {kind} does not go with it; {' or '.join(fitting)} does")
    if jitter and (native is None or channels == 0):
        raise InputError("--jitter is for sources of images of one size")
    if kind == "vector":
        assert native is not None
        dim = native[1]
        latents, hidden, count, codes, rate = dim, 4 * dim, 20_000, 64, 1e-3
        shape: tuple[int, ...] = (dim,)
    else:
        latents, hidden, count, codes, rate = _DEFAULTS[kind]
        shape = (*(native or (CROP_SIDE, CROP_SIDE)), channels)
    try:
        spec = NtcSpec(
            kind, shape, betas or DEFAULT_BETAS[kind], latent_dim or latents, width or hidden,
            features=min(256, math.prod(shape)), images_per_code=IMAGES_PER_BLOCK if kind == "block" else 1,
            maps=FEATURES if channels and native is not None and whole_patches(shape) else 0,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    plan = NtcPlan(
        spec, steps or count, batch_size=codes, learning_rate=learning_rate or rate, jitter=jitter,
        bfloat16=bfloat16, seed=seed,
        start=checkpoint_name(start_from) if start_from else "", soft_from=1.0 if spec.photographs else 0.0,
        hard_from=0.9 if spec.photographs else 0.85,
    )  # fmt: skip
    if minutes is not None and steps is None:
        plan = steps_for(plan, minutes, checkpoint, device)
    return NtcRun(name, source, plan, start_from, compact)


def train_baseline(
    run: NtcRun,
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

    Args:
        resume: go on from the checkpoint, if there is one.
        command: what to put on the card. report: told about every step. say: takes lines of results.
        stop: polled at every step and between measurements.

    Returns:
        The folder, or None when ``stop`` ended the run early.

    Raises:
        InputError, ModelError, OutputError, LimitError: as ``training.train`` and ``load_source`` do.
    """
    x = load_items(run, "train", data_root)
    held_out = load_items(run, "test", data_root)
    make_folder(output)
    checkpoint = output / CHECKPOINT
    check_target(checkpoint)
    sweep([checkpoint])
    trained = train(
        x, run.plan, checkpoint=checkpoint, resume=resume and os.path.exists(checkpoint), device=device,
        report=report, stop=stop, start_from=run.start_from,
    )  # fmt: skip
    if stop():
        return None
    network = trained.network.cpu().eval().requires_grad_(False)
    tables = network.tables()
    round_to_stored(network, compact=run.compact)
    measured, searched = [], []
    for k in range(len(run.plan.spec.betas)):
        measured.append(measure(network, tables, held_out, k))
        row = measured[-1]
        say(f"beta {row['beta']:g}: R {row['rate_bits']:.2f} bits, D {row['distortion']:.4g}")
        if not run.plan.spec.photographs:
            some = held_out[:: max(1, len(held_out) * run.plan.spec.latent_dim // SEARCHED_LATENTS)]
            searched.append(measure(network, tables, some, k, DEFAULT_SEARCH_PASSES))
        if stop():
            return None
    card: dict[str, Any] = {
        "name": run.name,
        "kind": run.plan.spec.kind,
        "source": run.source,
        "betas": list(run.plan.spec.betas),
        "item": item_name(run.plan.spec),
        "command": command,
        "training": plan_values(run.plan),
        "training_seconds": round(trained.seconds),
        "held_out": measured,
        "held_out_searched": searched,
    }
    files = bundle_files(card, network, tables, compact=run.compact)
    described = card | {"spec": run.plan.spec.to_json()}
    files["README.md"] = write_card(described, hashlib.sha256(files[DESCRIPTION]).hexdigest()).encode()
    write_folder(output, files)
    return output


def item_name(spec: NtcSpec) -> str:
    """What R and D of the card are given for: blocks are divided by their number of images."""
    if spec.photographs:
        return f"{spec.shape[0]}x{spec.shape[1]} crop"
    return "vector" if spec.kind == "vector" else "image"


def load_items(run: NtcRun, split: str, data_root: Path | None) -> Tensor:
    """Items (n, dim) of a split: uint8 images or crops, float32 vectors.

    Raises:
        InputError: the source is missing, or has too few items.
    """
    spec = run.plan.spec
    held_out = split == "test"
    limit = (HELD_OUT_ITEMS if held_out else VECTORS) if spec.kind == "vector" else None
    source = load_source(run.source, split, data_root, limit=limit)
    if spec.kind == "vector":
        return source_blocks(source, (1, 1), channels=0)[0]
    if spec.photographs:
        count = HELD_OUT_CROPS if held_out else CROPS
        return source_blocks(source, spec.shape[:2], channels=3, count=count, seed=held_out)[0]
    x = source_blocks(source, spec.shape[:2], channels=spec.shape[2])[0]
    if len(x) < spec.images_per_code:
        raise InputError(f"{run.source}: {len(x)} images are too few for one code")
    return x[:HELD_OUT_ITEMS] if held_out else x


@torch.no_grad()
def measure(
    network: Network, tables: dict[str, Tables], x: Tensor, slope: int, search_passes: int = 0
) -> dict[str, float]:
    """Held-out point of one slope, from items x (n, item dim): symbols really encoded and decoded.

    Returns:
        ``beta``; ``rate_bits`` and ``distortion`` of an item, with standard errors ``..._se`` over codes;
        ``lagrangian_bits``.
    """
    spec = network.spec
    if spec.photographs:
        height, width, _ = spec.shape
        bits, errors = [], []
        for row in x:
            picture = to_unit(row).view(1, height, width, 3).permute(0, 3, 1, 2)
            parts = picture_parts(network, tables, picture, slope)
            made = read_picture(network, tables, Reader(encode(parts)), (height, width), slope)
            bits.append(part_bits(parts))
            errors.append(float((made.clamp(0, 1) - picture).square().sum()))
        rates, distortions = np.array(bits), np.array(errors)
    else:
        count = len(x) // spec.images_per_code
        codes = to_unit(x[: count * spec.images_per_code]).reshape(count, spec.dim)
        parts = code_parts(network, tables, codes, slope, search_passes)
        made = read_codes(network, tables, Reader(encode(parts)), count, slope)
        ((symbols, rows, latents),) = parts
        rates = latents.bits(symbols, rows).reshape(count, -1).sum(1) / spec.images_per_code
        distortions = (made - codes).square().sum(1).double().numpy() / spec.images_per_code
    beta = spec.betas[slope]
    rate_bits, distortion = float(rates.mean()), float(distortions.mean())
    return {
        "beta": beta,
        "rate_bits": rate_bits,
        "rate_se_bits": _standard_error(rates),
        "distortion": distortion,
        "distortion_se": _standard_error(distortions),
        "lagrangian_bits": rate_bits + beta * distortion / math.log(2),
    }


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def steps_for(plan: NtcPlan, minutes: float, checkpoint: Path | None, device: str) -> NtcPlan:
    """The plan with as many steps as ``minutes`` allow."""
    if checkpoint is not None and os.path.exists(checkpoint):
        try:
            return replace(plan, steps=int(load_checkpoint(checkpoint)[1]["plan"]["steps"]))
        except DAMAGE as error:
            raise ModelError(f"{checkpoint}: not a checkpoint of a training run") from error
    x = torch.rand((512, math.prod(plan.spec.shape)), generator=torch.Generator().manual_seed(0))
    marks: list[float] = []
    short = replace(plan, steps=TIMED_STEPS, start="")
    train(x, short, device=device, report=lambda _: marks.append(time.monotonic()))
    tail = marks[len(marks) // 2 :]
    return replace(plan, steps=max(1, round(60 * minutes * (len(tail) - 1) / (tail[-1] - tail[0]))))
