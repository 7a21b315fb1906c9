"""Annealed importance sampling: the whole curve R_p(D) of a prior and a decoder from one run (lossy-rates).

    z_0 ~ p                                     schedule 0 = beta_0 < beta_1 < ... < beta_K
    for k = 1 .. K:  log w <- log w - (beta_k - beta_(k-1)) d(x, f(z))
                     z <- Hamiltonian Monte Carlo for p(z) exp(-beta_k d(x, f(z)))
    where beta_k is asked for:  L = -log mean w,  D = sum w d / sum w,  R = L - beta_k D   (eqs. 10, 14, 15)

w is an unbiased estimate of Z, so E[L] >= -log Z, and (E[D], E[R]) lies on or above R_p(D) (props. 3, 4); but
R alone may lie below the rate at that slope. The transitions use steps from an earlier run with other seeds:
tuned on the way, they would break the chains' invariance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rcccodec.checkpoint import fitting, seconds_spent, steps_done
from rcccodec.description import DAMAGE, printable
from rcccodec.distortion import paired
from rcccodec.errors import InputError, ModelError
from rcccodec.rd.hmc import State, hmc_transition
from rcccodec.rd.run import CHECKPOINT_EVERY_S, Run

WANTED_ACCEPTANCE = 0.65  # Neal 2001
UP, DOWN, STEPS = 1.02, 0.98, (1e-5, 2.0)  # tuning: factors and limits of a step
TUNED_AT = 1000  # distributions from which the factors hold; shorter schedules take powers of them
FIRST_STEP = 0.3
TABLE = 1000  # rows at most in a table of steps
SLOPE = 4.0  # the sigmoid schedule runs from sigmoid(-4) to sigmoid(4) (Wu et al. 2016)


class Prior(Protocol):
    """A density of codes."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Codes (*shape, k)."""

    def energy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """-log density up to a constant (...), and its gradient (..., k)."""


