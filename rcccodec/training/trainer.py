"""One training run: a beta-VAE warm start, then NERD; its checkpoints resume bit for bit on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rcccodec.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    seconds_spent,
    steps_done,
)
from rcccodec.description import DAMAGE, printable
from rcccodec.distortion import parse_distortion
from rcccodec.errors import InputError, LimitError, ModelError
from rcccodec.proposals.generator import Generator, GeneratorSpec, build_generator
from rcccodec.ranks import ALONE, Ranks
from rcccodec.training.encoder import Encoder
from rcccodec.training.jitter import jitter
from rcccodec.training.objectives import (
    nerd_loss,
    nerd_pool_loss,
    nerd_prior_loss,
    posterior_distortion,
    slope_for_distortion,
    vae_loss,
)

ENCODER_INPUTS = 256
CHECKPOINT_EVERY_S = 60.0
LEAST_SLOPE = 1e-3  # that a loss is divided by


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the outcome of a run besides the data.

    ``slopes``: lowest and highest beta (nats per unit of distortion); each step draws its own, log-uniformly.
    ``target_distortion`` switches NERD to Algorithm 1's fixed-D form: beta is solved anew at every step.
    ``vae_steps`` = 0 is NERD from scratch, with candidates from the prior and beta annealed upward.
    ``pool_*`` belong to NERD after a warm start, ``num_candidates`` (a step's N) to NERD from scratch.
    ``jitter`` is the strength of the random affine maps of training images (rcccodec.training.jitter).
    ``start``, the first 12 hex digits of a checkpoint's SHA-256, makes that run the warm start.
    """

    generator: GeneratorSpec
    slopes: tuple[float, float]
    vae_steps: int
    nerd_steps: int
    target_distortion: float | None = None
    distortion: str = "mse"
    batch_size: int = 256
    nerd_batch_size: int = 384
    pool_draws: int = 3
    pool_prior_draws: int = 384
    num_candidates: int = 8192
    encoder_width: int = 512
    learning_rate: float = 1e-3
    nerd_learning_rate: float = 4e-4
    seed: int = 0
    jitter: float = 0.0
    start: str = ""

    @property
    def steps(self) -> int:
        """Steps of both phases."""
        return self.vae_steps + self.nerd_steps

    def learning_rate_at(self, step: int) -> float:
        """Warm-up over 200 steps, then a cosine to a fiftieth, in each phase anew."""
        in_vae = step < self.vae_steps
        total = self.vae_steps if in_vae else self.nerd_steps
        done = step if in_vae else step - self.vae_steps
        peak = self.learning_rate if in_vae else self.nerd_learning_rate
        return peak * min(1.0, (done + 1) / 200) * max(0.02, 0.5 * (1 + math.cos(math.pi * done / total)))


@dataclass(frozen=True)
class Progress:
    """What a step reports.

    ``phase`` is ``vae`` or ``nerd``; ``beta`` the step's slope, ``seconds`` those of all starts together.
    ``loss_bits`` (objective), ``rate_bits`` and ``distortion`` are running means over about 100 steps and all
    slopes that they drew.
    """

    step: int
    steps: int
    phase: str
    loss_bits: float
    beta: float
    seconds: float
    rate_bits: float
    distortion: float


@dataclass(frozen=True)
class Trained:
    """A finished (or interrupted) run; ``beta`` is the slope of the last step, solved in the fixed-D form."""

    generator: Generator
    plan: TrainingPlan
    step: int
    seconds: float
    beta: float


