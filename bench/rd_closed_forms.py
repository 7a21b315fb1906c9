"""Blahut-Arimoto against closed forms, brackets of a Markov chain, and a matrix too large to hold.

    python bench/rd_closed_forms.py                    # bench/results/rd_closed_forms.{json,png}

rows: at every slope the point of Blahut-Arimoto beside the closed form. ``lagrangian_error_bits`` is over
    the least R + beta D / ln 2, ``rate_error_bits`` over R(D) at the own D, ``plain_error_bits`` the first
    without momentum after as many sweeps. ``gap_bits`` is certified, for a line over candidates off the
    grid too.
markov: n symbols of a binary chain, whose R(D) is not known: the bracket of blocks; critical distortions.
stream: 60,000 Gaussian vectors as source and reproductions; distances are made again in every pass.
"""

import argparse
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from tqdm import tqdm

from rcccodec.distortion import parse_distortion
from rcccodec.rd.bernoulli import bernoulli_point_at_distortion, bernoulli_point_at_slope
from rcccodec.rd.blahut_arimoto import blahut_arimoto
from rcccodec.rd.discretise import line_law, line_lower_bits, make_grid
from rcccodec.rd.gaussian import gaussian_point_at_distortion, gaussian_point_at_slope
from rcccodec.rd.kernel import HammingKernel, Kernel, MatrixKernel
from rcccodec.rd.laplacian import laplacian_point_at_distortion, laplacian_point_at_slope
from rcccodec.rd.markov import (
    critical_distortion,
    endless_critical_distortion,
    lower_rate_at_distortion_bits,
    markov_bounds_at_slope,
    word_masses,
)
from rcccodec.rd.settings import BlahutArimotoSettings

SETTINGS = BlahutArimotoSettings()
MARKOV = (("symmetric", 0.25, 0.25), ("asymmetric", 0.3, 0.25))
LENGTH = 100  # symbols


def lagrangian_bits(rate_bits: float, distortion: float, beta: float) -> float:
    return rate_bits + beta * distortion / math.log(2)


def compare(
    source: str,
    kernel: Kernel,
    mass: torch.Tensor,
    at_slope: Any,
    at_distortion: Callable[[float], Any],
    lower_bits: Callable[[torch.Tensor], float] | None = None,
) -> dict[str, Any]:
    """One slope: Blahut-Arimoto with and without momentum beside the closed form."""
    beta, began = kernel.beta, time.perf_counter()
    found = blahut_arimoto(
        kernel, beta, source=mass, tolerance_bits=SETTINGS.tolerance, max_rounds=SETTINGS.rounds
    )
    seconds = time.perf_counter() - began
    plain = blahut_arimoto(
        kernel, beta, source=mass, tolerance_bits=0.0, max_rounds=found.sweeps - 1, accelerate=False
    )
    ideal = lagrangian_bits(at_slope.rate_bits, at_slope.distortion, beta)
    gap_bits = found.gap_bits
    if lower_bits:
        gap_bits = found.lagrangian_bits - lower_bits(kernel.evaluate(found.log_mass)[0])
    return {
        "source": source,
        "beta": beta,
        "rate_bits": found.rate_bits,
        "distortion": found.distortion,
        "lagrangian_bits": found.lagrangian_bits,
        "exact_rate_bits": at_slope.rate_bits,
        "exact_distortion": at_slope.distortion,
        "exact_lagrangian_bits": ideal,
        "lagrangian_error_bits": found.lagrangian_bits - ideal,
        "rate_error_bits": found.rate_bits - at_distortion(found.distortion).rate_bits,
        "gap_bits": gap_bits,
        "plain_error_bits": plain.lagrangian_bits - ideal,
        "candidates": kernel.shape[1],
        "source_points": kernel.shape[0],
        "rounds": found.rounds,
        "sweeps": found.sweeps,
        "seconds": round(seconds, 2),
    }


