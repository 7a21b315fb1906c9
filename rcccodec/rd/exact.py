"""What is known of R(D) without samples: closed forms, and Shannon's or block bounds where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rcccodec.errors import InputError
from rcccodec.rd.bernoulli import bernoulli_point_at_slope
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.laplacian import laplacian_point_at_slope
from rcccodec.rd.markov import markov_bounds_at_slope
from rcccodec.rd.point import Kind, RatePoint
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.shannon_bound import (
    gaussian_entropy_nats,
    laplacian_entropy_nats,
    shannon_lower_bound_nats,
    sphere_entropy_nats,
)
from rcccodec.sources.synthetic import gaussian_variances

_LN2 = math.log(2)


def trace_exact(problem: Problem, betas: Sequence[float], run: Run) -> Iterator[RatePoint]:
    """Points of the curve, or lines below it, from the source's law alone.

        gaussian, mse             exact (reverse water-filling)
        laplacian, l1             exact
        bernoulli, hamming or l1  exact
        markov, hamming or l1     exact for the n symbols where beta is large; else two points, ``lower`` and
                                  ``upper``
        sphere, mse               exact from beta = 1 / (2 noise) up, else ``lower``
        these laws otherwise      ``lower``: Shannon's bound, squared and absolute errors and l^p norms

    Bounds are called ``blocks`` (Markov) and ``shannon``. Rates and distortions are of a whole vector. A
    ``lower`` line of Shannon's touches his bound at
    (``distortion``, ``rate_bits``), NaN where that rate is negative; NaN for other lines.

    Raises:
        InputError: none of these.
    """
    if problem.law is None:
        raise InputError(f"no closed form for {problem.name}, whose law is not known")
    name, parameters = problem.law
    dim, measure = problem.dim, problem.distortion
    entropy_nats = None
    if name in ("gaussian", "laplacian", "sphere") and measure != "hamming":
        entropy_nats = _entropy_nats(name, parameters, dim)
    elif name not in ("bernoulli", "markov") or measure not in ("hamming", "l1"):
        raise InputError(f"no closed form for {problem.name} under {measure}")
    for beta in betas:
        began = time.perf_counter()
        if entropy_nats is None:
            found = _of_bits(name, parameters, dim, beta)
        else:
            found = [_of_numbers(name, parameters, dim, measure, beta, entropy_nats)]
        run.progress("exact", 1, 1)
        seconds = time.perf_counter() - began
        yield from (replace(point, seconds=seconds / len(found)) for point in found)


def closed_curve(problem: Problem, low: float, high: float, count: int = 200) -> list[RatePoint]:
    """Points of the curve at slopes from ``low`` to ``high`` where there is a formula; else none."""
    if problem.law is None or problem.law[0] == "markov":
        return []
    betas = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
    try:
        return [point for point in trace_exact(problem, betas, Run()) if point.kind == "exact"]
    except InputError:
        return []


def _of_bits(name: str, parameters: dict[str, float], dim: int, beta: float) -> list[RatePoint]:
    if name == "bernoulli":
        bits = bernoulli_point_at_slope(parameters["p"], beta, dim)
        return [_point("exact", beta, bits.rate_bits, bits.distortion)]
    bounds = markov_bounds_at_slope(parameters["p"], parameters["q"], dim, beta)
    if bounds.exact:
        return [_point("exact", beta, bounds.rate_bits, bounds.distortion)]
    return [
        RatePoint("blocks", "lower", beta, math.nan, math.nan, bounds.lower_lagrangian_bits),
        replace(_point("upper", beta, bounds.rate_bits, bounds.distortion), method="blocks"),
    ]


def _of_numbers(
    name: str, parameters: dict[str, float], dim: int, measure: str, beta: float, entropy_nats: float
) -> RatePoint:
    squared = measure in ("mse", "lp:2")
    if name == "gaussian" and squared:
        variances = gaussian_variances(dim, parameters["decay"], parameters["variance"])
        water = gaussian_point_at_slope(variances, beta)
        return _point("exact", beta, water.rate_bits, water.distortion)
    if name == "laplacian" and measure == "l1":
        absolute = laplacian_point_at_slope(parameters["b"], beta, dim)
        return _point("exact", beta, absolute.rate_bits, absolute.distortion)
    lagrangian = shannon_lower_bound_nats(entropy_nats, dim, measure, beta)
    d = dim / beta if measure == "l1" else dim / (2 * beta)
    rate = (lagrangian - beta * d) / _LN2
    if name == "sphere" and squared and 2 * beta * parameters["noise"] >= 1:
        return _point("exact", beta, rate, d)
    rate, d = (rate, d) if rate >= 0 else (math.nan, math.nan)
    return RatePoint("shannon", "lower", beta, rate, d, max(0.0, lagrangian / _LN2))


def _entropy_nats(name: str, parameters: dict[str, float], dim: int) -> float:
    if name == "gaussian":
        return gaussian_entropy_nats(gaussian_variances(dim, parameters["decay"], parameters["variance"]))
    if name == "laplacian":
        return laplacian_entropy_nats(parameters["b"], dim)
    return sphere_entropy_nats(dim, parameters["noise"])


def _point(kind: Kind, beta: float, rate_bits: float, distortion: float) -> RatePoint:
    return RatePoint("exact", kind, beta, rate_bits, distortion, rate_bits + beta * distortion / _LN2)
