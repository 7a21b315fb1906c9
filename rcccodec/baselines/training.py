"""Training a learned transform code: R + beta D at all its slopes at once; resumes bit for bit on a CPU."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rcccodec.baselines.block import from_one_shot
from rcccodec.baselines.bundle import load_bundle
from rcccodec.baselines.networks import Network, build_network, coding_tensors
from rcccodec.baselines.rounding import Rounding, schedule
from rcccodec.baselines.spec import NtcSpec
from rcccodec.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    seconds_spent,
    steps_done,
)
from rcccodec.description import DAMAGE, printable
from rcccodec.errors import InputError, LimitError, ModelError
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.spec import LatentSpec
from rcccodec.training.jitter import jitter
from rcccodec.training.trainer import principal_axes, to_unit

CHECKPOINT_EVERY_S = 60.0
LEAST_AFTER_START = 0.5
FAST = ("bottleneck.", "log_gain", "class_", "noise_")  # moved by plan.entropy_rate times the learning rate
TRANSFORMS = ("g_a.", "g_s.", "log_gain")
WIDENED_SHARE = 0.1  # of what the synthesis makes of a latent that was not there before
CLASS_CROPS = 512  # a latent network's classes begin with


@dataclass(frozen=True)
class NtcPlan:
    """Everything that decides the outcome of a run besides the data.

    ``batch_size``: codes of each slope in a step. ``entropy_rate``: factor on the learning rate of the
    entropy model and the gains, which move too slowly otherwise. ``soft_from``, ``hard_from``, ``sharpest``:
    see ``rounding.schedule``. ``warm_up``: share of the steps over which the rate's weight grows to 1;
    without it the low slopes stay at zero bits. ``jitter``: strength of the affine maps of
    rcccodec.training.jitter. ``bfloat16``: the transforms are, until the hard rounding. ``start``, the first
    hex digits of a checkpoint's SHA-256: the run begins with its networks, at full sharpness and half
    the rate's weight.
    """

    spec: NtcSpec | LatentSpec
    steps: int
    batch_size: int = 24
    learning_rate: float = 3e-3
    entropy_rate: float = 10.0
    soft_from: float = 0.0
    hard_from: float = 0.85
    sharpest: float = 5.0
    warm_up: float = 0.1
    least_rate_weight: float = 0.2
    jitter: float = 0.0
    bfloat16: bool = False
    seed: int = 0
    start: str = ""

    def learning_rate_at(self, step: int) -> float:
        """Warm-up over 200 steps, then a cosine to a fiftieth."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / 200) * max(0.02, cosine)

    def rounding_at(self, step: int) -> Rounding:
        """Noise, soft, hard; a run that begins with trained networks is as sharp as it gets at once."""
        rounding = schedule(step / self.steps, self.soft_from, self.hard_from, self.sharpest)
        return replace(rounding, alpha=self.sharpest) if self.start else rounding

    def rate_weight_at(self, step: int) -> float:
        """Weight of the rate, growing to 1 over the warm-up; a slope that fell to zero bits can recover."""
        least = max(self.least_rate_weight, LEAST_AFTER_START) if self.start else self.least_rate_weight
        return min(1.0, least + step / (self.warm_up * self.steps + 1))


@dataclass(frozen=True)
class Progress:
    """What a step reports: running means over about 100 steps.

    ``loss_bits`` is of all slopes, ``rate_bits`` and ``distortion`` of the middle one, ``beta``.
    The fields are those that ``rcc train`` reports; ``phase`` is the rounding in use.
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
    """A finished or interrupted run."""

    network: Network | LatentNetwork
    step: int
    seconds: float


def train(
    x: Tensor,
    plan: NtcPlan,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    start_from: Path | None = None,
) -> Trained:
    """Fit a code to the rows of ``x``.

    Args:
        x: (n, dim) images, crops or vectors, uint8 or float32; of a ``block`` code, single images.
        checkpoint: rewritten every minute and at the end; with ``resume`` the run continues from it.
        report, stop: told about, and asked, at every step.
        start_from: checkpoint whose networks this run begins with; a block code also takes a one-shot one, a
            hyperprior the transforms of a factorised one.

    Raises:
        InputError: fewer than two items, or no CompressAI. LimitError: the training diverged.
        ModelError: the checkpoint is unreadable or of another plan. OutputError: it cannot be written.

    Invariants: same plan, data and thread count give the same weights on a CPU; resuming changes nothing;
    the global random state is left as it was.
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} items are too few to train on")
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(plan.seed)
        return _train(x, plan, checkpoint, resume, device, report, stop, start_from)


