"""Blahut-Arimoto on whatever of a problem is finite: all words, a grid of the line, or training samples."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rcccodec.checkpoint import fitting, steps_done
from rcccodec.description import DAMAGE, printable
from rcccodec.errors import LimitError, ModelError
from rcccodec.rd.blahut_arimoto import BlahutArimoto, State, blahut_arimoto, evaluate_law
from rcccodec.rd.discretise import LineLaw, line_law, line_lower_bits, make_grid
from rcccodec.rd.kernel import HammingKernel, Kernel, MatrixKernel
from rcccodec.rd.markov import word_masses
from rcccodec.rd.point import RatePoint, is_saturated, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import CHECKPOINT_EVERY_S, Run
from rcccodec.rd.settings import BlahutArimotoSettings

LEAST_GRID = 201
MAX_WORD = 14  # bits of a source vector of which all words are taken


def trace_ba(
    problem: Problem, betas: Sequence[float], settings: BlahutArimotoSettings, run: Run
) -> Iterator[RatePoint]:
    """The curve of a problem, slope by slope, by the best law on finitely many reproductions.

    Binary vectors of at most 14 symbols and known law: all words against all. A known law of one component:
    a grid (see `rcccodec.rd.discretise`). Both give two points a slope, without data:

        ba        upper     the law found; its Lagrangian is at most ``details["gap_bits"]`` above the least
        ba-dual   lower     the Lagrangian less that gap

    Anything else: training samples as source and reproductions, two points a slope:

        ba-train  estimate  R(D) of the empirical distribution: at most log2 n bits, flattered
        ba        upper     test vectors under the law found; saturated as R nears log2 n

    Args:
        betas: nats per unit of distortion; each is solved from a uniform law.
        run: with a folder a long solution goes on where it was left.

    Raises:
        LimitError: a grid too coarse. ModelError: a checkpoint is damaged. OutputError: it cannot be
        written.
    """
    law = line_law(*problem.law) if problem.law and problem.alphabet is None else None
    if law and settings.grid < LEAST_GRID:
        raise LimitError(
            f"ba.grid={settings.grid}: at least {LEAST_GRID} points, or the law is not that grid's"
        )
    masses = _word_masses(problem)
    samples = None if law or masses is not None else _samples(problem, settings, run)
    for beta in betas:
        if masses is not None:
            yield from _with_certificate(_of_words(problem, masses, beta, settings, run))
        elif law:
            yield from _with_certificate(_of_line(problem, law, beta, settings, run))
        elif samples is not None:
            yield from _of_samples(problem, samples, beta, settings, run)


def _with_certificate(found: RatePoint) -> Iterator[RatePoint]:
    yield found
    lower = found.lagrangian_bits - found.details["gap_bits"]
    yield RatePoint("ba-dual", "lower", found.beta, math.nan, math.nan, lower)


def _of_words(
    problem: Problem, masses: Tensor, beta: float, settings: BlahutArimotoSettings, run: Run
) -> RatePoint:
    began = time.perf_counter()
    found = _solve(problem, HammingKernel(problem.dim, beta), masses, settings.tolerance, settings, run)
    return _point("ba", "upper", found, found.gap_bits, time.perf_counter() - began)


def _of_line(
    problem: Problem, law: LineLaw, beta: float, settings: BlahutArimotoSettings, run: Run
) -> RatePoint:
    began = time.perf_counter()
    grid = make_grid(law, problem.distortion, beta, settings.grid)
    kernel = MatrixKernel.between(grid.x, grid.y, problem.distance, beta, settings.memory << 20)
    found = _solve(problem, kernel, grid.mass, settings.tolerance, settings, run)
    log_c, _ = kernel.evaluate(found.log_mass)
    gap = found.lagrangian_bits - line_lower_bits(grid, problem.distance, beta, log_c)
    return _point("ba", "upper", found, gap, time.perf_counter() - began)


def _of_samples(
    problem: Problem, y: Tensor, beta: float, settings: BlahutArimotoSettings, run: Run
) -> Iterator[RatePoint]:
    began = time.perf_counter()
    budget = settings.memory << 20
    kernel = MatrixKernel.between(y, y, problem.distance, beta, budget)
    found = _solve(problem, kernel, None, settings.spread, settings, run)
    inside = _point("ba-train", "estimate", found, found.gap_bits, time.perf_counter() - began)
    yield replace(inside, num_samples=len(y), saturated=is_saturated(len(y), found.rate_bits))
    del kernel  # before the next one is made
    across = MatrixKernel.between(problem.test.to(y), y, problem.distance, beta, budget)
    rate, distortion = evaluate_law(across, found.log_mass, beta)
    yield upper_point(
        "ba", beta, (rate * math.log(2) + beta * distortion).cpu(), distortion.cpu(), num_samples=len(y),
        seconds=time.perf_counter() - began, details=dict(inside.details),
    )  # fmt: skip


def _solve(
    problem: Problem,
    kernel: Kernel,
    masses: Tensor | None,
    tolerance_bits: float,
    settings: BlahutArimotoSettings,
    run: Run,
) -> BlahutArimoto:
    """Solve, with checkpoints."""
    name = f"ba {problem.name} {kernel.beta!r}"
    plan = {
        "problem": problem.name,
        "distortion": problem.distortion,
        "beta": kernel.beta,
        "shape": kernel.shape,
    }
    held = run.load(name, plan)
    start = None if held is None else _state(name, *held, kernel)
    saved, latest = time.perf_counter(), start

    def save(state: State) -> None:
        tensors = {"log_mass": state.log_mass, "last": state.last}
        run.save(name, plan, tensors, {"age": state.age, "rounds": state.rounds})

    def keep(state: State) -> None:
        nonlocal saved, latest
        latest = state
        run.progress(f"ba beta {kernel.beta:g}", state.rounds, settings.rounds)
        if time.perf_counter() - saved > CHECKPOINT_EVERY_S:
            save(state)
            saved = time.perf_counter()

    found = blahut_arimoto(
        kernel, kernel.beta, tolerance_bits=tolerance_bits, max_rounds=settings.rounds, start=start,
        source=masses, keep=keep,
    )  # fmt: skip
    if latest is not None:
        save(latest)
    return found


def _state(name: str, tensors: dict[str, Tensor], values: dict[str, Any], kernel: Kernel) -> State:
    """What a checkpoint holds; ModelError if that is no state of ``kernel``."""
    try:
        blank = torch.empty(kernel.shape[1], dtype=torch.float64)
        held = fitting(tensors, {"log_mass": blank, "last": blank})
        age, rounds = (steps_done({"step": values[key]}, 1 << 62) for key in ("age", "rounds"))
    except DAMAGE as error:
        raise ModelError(f"{name}: not a usable checkpoint ({printable(error, 200)})") from error
    return State(held["log_mass"], held["last"], age, rounds)


def _point(method: str, kind: str, found: BlahutArimoto, gap_bits: float, seconds: float) -> RatePoint:
    details = {
        "gap_bits": gap_bits,
        "rounds": float(found.rounds),
        "sweeps": float(found.sweeps),
        "candidates": float(len(found.log_mass)),
    }
    return RatePoint(
        method, kind, found.beta, found.rate_bits, found.distortion, found.lagrangian_bits, seconds=seconds,
        details=details,
    )  # fmt: skip


def _word_masses(problem: Problem) -> Tensor | None:
    """P of every word, for short binary vectors of known law."""
    if problem.distortion != "hamming" or problem.law is None or problem.dim > MAX_WORD:
        return None
    name, parameters = problem.law
    one = parameters["p"]
    # independent bits are the chain that forgets
    p, q = (1 - one, one) if name == "bernoulli" else (parameters["p"], parameters["q"])
    return word_masses(p, q, problem.dim)


def _samples(problem: Problem, settings: BlahutArimotoSettings, run: Run) -> Tensor:
    order = torch.randperm(len(problem.train), generator=run.generator("ba"))
    return problem.train[order[: settings.samples]].to(run.device)