def bits(p: float, beta: float) -> dict[str, Any]:
    return compare(
        f"bernoulli p={p}",
        HammingKernel(1, beta),
        word_masses(1 - p, p, 1),
        bernoulli_point_at_slope(p, beta),
        lambda d: bernoulli_point_at_distortion(p, d),
    )


def line(name: str, beta: float) -> dict[str, Any]:
    """Unit Gaussian under squared error, or unit Laplacian under absolute error."""
    gaussian = name == "gaussian"
    measure = "mse" if gaussian else "l1"
    law = line_law(name, {"m": 1, "variance": 1.0, "b": 1.0})
    grid, distance = make_grid(law, measure, beta, SETTINGS.grid), parse_distortion(measure)
    kernel = MatrixKernel.between(grid.x, grid.y, distance, beta, SETTINGS.memory << 20)
    return compare(
        f"{name}, {measure}",
        kernel,
        grid.mass,
        gaussian_point_at_slope([1.0], beta) if gaussian else laplacian_point_at_slope(1.0, beta),
        lambda d: (
            gaussian_point_at_distortion([1.0], d) if gaussian else laplacian_point_at_distortion(1.0, d)
        ),
        lambda log_c: line_lower_bits(grid, distance, beta, log_c),
    )


def chain(name: str, p: float, q: float, beta: float, block: int) -> dict[str, Any]:
    began = time.perf_counter()
    bounds = markov_bounds_at_slope(p, q, LENGTH, beta, block=block)
    upper = lagrangian_bits(bounds.rate_bits, bounds.distortion, beta)
    return {
        "source": name,
        "p": p,
        "q": q,
        "symbols": LENGTH,
        "block": block,
        "beta": beta,
        "exact": bounds.exact,
        "rate_bits": bounds.rate_bits,
        "distortion": bounds.distortion,
        "upper_lagrangian_bits": upper,
        "lower_lagrangian_bits": bounds.lower_lagrangian_bits,
        "bracket_bits": upper - bounds.lower_lagrangian_bits,
        "seconds": round(time.perf_counter() - began, 2),
    }


def critical(name: str, p: float, q: float) -> dict[str, Any]:
    return {
        "source": name,
        "p": p,
        "q": q,
        "by_symbols": {str(n): critical_distortion(p, q, n) for n in (2, 10, 100, 4000)},
        "endless": endless_critical_distortion(p, q),
    }