def principal_axes(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The KLT of the rows of x: mean (dim,), leading orthonormal axes (count, dim), variances (count,)."""
    sample = x[:: max(1, len(x) // 100_000)].double()
    mean = sample.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((sample - mean).T))
    axes = vectors.flip(1)[:, :count].T.contiguous()
    return mean.float(), axes.float(), values.flip(0)[:count].clamp_min(0).float()


def train(
    x: Tensor,
    plan: TrainingPlan,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    start_from: Path | None = None,
    ranks: Ranks = ALONE,
) -> Trained:
    """Fit a generator to the rows of ``x``.

    Args:
        x: (n, dim) float32 blocks, or uint8 pixels that are divided by 255 batch by batch.
        plan: sizes, slopes, steps, seed.
        checkpoint: file that is rewritten every minute and at the end; with ``resume`` the run continues
            from it.
        device: where the networks are; the blocks stay where they are.
        report: told about every step.
        stop: polled every step; when true the run ends early, checkpoint written.
        start_from: checkpoint of a finished or interrupted run whose networks this one begins with.
        ranks: processes that train together: each draws its own batches and candidates, gradients are
            averaged, the first writes the checkpoint. Another number of them can resume it, with new draws.

    Raises:
        InputError: fewer than two blocks. LimitError: the training diverged.
        ModelError: the checkpoint is unreadable or belongs to another plan.
        OutputError: the checkpoint cannot be written.

    Invariants: same plan, data and thread count give the same weights on a CPU; resuming changes nothing;
    the global random state is left as it was.
    """
    if x.dim() != 2 or x.shape[1] != plan.generator.dim:
        raise ValueError(f"blocks are {tuple(x.shape)}, the generator makes {plan.generator.dim} values")
    if len(x) < 2:
        raise InputError(f"{len(x)} blocks are too few to train on")
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(plan.seed)
        return _train(x, plan, checkpoint, resume, device, report, stop, start_from, ranks)


def _train(
    x: Tensor,
    plan: TrainingPlan,
    checkpoint: Path | None,
    resume: bool,
    device: str,
    report: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
    start_from: Path | None,
    ranks: Ranks,
) -> Trained:
    generator = build_generator(plan.generator)
    coordinates = plan.generator.num_coordinates or 0
    pixels = to_unit(x) if x.dtype == torch.uint8 else x
    mean, axes, variances = principal_axes(pixels, max(coordinates, min(ENCODER_INPUTS, x.shape[1])))
    linear = plan.generator.output == "linear" and plan.generator.arch == "mlp"
    generator.start_from(
        mean, axes[:coordinates] if linear else None, variances[:coordinates] if linear else None
    )
    inputs = min(ENCODER_INPUTS, x.shape[1])
    encoder = Encoder(mean, axes[:inputs], variances[:inputs], plan.generator.latent_dim, plan.encoder_width)
    generator, encoder = generator.to(device), encoder.to(device)
    parameters = [*generator.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=plan.learning_rate)
    step, seconds, beta = 0, 0.0, plan.slopes[1]
    loss_bits, rate_bits, distortion = math.nan, math.nan, math.nan
    if start_from is not None and not resume and ranks.is_first:  # the others copy it
        tensors, _ = load_checkpoint(start_from)
        try:
            generator.load_state_dict(_under(tensors, "generator."))
            encoder.load_state_dict(_under(tensors, "encoder."))
        except RuntimeError as error:
            raise ModelError(f"{start_from}: its networks have other sizes than this run's") from error
    if resume and checkpoint is not None:
        tensors, values = ranks.first_of(load_checkpoint(checkpoint) if ranks.is_first else None)
        if values.get("plan") != plan_values(plan):
            raise ModelError(
                f"{checkpoint}: made by a run with other settings; start anew or give the same ones"
            )
        try:
            generator.load_state_dict(_under(tensors, "generator."))
            encoder.load_state_dict(_under(tensors, "encoder."))
            restore_optimizer(optimizer, _under(tensors, "optimizer."))
            step, seconds = steps_done(values, plan.steps), seconds_spent(values)
            loss_bits, beta = float(values["loss_bits"]), float(values["beta"])
            rate_bits = float(values.get("rate_bits", math.nan))
            distortion = float(values.get("distortion", math.nan))
            _restore_streams(tensors, plan, step, device, ranks)
        except DAMAGE as error:
            cause = printable(" ".join(str(error).split()), 200)
            raise ModelError(f"{checkpoint}: not a checkpoint of this run ({cause})") from error
    elif not ranks.is_first:
        torch.manual_seed(ranks.stream_seed(plan.seed))  # the networks were begun alike
    state = [*generator.state_dict().values(), *encoder.state_dict().values()]
    ranks.copy_first(state)

    def save() -> None:
        if checkpoint is None:
            return
        streams = _streams(device, ranks)
        if not ranks.is_first:
            return
        tensors = {f"generator.{k}": v for k, v in generator.state_dict().items()}
        tensors |= {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        tensors |= streams
        values = {
            "plan": plan_values(plan),
            "step": step,
            "seconds": seconds,
            "loss_bits": loss_bits,
            "beta": beta,
            "rate_bits": rate_bits,
            "distortion": distortion,
        }
        save_checkpoint(checkpoint, tensors, values)

    began, saved = time.monotonic() - seconds, time.monotonic()
    while step < plan.steps and not ranks.any(bool(stop and stop())):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(step)
        now = _step_loss(x, plan, step, beta, generator, encoder)
        value, beta, reached_rate, reached, loss = ranks.mean(
            float(now.objective.detach()) / math.log(2), now.beta, float(now.rate) / math.log(2),
            float(now.distortion), float(now.loss.detach()),
        )  # fmt: skip
        if not (math.isfinite(value) and math.isfinite(loss)):
            raise LimitError(
                f"training diverged at step {step}: the objective is {value} bits at slope {beta:g}"
            )
        optimizer.zero_grad(set_to_none=True)
        now.loss.backward()
        ranks.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1e3)
        optimizer.step()
        step += 1
        seconds = time.monotonic() - began
        loss_bits = _running_mean(loss_bits, value)
        rate_bits = _running_mean(rate_bits, reached_rate)
        distortion = _running_mean(distortion, reached)
        if report is not None:
            phase = "vae" if step <= plan.vae_steps else "nerd"
            report(Progress(step, plan.steps, phase, loss_bits, beta, seconds, rate_bits, distortion))
        if ranks.any(time.monotonic() - saved > CHECKPOINT_EVERY_S):
            save()
            saved = time.monotonic()
    ranks.copy_first(state)  # statistics of batch normalisation are each rank's own
    save()
    return Trained(generator, plan, step, seconds, beta)


def _streams(device: str, ranks: Ranks) -> dict[str, Tensor]:
    """The random streams of all ranks by their names in a checkpoint."""
    own = [torch.get_rng_state()]
    if device != "cpu":
        own.append(torch.cuda.get_rng_state(device))
    return {
        name if rank == 0 else f"{name}.{rank}": stream
        for rank, streams in enumerate(ranks.gather(own))
        for name, stream in zip(("rng", "rng_device"), streams, strict=False)
    }


def _restore_streams(
    tensors: dict[str, Tensor], plan: TrainingPlan, step: int, device: str, ranks: Ranks
) -> None:
    """Put this rank's streams back; a rank that the checkpoint does not know begins one of its own."""
    end = "" if ranks.is_first else f".{ranks.rank}"
    if end and f"rng{end}" not in tensors:
        torch.manual_seed(ranks.stream_seed(plan.seed + step))
        return
    torch.set_rng_state(tensors[f"rng{end}"])
    if device != "cpu" and f"rng_device{end}" in tensors:
        torch.cuda.set_rng_state(tensors[f"rng_device{end}"], device)


@dataclass(frozen=True)
class StepLoss:
    """What one step differentiates and reports, in nats.

    In the fixed-D form ``objective`` is the rate and ``loss`` in units of distortion.
    """

    loss: Tensor
    objective: Tensor
    beta: float
    rate: Tensor | float
    distortion: Tensor | float


def _step_loss(
    x: Tensor, plan: TrainingPlan, step: int, beta: float, generator: Generator, encoder: Encoder
) -> StepLoss:
    """The loss of step number ``step``; ``beta`` is the slope of the step before."""
    device = next(generator.parameters()).device
    low, high = plan.slopes
    in_vae = step < plan.vae_steps
    size = plan.batch_size if in_vae else plan.nerd_batch_size
    batch = to_unit(x[torch.randint(len(x), (size,))]).to(device)
    if plan.jitter:
        batch = jitter(batch, plan.generator.shape, plan.jitter)
    if in_vae:
        log_slope = torch.empty(size, device=device).uniform_(math.log(low), math.log(high) + 1e-9)
        kl_weight = min(1.0, 0.2 + step / (0.1 * plan.vae_steps + 1))
        loss, rate, reached = vae_loss(batch, log_slope, generator, encoder, kl_weight)
        return StepLoss(loss, loss, high, rate, reached)
    if plan.target_distortion is not None:
        distortion = parse_distortion(plan.distortion)
        _, distances = nerd_prior_loss(batch, beta, generator, plan.num_candidates, distortion)
        # the envelope theorem: at the maximising beta its own derivative vanishes, so it is a constant here
        beta = slope_for_distortion(distances, plan.target_distortion)
        loss = nerd_loss(None, distances, beta)
        rate = loss - beta * plan.target_distortion
        # in units of distortion: the slope begins at its highest, and Adam would long remember such gradients
        scaled = loss / max(beta, LEAST_SLOPE)
        return StepLoss(scaled, rate, beta, rate.detach(), posterior_distortion(distances.detach(), beta))
    beta = math.exp(float(torch.empty(()).uniform_(math.log(low), math.log(high) + 1e-9)))
    if plan.vae_steps or plan.start:
        loss, value, rate, reached = nerd_pool_loss(
            batch, beta, generator, encoder, plan.pool_draws, plan.pool_prior_draws
        )
        return StepLoss(loss, value, beta, rate, reached)
    annealed = beta * min(1.0, 0.1 + 1.8 * (step - plan.vae_steps) / plan.nerd_steps)
    loss, distances = nerd_prior_loss(
        batch, annealed, generator, plan.num_candidates, parse_distortion(plan.distortion)
    )
    reached = posterior_distortion(distances.detach(), annealed)
    return StepLoss(loss, loss, annealed, loss.detach() - annealed * reached, reached)


def _running_mean(before: float, value: float) -> float:
    return value if math.isnan(before) else 0.99 * before + 0.01 * value


def to_unit(x: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]; floats pass."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def plan_values(plan: TrainingPlan) -> dict[str, Any]:
    """The plan as JSON would give it back (tuples as lists), less jitter and start where unused."""
    values = asdict(plan)
    values["slopes"] = list(plan.slopes)
    values["generator"] = {k: list(v) if isinstance(v, tuple) else v for k, v in values["generator"].items()}
    return {name: value for name, value in values.items() if value or name not in ("jitter", "start")}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