@dataclass(frozen=True)
class Target:
    """p(z) exp(-beta d(x_i, f(z))) for every source vector x_i.

    Attributes:
        prior, decoder: p, and f from (..., k) to (..., dim).
        x: float32 (B, dim), on the device of the work.
        distance: between (..., dim) and (..., dim), to (...); see `paired_distance`.
    """

    prior: Prior
    decoder: nn.Module
    x: Tensor
    distance: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, z: Tensor) -> State:
        """Both energies and their gradients at z (B, M, k)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            d = self.distance(self.x[:, None], self.decoder(z))
            (gradient,) = torch.autograd.grad(d.sum(), z)
        z = z.detach()
        prior, prior_gradient = self.prior.energy(z)
        return State(z, prior, d.detach(), prior_gradient, gradient)


@dataclass(frozen=True)
class Mark:
    """The chains where a wanted beta is passed; float64 (B, M): B source vectors, M chains.

    Attributes:
        beta: the wanted one.
        log_weights: log w in nats.
        distortion: d(x, f(z)).
        acceptance: mean over the transitions since the last mark.
        seconds: of the run so far.
    """

    beta: float
    log_weights: Tensor
    distortion: Tensor
    acceptance: float
    seconds: float


@dataclass(frozen=True)
class Steps:
    """Frozen lengths of leapfrog steps along a schedule.

    Attributes:
        table: float32 (rows, B) or (rows, 1) for any number of source vectors.
        last: K of the schedule that the rows divide; a schedule that stops earlier uses the first of them.
    """

    table: Tensor
    last: int

    def at(self, k: int, device: torch.device) -> Tensor:
        """(B, 1, 1) for the transition at beta_k."""
        return self.table[self.row(k)].to(device)[:, None, None]

    def row(self, k: int) -> int:
        return (k - 1) * len(self.table) // self.last

    def shared(self) -> Steps:
        """The geometric mean over source vectors."""
        return Steps(self.table.log().mean(1, keepdim=True).exp(), self.last)


def paired_distance(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """d of ``mse``, ``l1`` or ``lp:P`` along the last dimension, for tensors that broadcast.

    Raises:
        InputError: another distortion, which has no gradient for the chains to follow.
    """
    if name == "hamming":
        raise InputError("ais: the distortion hamming has no gradient in y; it takes mse, l1 or lp:P")
    return paired(name)


def annealing_schedule(betas: Sequence[float], distributions: int) -> tuple[Tensor, list[int]]:
    """A schedule from 0 to the largest beta that stops at every one of them.

    Half of ``distributions`` lie on Wu et al.'s sigmoid; an interval between wanted betas that has fewer than
    its share of the other half is spaced evenly instead (lossy-rates preprint, appendix D.2).

    Args:
        betas: increasing, positive.

    Returns:
        float64 (K + 1,), increasing from 0, and the positions of the betas.
    """
    sigmoid = torch.sigmoid(SLOPE * torch.linspace(-1, 1, max(2, distributions // 2), dtype=torch.float64))
    sigmoid = betas[-1] * (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    least = max(1, math.ceil(distributions / 2 / len(betas)))
    parts, at = [torch.zeros(1, dtype=torch.float64)], []
    for low, high in zip([0.0, *betas[:-1]], betas, strict=True):
        inside = sigmoid[(sigmoid > low) & (sigmoid < high)]
        if len(inside) + 1 < least:
            inside = torch.linspace(low, high, least + 1, dtype=torch.float64)[1:-1]
        parts += [inside, torch.tensor([high], dtype=torch.float64)]
        at.append(sum(map(len, parts)) - 1)
    return torch.cat(parts), at


def tune_steps(
    target: Target, schedule: Tensor, chains: int, leapfrog: int, run: Run, name: str, plan: Mapping[str, Any]
) -> Steps:
    """A run whose steps follow the acceptance, one step for each source vector; it has no weights.

    Returns:
        The steps along the schedule, to be frozen for other runs.

    Raises:
        ModelError, OutputError: of checkpoints.
    """
    last = len(schedule) - 1
    power, size = max(1.0, TUNED_AT / last), target.x.shape[0]
    steps = Steps(torch.zeros(min(last, TABLE), size), last)
    state = target(_start(target, chains, run, name))
    tensors = _pack(state) | {"step": torch.full((size,), FIRST_STEP), "table": steps.table}

    def advance(k: int, tensors: dict[str, Tensor], generator: torch.Generator) -> None:
        step = tensors["step"].to(target.x.device)[:, None, None]
        state, p = hmc_transition(_unpack(tensors), float(schedule[k]), step, leapfrog, target, generator)
        factor = torch.where(p.mean(1).cpu() > WANTED_ACCEPTANCE, UP**power, DOWN**power)
        tensors |= _pack(state) | {"step": (tensors["step"] * factor).clamp(*STEPS)}
        tensors["table"][steps.row(k)] = tensors["step"]

    for _ in _march(name, last, tensors, advance, run, plan):
        pass
    return Steps(tensors["table"], last)


def anneal(
    target: Target,
    schedule: Tensor,
    at: Sequence[int],
    steps: Steps,
    chains: int,
    leapfrog: int,
    run: Run,
    name: str,
    plan: Mapping[str, Any],
) -> Iterator[Mark]:
    """The run that counts, with frozen steps.

    Args:
        schedule, at: of `annealing_schedule`.
        steps: of `tune_steps`, from another run.

    Yields:
        A `Mark` for each of ``at``, as it is reached (at once where a checkpoint has it).

    Raises:
        ModelError, OutputError: of checkpoints.

    Invariants: w and the state after the transition at beta_k are properly weighted for p(z) exp(-beta_k d);
    stopped and resumed, the numbers are those of an uninterrupted run.
    """
    last, shape = len(schedule) - 1, (target.x.shape[0], chains)
    tensors = _pack(target(_start(target, chains, run, name))) | {
        "log_weights": torch.zeros(shape, dtype=torch.float64),
        "marks": torch.zeros(2, len(at), *shape, dtype=torch.float64),
        "acceptance": torch.zeros(last + 1, dtype=torch.float64),
        "seconds": torch.zeros(len(at), dtype=torch.float64),
    }
    where = {k: i for i, k in enumerate(at)}
    clock = [0.0, time.perf_counter()]  # seconds of earlier calls, start of this one

    def advance(k: int, tensors: dict[str, Tensor], generator: torch.Generator) -> None:
        beta, before = float(schedule[k]), float(schedule[k - 1])
        tensors["log_weights"] = (
            tensors["log_weights"] - (beta - before) * tensors["distortion"].double().cpu()
        )
        step = steps.at(k, target.x.device)
        state, p = hmc_transition(_unpack(tensors), beta, step, leapfrog, target, generator)
        tensors |= _pack(state)
        tensors["acceptance"][k] = p.mean().cpu()
        if k in where:
            i = where[k]
            tensors["marks"][0, i] = tensors["log_weights"]
            tensors["marks"][1, i] = state.distortion.double().cpu()
            tensors["seconds"][i] = clock[0] + time.perf_counter() - clock[1]

    given = 0
    for k in _march(name, last, tensors, advance, run, plan, clock):
        while given < len(at) and at[given] <= k:
            since = (at[given - 1] if given else 0) + 1
            yield Mark(
                float(schedule[at[given]]),
                tensors["marks"][0, given].clone(),
                tensors["marks"][1, given].clone(),
                float(tensors["acceptance"][since : at[given] + 1].mean()),
                float(tensors["seconds"][given]),
            )
            given += 1


def reverse_weights(
    target: Target,
    z: Tensor,
    schedule: Tensor,
    steps: Steps,
    chains: int,
    leapfrog: int,
    run: Run,
    name: str,
    plan: Mapping[str, Any],
) -> Tensor:
    """Chains from an exact sample z (B, k) of the last target back to the prior (bidirectional Monte Carlo).

    Args:
        chains: from each sample; they start alike.

    Returns:
        float64 (B, chains): log v with E[v] = 1 / Z, so that E[log mean v] <= -log Z.
    """
    last = len(schedule) - 1
    state = target(z[:, None].expand(-1, chains, -1).to(target.x.device).contiguous())
    tensors = _pack(state) | {"log_weights": torch.zeros(target.x.shape[0], chains, dtype=torch.float64)}

    def advance(count: int, tensors: dict[str, Tensor], generator: torch.Generator) -> None:
        k = last + 1 - count
        beta, before = float(schedule[k]), float(schedule[k - 1])
        step = steps.at(k, target.x.device)
        state, _ = hmc_transition(_unpack(tensors), beta, step, leapfrog, target, generator)
        change = (beta - before) * state.distortion.double().cpu()
        tensors |= _pack(state) | {"log_weights": tensors["log_weights"] + change}

    for _ in _march(name, last, tensors, advance, run, plan):
        pass
    return tensors["log_weights"]


def _march(
    name: str,
    last: int,
    tensors: dict[str, Tensor],
    advance: Callable[[int, dict[str, Tensor], torch.Generator], None],
    run: Run,
    plan: Mapping[str, Any],
    clock: list[float] | None = None,
) -> Iterator[int]:
    """Call ``advance(k, tensors, generator)`` for k = 1 .. last, from the checkpoint if there is one.

    Yields:
        k after every call, and the checkpoint's at first.

    Raises:
        ModelError: a checkpoint that is damaged or of other sizes.
    """
    done, clock = 0, clock or [0.0, time.perf_counter()]
    found = run.load(name, plan)
    if found is not None:
        device = tensors["z"].device
        try:
            held = fitting(found[0], tensors)
            done, clock[0] = steps_done({"step": found[1]["done"]}, last), seconds_spent(found[1])
        except DAMAGE as error:
            raise ModelError(f"{name}: not a usable checkpoint ({printable(error, 200)})") from error
        tensors |= {k: v.to(device) if k in STATE else v for k, v in held.items()}
        yield done
    saved = time.perf_counter()
    for k in range(done + 1, last + 1):
        advance(k, tensors, run.generator(name, k))
        run.progress(name, k, last)
        now = time.perf_counter()
        if k == last or now - saved > CHECKPOINT_EVERY_S:
            run.save(name, plan, tensors, {"done": k, "seconds": clock[0] + now - clock[1]})
            saved = time.perf_counter()
        yield k


STATE = ("z", "prior_nats", "distortion", "prior_gradient", "distortion_gradient")


def _pack(state: State) -> dict[str, Tensor]:
    return {key: getattr(state, key) for key in STATE}


def _unpack(tensors: Mapping[str, Tensor]) -> State:
    return State(*(tensors[key] for key in STATE))


def _start(target: Target, chains: int, run: Run, name: str) -> Tensor:
    z = target.prior.sample((target.x.shape[0], chains), run.generator(name, 0))
    return z.to(target.x.device)