def _train(
    x: Tensor,
    plan: NtcPlan,
    checkpoint: Path | None,
    resume: bool,
    device: str,
    report: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
    start_from: Path | None,
) -> Trained:
    spec = plan.spec
    network = LatentNetwork(spec) if isinstance(spec, LatentSpec) else build_network(spec)
    if isinstance(spec, NtcSpec) and not spec.photographs:
        network.start_from(*principal_axes(to_unit(x).flatten(1), min(spec.features, x.shape[1])))
    begun = start_from is not None and not resume and _start(network, spec, start_from)
    if isinstance(network, LatentNetwork) and not resume and not begun:
        network.fit_classes(pictures(x[torch.randperm(len(x))[:CLASS_CROPS]], spec))
    network = network.to(device).train()
    if plan.spec.photographs:  # convolutions are faster so
        network = network.to(memory_format=torch.channels_last)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    fast = [p for name, p in parameters.items() if name.startswith(FAST)]
    slow = [p for name, p in parameters.items() if not name.startswith(FAST)]
    optimizer = torch.optim.Adam([{"params": slow}, {"params": fast}], lr=plan.learning_rate)
    step, seconds, means = 0, 0.0, [math.nan] * 3
    if resume and checkpoint is not None:
        tensors, values = load_checkpoint(checkpoint)
        if values.get("plan") != plan_values(plan):
            raise ModelError(
                f"{checkpoint}: made by a run with other settings; start anew or give the same ones"
            )
        try:
            network.load_state_dict(_under(tensors, "network."))
            restore_optimizer(optimizer, _under(tensors, "optimizer."))
            torch.set_rng_state(tensors["rng"])
            step, seconds = steps_done(values, plan.steps), seconds_spent(values)
            lagrangian, rate, error = values["means"]
            means = [float(lagrangian), float(rate), float(error)]
        except DAMAGE as error:
            cause = printable(" ".join(str(error).split()), 200)
            raise ModelError(f"{checkpoint}: not a checkpoint of this run ({cause})") from error

    def save() -> None:
        if checkpoint is not None:
            tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
            tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(optimizer).items()}
            tensors["rng"] = torch.get_rng_state()
            values = {"plan": plan_values(plan), "step": step, "seconds": seconds, "means": means}
            save_checkpoint(checkpoint, tensors, values)

    betas = torch.tensor(plan.spec.betas, device=device)
    slope = torch.arange(plan.batch_size * len(betas), device=device) % len(betas)
    middle = len(betas) // 2
    began, saved = time.monotonic() - seconds, time.monotonic()
    while step < plan.steps and not (stop and stop()):
        rate = plan.learning_rate_at(step)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, rate * plan.entropy_rate
        rounding = plan.rounding_at(step)
        batch = draw(x, plan, len(slope)).to(device)
        half = plan.bfloat16 and rounding.mode != "hard"  # the end settles on what the decoder computes
        with torch.autocast(device, torch.bfloat16, enabled=half):
            nats, distortion = network.rate_and_distortion(batch, slope, rounding)
        lagrangian = plan.rate_weight_at(step) * nats + betas[slope] * distortion
        # steep slopes have large Lagrangians; equal weights would leave the others little of the networks
        loss = (lagrangian / betas[slope].sqrt()).mean() / (plan.spec.dim / 1024)
        if not math.isfinite(float(loss.detach())):
            raise LimitError(f"training diverged at step {step}: the loss is {float(loss.detach())}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1e3)
        optimizer.step()
        step += 1
        seconds = time.monotonic() - began
        mine = slope == middle
        now = (float(lagrangian.detach().mean()), float(nats.detach()[mine].mean()))
        now = (now[0] / math.log(2), now[1] / math.log(2), float(distortion.detach()[mine].mean()))
        means = [b if math.isnan(a) else 0.99 * a + 0.01 * b for a, b in zip(means, now, strict=True)]
        if report is not None:
            beta = plan.spec.betas[middle]
            report(Progress(step, plan.steps, rounding.mode, means[0], beta, seconds, means[1], means[2]))
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save()
            saved = time.monotonic()
    save()
    return Trained(network, step, seconds)


def _start(network: Network | LatentNetwork, spec: NtcSpec | LatentSpec, checkpoint: Path) -> bool:
    """Take over the networks of a checkpoint or bundle; whether they are those of a latent network."""
    try:
        if os.path.isdir(checkpoint):
            bundle = load_bundle(checkpoint)
            state, begun = coding_tensors(bundle.network), bundle.spec.to_json()
        else:
            tensors, values = load_checkpoint(checkpoint)
            state, begun = _under(tensors, "network."), values["plan"]["spec"]
        kinds = (begun.get("kind", "latent"), getattr(spec, "kind", "latent"))
        betas = tuple(begun["betas"])
        if kinds == ("image", "block"):
            state = from_one_shot(spec, state)
        elif kinds == ("factorized", "hyperprior"):  # the transforms alone
            state = {name: t for name, t in state.items() if name.startswith(TRANSFORMS)}
        elif kinds[0] == "factorized" and (begun["latent_dim"], betas) != (spec.latent_dim, spec.betas):
            state = widened(network, state, betas, spec.betas)
            betas = spec.betas
        if betas != spec.betas:
            raise ValueError("it was trained for other slopes")
        network.load_state_dict(network.state_dict() | state)
    except DAMAGE as error:
        cause = printable(" ".join(str(error).split()), 200)
        raise ModelError(f"{checkpoint}: its networks do not fit this run ({cause})") from error
    return kinds[0] == "latent"


def is_latent(start: Path) -> bool:
    """Whether a checkpoint (or the folder of a bundle, which is not) is of a latent network.

    Raises:
        ModelError: it is damaged.
    """
    if os.path.isdir(start):
        return False
    plan = load_checkpoint(start)[1].get("plan")
    spec = plan.get("spec") if isinstance(plan, dict) else None
    return isinstance(spec, dict) and "classes" in spec


def widened(
    network: Network | LatentNetwork,
    state: dict[str, Tensor],
    betas: tuple[float, ...],
    wanted: tuple[float, ...],
) -> dict[str, Tensor]:
    """The transforms of ``state`` for more latents and other slopes, the rest as ``network`` begins.

    Gains are interpolated in ln beta, and extended beyond the ends with the last pair's incline.
    """
    own = {name: t.detach().clone() for name, t in network.named_parameters() if name.startswith(TRANSFORMS)}
    latents = state["g_s.0.weight"].shape[0]
    new_channels = own["g_s.0.weight"].shape[0] - latents
    if new_channels < 0:
        raise ValueError("it has more latents")
    own["g_s.0.weight"] *= WIDENED_SHARE
    for name, tensor in own.items():
        old = state[name]
        if name.startswith("log_gain"):
            tensor[:, :latents] = torch.stack([_at(old, betas, beta) for beta in wanted])
        elif name.startswith(("g_a.6.", "g_s.0.weight")):
            tensor[: old.shape[0]] = old
        else:
            tensor.copy_(old)
    return own


def _at(gains: Tensor, betas: tuple[float, ...], beta: float) -> Tensor:
    """log gains (latents,) at ``beta``, of those (K, latents) at ``betas``."""
    upper = min(max(1, sum(b < beta for b in betas)), len(betas) - 1)
    low, high = math.log(betas[upper - 1]), math.log(betas[upper])
    share = (math.log(beta) - low) / (high - low)
    return gains[upper - 1] + share * (gains[upper] - gains[upper - 1])


def pictures(x: Tensor, spec: NtcSpec | LatentSpec) -> Tensor:
    """Crops (n, dim) in the order (h, w, c) as pictures (n, 3, h, w) in [0, 1]."""
    height, width, _ = spec.shape
    return to_unit(x).float().view(-1, height, width, 3).permute(0, 3, 1, 2)


def draw(x: Tensor, plan: NtcPlan, count: int) -> Tensor:
    """``count`` random codes (count, dim), float32, of the items x."""
    rows = to_unit(x[torch.randint(len(x), (count * plan.spec.images_per_code,))]).float()
    if plan.jitter:
        rows = jitter(rows, plan.spec.shape, plan.jitter)
    return rows.reshape(count, plan.spec.dim)


def plan_values(plan: NtcPlan) -> dict[str, Any]:
    """The plan as JSON would give it back, less start where unused."""
    values = asdict(plan) | {"spec": plan.spec.to_json()}
    return {name: value for name, value in values.items() if value or name != "start"}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