def stream(count: int, rounds: int, beta: float) -> dict[str, Any]:
    """Passes over count x count distances in three dimensions, and the memory they take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    kernel = MatrixKernel.between(x, x, parse_distortion("mse"), beta, SETTINGS.memory << 20)
    began = time.perf_counter()
    found = blahut_arimoto(kernel, beta, tolerance_bits=SETTINGS.spread, max_rounds=rounds)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ideal = gaussian_point_at_slope([1.0] * 3, beta)
    return {
        "source": "gaussian of three unit components, samples",
        "vectors": count,
        "beta": beta,
        "distances_mib": count * count * 4 / 2**20,
        "streamed": kernel.streams,
        "sweeps": found.sweeps,
        "seconds_a_pass": round(seconds / (found.sweeps + 1), 2),  # the last one is for the distortion
        "memory_before_mib": before // 1024,
        "peak_memory_mib": after // 1024,
        "history_bits": [list(values) for values in found.history],
        "in_sample_lagrangian_bits": found.lagrangian_bits,
        "law_lagrangian_bits": lagrangian_bits(ideal.rate_bits, ideal.distortion, beta),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Errors of Blahut-Arimoto, and the bracket of the symmetric chain a symbol."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 5), constrained_layout=True)
    for i, source in enumerate(dict.fromkeys(r["source"] for r in result["rows"])):
        some = [r for r in result["rows"] if r["source"] == source]
        beta = [r["beta"] for r in some]
        for key, style in (("rate_error_bits", "o-"), ("plain_error_bits", "x:")):
            errors = [max(abs(r[key]), 1e-12) for r in some]
            label = source if style == "o-" else None
            left.loglog(beta, errors, style, color=f"C{i}", label=label)
    left.axhline(1e-4, color="0.5", linestyle="--")
    left.set(
        xlabel="beta, nats a unit",
        ylabel="bits",
        title="|error| of R at the own D (o); of L without momentum (x)\nbelow 1e-12 drawn there",
    )
    blocks = sorted({r["block"] for r in result["markov"]})
    for i, (name, *_) in enumerate(MARKOV):
        for block, style in ((blocks[0], ":"), (blocks[-1], "-")):
            some = [r for r in result["markov"] if (r["source"], r["block"]) == (name, block)]
            inexact = [r for r in some if not r["exact"]]
            right.semilogx(
                [r["beta"] for r in inexact],
                [r["bracket_bits"] / r["symbols"] for r in inexact],
                f"o{style}",
                color=f"C{i}",
                label=f"{name}, blocks of {block}",
            )
            if style == "-":
                middle.plot(
                    [r["distortion"] / r["symbols"] for r in some],
                    [r["rate_bits"] / r["symbols"] for r in some],
                    f"C{i}^",
                    label=f"{name}: block upper bound",
                )
                d = np.linspace(0, 0.46, 300)
                lines = [
                    (r["lower_lagrangian_bits"] - r["beta"] * d * r["symbols"] / math.log(2)) / r["symbols"]
                    for r in some
                ]
                _, p, q = MARKOV[i]
                gray = [
                    lower_rate_at_distortion_bits(p, q, LENGTH, max(x, 1e-9) * LENGTH) / LENGTH for x in d
                ]
                lower = np.maximum(gray, np.max(lines, axis=0))
                middle.plot(d, np.maximum(0, lower), f"C{i}-", label=f"{name}: lower bound")
                end = result["critical"][i]["endless"]
                middle.axvline(end, color=f"C{i}", linestyle=":", label=f"{name}: critical distortion")
    middle.set(
        xlabel="differing share of symbols", ylabel="bits a symbol", title=f"chains of {LENGTH} symbols"
    )
    right.set(
        xlabel="beta, nats a symbol", ylabel="upper less lower L, bits a symbol", title="bracket's width"
    )
    for ax in (left, middle, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--betas", type=float, nargs="+", default=np.geomspace(0.1, 10, 8).tolist())
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 8, 12])
    parser.add_argument("--stream", type=int, default=60_000, help="vectors; 0 for none")
    parser.add_argument("--stream-rounds", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "rd_closed_forms", help="no suffix")
    args = parser.parse_args()
    began = time.perf_counter()
    # first, so that its memory is not another's
    streamed = [stream(args.stream, args.stream_rounds, 4.0)] if args.stream else []
    jobs: list[Callable[[float], dict[str, Any]]] = [
        *(lambda beta, p=p: bits(p, beta) for p in (0.5, 0.3, 0.1)),
        *(lambda beta, name=name: line(name, beta) for name in ("gaussian", "laplacian")),
    ]
    rows = [job(beta) for job in tqdm(jobs, unit="source") for beta in args.betas]
    cases = [(case, beta, block) for case in MARKOV for block in args.blocks for beta in args.betas]
    result = {
        "what": "Blahut-Arimoto beside closed forms; brackets of binary Markov sequences; a streamed matrix",
        "tolerance_bits": SETTINGS.tolerance,
        "rows": rows,
        "worst_lagrangian_error_bits": max(abs(r["lagrangian_error_bits"]) for r in rows),
        "worst_rate_error_bits": max(abs(r["rate_error_bits"]) for r in rows),
        "markov": [chain(*case, beta, block) for case, beta, block in tqdm(cases, unit="bracket")],
        "critical": [critical(*case) for case in MARKOV],
        "stream": streamed,
        **describe_run(began),
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))
    print(
        f"worst errors: {result['worst_lagrangian_error_bits']:.1e} bits of L, "
        f"{result['worst_rate_error_bits']:.1e} of R at the own D"
    )


if __name__ == "__main__":
    main()
