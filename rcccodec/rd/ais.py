"""Rate-distortion curves of generative models, from training to points, and how far annealing can be off."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rcccodec.errors import InputError
from rcccodec.rd.annealing import (
    Mark,
    Steps,
    Target,
    anneal,
    annealing_schedule,
    paired_distance,
    reverse_weights,
    tune_steps,
)
from rcccodec.rd.deep_features import train_features
from rcccodec.rd.generative import GaussianPrior, train_decoder
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import AnnealingSettings

LEAST_EFFECTIVE = 2.0  # effective chains a source vector, below which one chain decides


def trace_ais(
    problem: Problem, betas: Sequence[float], settings: AnnealingSettings, run: Run
) -> Iterator[RatePoint]:
    """R_p(D) of a generative model trained on ``problem.train``, an upper bound of R(D), in increasing beta.

    Args:
        betas: slopes in nats per unit of distortion; all of them share one run.
        settings: ``model`` is vae, gan or aae; ``distance`` is problem or features. With ``features`` the
            distortion, hence the curve, is another one: squared error between features of `deep_features`;
            its points say nothing of R(D) here and have kind "estimate".

    Yields:
        Points of kind "upper": the Lagrangian, and the pair (D, R), lie above the curve in expectation; R
        alone may lie below the curve's rate at this slope. ``details``: ``effective_samples`` of the chains a
        source vector, ``acceptance``, ``distributions``, and where measured ``bdmc_gap_nats`` with its
        standard error: an upper bound in expectation of how far the Lagrangian is off on data that the model
        itself made, which is no promise for ``problem.test``. ``saturated``: below two effective chains.

    Raises:
        InputError: no such model; a distortion without gradient. LimitError: the training diverged.
        ModelError, OutputError: of checkpoints.
    """
    if settings.distance not in ("problem", "features"):
        raise InputError(f"ais: distance {settings.distance!r}: expected problem or features")
    paired_distance(problem.distortion)  # refuses before the training
    trained, seconds = train_decoder(problem, settings, run)
    decoder: nn.Module = trained
    x, distortion = problem.test[: settings.images].to(run.device), problem.distortion
    method = f"ais-{settings.model}"
    if settings.distance == "features":
        features, more = train_features(problem, run)
        decoder, seconds = nn.Sequential(trained, features), seconds + more
        x, distortion, method = features(x), "mse", f"{method}-features"
    prior = GaussianPrior(settings.latents)
    for point in trace_decoder(method, prior, decoder, x, distortion, betas, settings, run, seconds):
        yield replace(point, kind="estimate") if settings.distance == "features" else point


def trace_decoder(
    method: str,
    prior: Any,
    decoder: nn.Module,
    x: Tensor,
    distortion: str,
    betas: Sequence[float],
    settings: AnnealingSettings,
    run: Run,
    seconds: float = 0.0,
) -> Iterator[RatePoint]:
    """The same for any prior and decoder.

    Args:
        prior: as `annealing.Prior`. decoder: (..., k) to (..., dim), without gradients.
        x: float32 (B, dim), source vectors that the decoder was not trained on.
        distortion: ``mse``, ``l1`` or ``lp:P``; the last has no gap.
        seconds: spent before, for the record.
    """
    distance, betas = paired_distance(distortion), sorted(set(betas))
    schedule, at = annealing_schedule(betas, settings.distributions)
    target = Target(prior, decoder, x, distance)
    plan = {"target": _digest(target), "distortion": distortion, "betas": betas} | {
        key: getattr(settings, key) for key in ("chains", "distributions", "leapfrog")
    }
    sizes = {"leapfrog": settings.leapfrog, "run": run, "plan": plan}
    tuned = tune_steps(target, schedule, max(2, settings.chains // 2), name=f"{method}-tuning", **sizes)
    chosen = {round((len(at) - 1) * (i + 1) / settings.gaps) for i in range(settings.gaps)}
    gaps = {}
    for i in sorted(chosen):
        upper_lower = bidirectional_bounds(
            method, target, distortion, schedule[: at[i] + 1], tuned, settings, sizes
        )
        if upper_lower is not None:
            gaps[i] = upper_lower[0] - upper_lower[1]
    marks = anneal(target, schedule, at, tuned, settings.chains, name=f"{method}-chains", **sizes)
    for i, mark in enumerate(marks):
        yield _point(method, mark, gaps.get(i), len(schedule) - 1, seconds + mark.seconds)


def bidirectional_bounds(
    name: str,
    target: Target,
    distortion: str,
    schedule: Tensor,
    steps: Steps,
    settings: AnnealingSettings,
    sizes: Mapping[str, Any],
) -> tuple[Tensor, Tensor] | None:
    """Bidirectional Monte Carlo (Grosse et al. 2015) at the schedule's last beta.

    z ~ p and x = f(z) + noise with density proportional to exp(-beta d(x, f(z))), whose constant does not
    depend on z: z is then an exact sample of p(z) exp(-beta d(x, f(z))).

    Args:
        sizes: ``leapfrog``, ``run`` and ``plan`` of the runs.

    Returns:
        Upper and lower estimates of -log Z, nats, float64 (B,), for as many simulated vectors as ``target``
        has; None for a distortion whose noise has no simple sampler.
    """
    if distortion not in ("mse", "l1"):
        return None
    beta, chains, run = float(schedule[-1]), settings.chains, sizes["run"]
    name = f"{name}-simulated-{beta:g}"
    generator = run.generator(name, "data")
    z = target.prior.sample((len(target.x),), generator).to(target.x.device)
    with torch.no_grad():
        y = target.decoder(z)
    x = y + _noise(tuple(y.shape), distortion, beta, generator).to(y.device)
    simulated = Target(target.prior, target.decoder, x, target.distance)
    steps, at = steps.shared(), [len(schedule) - 1]
    (mark,) = anneal(simulated, schedule, at, steps, chains, name=f"{name}-forward", **sizes)
    upper = -_log_mean(mark.log_weights)
    lower = _log_mean(reverse_weights(simulated, z, schedule, steps, chains, name=f"{name}-reverse", **sizes))
    return upper, lower


def _noise(shape: tuple[int, ...], distortion: str, beta: float, generator: torch.Generator) -> Tensor:
    """exp(-beta d), normalised: normal of variance 1 / (2 beta), or Laplacian of scale 1 / beta."""
    if distortion == "mse":
        return torch.randn(shape, generator=generator) / math.sqrt(2 * beta)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    return sign * torch.empty(shape).exponential_(beta, generator=generator)


def _point(method: str, mark: Mark, gap: Tensor | None, distributions: int, seconds: float) -> RatePoint:
    share = torch.softmax(mark.log_weights, 1)
    effective = float((1 / share.square().sum(1)).mean())
    details = {
        "effective_samples": effective,
        "acceptance": mark.acceptance,
        "distributions": float(distributions),
    }
    if gap is not None:
        error = float(gap.std() / math.sqrt(len(gap))) if len(gap) > 1 else math.nan
        details |= {"bdmc_gap_nats": float(gap.mean()), "bdmc_gap_se_nats": error}
    return upper_point(
        method,
        mark.beta,
        -_log_mean(mark.log_weights),
        (share * mark.distortion).sum(1),
        num_samples=mark.log_weights.shape[1],
        saturated=effective < LEAST_EFFECTIVE,
        seconds=seconds,
        details=details,
    )


def _log_mean(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


def _digest(target: Target) -> str:
    """Of what a checkpoint's chains belong to."""
    digest = hashlib.sha256(repr(target.prior).encode())
    for name, tensor in [*target.decoder.state_dict().items(), ("x", target.x)]:
        digest.update(repr((name, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
