"""From the words of ``rcc train`` to a RunPlan: defaults by kind of source, stages, steps for the minutes."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rcccodec.bundle import MAX_RUNGS, MAX_STAGES
from rcccodec.checkpoint import load_checkpoint
from rcccodec.description import DAMAGE
from rcccodec.distortion import parse_distortion
from rcccodec.errors import InputError, ModelError
from rcccodec.model import MAX_SLOPE
from rcccodec.proposals.generator import PATCH_STRIDE, GeneratorSpec
from rcccodec.sources import load_source
from rcccodec.training.blocks import PHOTO_BLOCKS
from rcccodec.training.extension import keep
from rcccodec.training.rungs import RunPlan, StagePlan
from rcccodec.training.trainer import TrainingPlan, train

DEFAULT_STAGES = {1: "32:0.4", 3: "8:10"}
VAE_STEPS, NERD_STEPS = 20_000, 8000
CANDIDATES = 1 << 15
FEATURES = 16  # feature maps of a patches generator
TIMED_STEPS = 20


def make_plan(
    source: str,
    name: str,
    *,
    data_root: Path | None,
    stages: Sequence[str] = (),
    arch: str | None = None,
    from_scratch: bool = False,
    distortion: float | None = None,
    metric: str = "mse",
    vae_steps: Sequence[int] = (VAE_STEPS,),
    nerd_steps: Sequence[int] = (NERD_STEPS,),
    minutes: float | None = None,
    candidates: int | None = None,
    step_candidates: int = 8192,
    latent_dim: int | None = None,
    width: int | None = None,
    coordinates: Sequence[int] | None = None,
    blocks: int = PHOTO_BLOCKS,
    jitter: float = 0.0,
    start_from: Path | None = None,
    extend: Path | None = None,
    default_rung: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> RunPlan:
    """Fill in what was not said; the arguments are the options of ``rcc train``.

    Pixels of images of one size come from a sigmoid; photographs are coded in KLT coordinates, and so are
    residuals. With ``minutes`` the steps of training (not the measurements after it) are scaled by a short
    timing of random data on ``device``, or, when ``checkpoints`` names a folder to resume from, taken from
    there. ``distortion`` and a ``metric`` other than mse train from scratch. Steps are those of each stage,
    or one number for all.

    Raises:
        InputError: stages, metric or sizes that do not fit the source. ModelError: a damaged checkpoint.
    """
    parse_distortion(metric)
    if distortion is not None and not 0 < distortion < math.inf:
        raise InputError(f"distortion {distortion:g}: must be a positive number")
    channels, native = channels_of(source, data_root)
    words = list(stages) or (
        ["1:1"] if channels == 0 else [DEFAULT_STAGES[channels if native is None else 1]]
    )
    single = distortion is not None or metric != "mse" or arch in ("dcgan", "fc") or channels == 0
    parsed = [parse_stage(word) for word in words]
    if single and (len(words) > 1 or parsed[0][2][0] < parsed[0][2][1]):
        raise InputError(
            "vectors, --distortion, --metric, and dcgan or fc generators take one stage at one slope"
        )
    if len(words) > MAX_STAGES or sum(len(betas) for _, betas, _ in parsed) > MAX_RUNGS:
        raise InputError(f"a model has at most {MAX_STAGES} stages and {MAX_RUNGS} slopes in all")
    if coordinates is not None and len(coordinates) != len(words):
        raise InputError(f"--coordinates needs a number for each of the {len(words)} stages")
    if from_scratch or metric != "mse" or distortion is not None or start_from is not None:
        vae_steps = (0,)
    if any(len(steps) not in (1, len(words)) for steps in (vae_steps, nerd_steps)):
        raise InputError(f"steps: give one number, or one for each of the {len(words)} stages")
    if start_from is not None and (len(words) > 1 or distortion is not None or metric != "mse"):
        raise InputError("--start-from goes with one stage at fixed slopes")
    if jitter and (channels == 0 or native is None):
        raise InputError("--jitter is for sources of images of one size")
    rungs = sum(len(betas) for _, betas, _ in parsed)
    kept = keep(extend) if extend is not None else None
    if kept is not None:
        if single or start_from is not None or channels != kept.model.channels:
            raise InputError(f"{extend}: --extend goes with a source and slopes of the model's own kind")
        if candidates not in (None, kept.model.default_num_candidates):
            raise InputError(f"{extend}: its N is {kept.model.default_num_candidates} and stays so")
        rungs, candidates = rungs + len(kept.model.rungs), kept.model.default_num_candidates
        if rungs > MAX_RUNGS or len(words) + len(kept.stages) > MAX_STAGES:
            raise InputError(f"a model has at most {MAX_STAGES} stages and {MAX_RUNGS} slopes in all")
    if default_rung is not None and not 0 <= default_rung < rungs:
        raise InputError(f"--default-rung: the model will have rungs 0 to {rungs - 1}")
    start = checkpoint_name(start_from) if start_from is not None else ""
    plans = []
    for s, (word, (side, betas, slopes)) in enumerate(zip(words, parsed, strict=True)):
        above = plans[-1].block[0] if plans else kept.stages[-1].block[0] if kept else side
        if above % side:
            raise InputError(f"stage {word!r}: its side must divide the one before ({above})")
        shape = (native or (1, 1))[1:] if channels == 0 else (side, side, channels)
        linear = native is None or s > 0 or channels == 0 or kept is not None
        if arch == "patches" and linear:
            raise InputError("--arch patches is for the first stage of images of one size")
        if coordinates is not None and not linear:
            raise InputError("--coordinates is for photographs, vectors and residuals")
        try:
            spec = generator_spec(
                arch, shape, slopes, latent_dim=latent_dim, width=width,
                output="linear" if linear else "sigmoid", coordinates=coordinates[s] if coordinates else None,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(f"stage {word!r}: {error}") from error
        training = TrainingPlan(
            generator=spec,
            slopes=slopes,
            vae_steps=vae_steps[s % len(vae_steps)],
            nerd_steps=nerd_steps[s % len(nerd_steps)],
            target_distortion=distortion,
            distortion=metric,
            num_candidates=step_candidates,
            seed=seed,
            jitter=jitter,
            start=start,
        )
        if minutes is not None:
            number = s + (len(kept.stages) if kept else 0)
            saved = checkpoints / f"checkpoint-{number}.safetensors" if checkpoints else None
            training = _steps_for(training, minutes / len(words), saved, device)
        plans.append(StagePlan((side, side), betas, training))
    codebook = kept.model.default_seed if kept else 0
    return RunPlan(
        name,
        source,
        channels,
        tuple(plans),
        candidates or CANDIDATES,
        codebook,
        default_rung,
        blocks,
        start_from,
        kept,
    )


def checkpoint_name(path: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a checkpoint, or of a bundle's weights."""
    file = path / "weights.safetensors" if os.path.isdir(path) else path
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error


def channels_of(source: str, data_root: Path | None) -> tuple[int, tuple[int, int] | None]:
    """Channels and size of a source's images; 3 and None for photographs; 0 and (1, m) for vectors."""
    probe = load_source(source, "train", data_root, limit=1)
    if isinstance(probe.x, list):
        return 3, None
    if probe.shape is None:
        return 0, (1, probe.x.shape[1])
    return probe.shape[2], (probe.shape[0], probe.shape[1])


def parse_stage(text: str) -> tuple[int, tuple[float, ...], tuple[float, float]]:
    """``32:0.15,0.2,0.4`` or ``16:3,6@2-10`` as block side, slopes and the range of slopes trained for.

    Raises:
        InputError: any other form.
    """
    try:
        side, _, rest = text.partition(":")
        slopes, _, span = rest.partition("@")
        betas = tuple(float(b) for b in slopes.split(","))
        low, high = (float(b) for b in span.split("-")) if span else (min(betas), max(betas))
        if int(side) > 0 and all(0 < low <= beta <= high <= MAX_SLOPE for beta in betas):
            return int(side), betas, (low, high)
    except ValueError:
        pass
    raise InputError(f"stage {text!r}: expected SIDE:SLOPE[,SLOPE...][@LOW-HIGH], such as 16:3,6@2-10")


def generator_spec(
    arch: str | None,
    shape: tuple[int, ...],
    slopes: tuple[float, float],
    *,
    latent_dim: int | None,
    width: int | None,
    output: str,
    coordinates: int | None,
) -> GeneratorSpec:
    """The specification of a stage's generator, with the defaults of its architecture.

    Without a name: ``patches`` for pixels in whole patches, else ``mlp``. The sizes of ``dcgan`` and ``fc``
    are the paper's (nerd-rcc, appendix C-A).

    Raises:
        ValueError: sizes out of bounds.
    """
    dim = math.prod(shape)
    if arch == "fc":
        vector = len(shape) == 1
        latents, hidden = latent_dim or (dim if vector else 128), width or (dim if vector else 512)
        return GeneratorSpec("fc", shape, latents, hidden, 2, output, None, slopes)
    if arch == "dcgan":
        return GeneratorSpec("dcgan", shape, latent_dim or 128, width or 32, 4, "sigmoid", None, slopes)
    patched = output == "sigmoid" and not any(side % PATCH_STRIDE for side in shape[:2])
    if arch == "patches" or (arch is None and patched):
        sizes = (latent_dim or min(24, dim), width or 512, 2)
        return GeneratorSpec("patches", shape, *sizes, output, None, slopes, FEATURES)
    count = min(coordinates or dim, dim) if output == "linear" else None
    return GeneratorSpec("mlp", shape, latent_dim or min(24, dim), width or 512, 2, output, count, slopes)


def _steps_for(plan: TrainingPlan, minutes: float, saved: Path | None, device: str) -> TrainingPlan:
    """The plan with its steps scaled, in their proportion, to take about ``minutes``."""
    if saved is not None and os.path.exists(saved):
        try:
            steps = load_checkpoint(saved)[1]["plan"]
            return replace(plan, vae_steps=int(steps["vae_steps"]), nerd_steps=int(steps["nerd_steps"]))
        except DAMAGE as error:
            raise ModelError(f"{saved}: not a checkpoint of a training run") from error
    x = torch.rand((2048, plan.generator.dim), generator=torch.Generator().manual_seed(0))
    expected_s = 0.0
    for phase in ("vae_steps", "nerd_steps"):
        if steps := getattr(plan, phase):
            short = replace(plan, **{"vae_steps": 0, "nerd_steps": 0, phase: TIMED_STEPS})
            if phase == "nerd_steps" and plan.vae_steps:
                short = replace(short, vae_steps=1)
            marks: list[float] = []
            train(x, short, device=device, report=lambda _, marks=marks: marks.append(time.monotonic()))
            tail = marks[len(marks) // 2 :]
            expected_s += steps * (tail[-1] - tail[0]) / max(1, len(tail) - 1)
    scale = 60 * minutes / expected_s
    return replace(
        plan,
        vae_steps=max(1, round(plan.vae_steps * scale)) if plan.vae_steps else 0,
        nerd_steps=max(1, round(plan.nerd_steps * scale)),
    )
