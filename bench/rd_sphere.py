"""Wasserstein gradient descent on the noisy sphere, where the optimal law of reproductions is known.

    python bench/rd_sphere.py                      # bench/results/rd_sphere.{json,png}

X = Y + N(0, s^2 I), Y uniform on the unit sphere of R^m, s^2 = 0.1. At the slope 1 / (2 s^2) of summed
squared error the law of Y is optimal and the Lagrangian is h(X) - (m/2) ln(2 pi s^2) nats: the Shannon lower
bound is tight. Of one vector it is a function of r = |x|::

    L(x) = (r^2 + 1) / (2 s^2) - ln E exp(k u_1)       u uniform on the sphere, k = r / s^2
    E exp(k u_1) = Gamma(m/2) (2/k)^v I_v(k)           v = m/2 - 1

``excess_nats`` is paired: L(x) is subtracted vector by vector, errors are over parts of the test vectors.
``exact_nats`` is the integral over r.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from scipy.integrate import quad
from scipy.special import gammaln, ive

from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import WassersteinSettings
from rcccodec.rd.wasserstein import measure_particles, move_particles

NOISE = 0.1
SLOPE = 1 / (2 * NOISE)
PARTS = 20
BAR_NATS = 0.05


def exact_of(r: np.ndarray, m: int) -> np.ndarray:
    """L(x), nats, of radii r."""
    order, k = m / 2 - 1, r / NOISE
    return (r**2 + 1) / (2 * NOISE) - (gammaln(m / 2) + order * np.log(2 / k) + np.log(ive(order, k)) + k)


def exact_nats(m: int) -> float:
    """E L(X), by integrating over the radius: the density of x is (2 pi s^2)^(-m/2) exp(-L(x))."""
    area = math.log(2) + 0.5 * m * math.log(math.pi) - gammaln(m / 2)

    def density(r: float) -> float:
        nats = float(exact_of(np.array(r), m))
        return math.exp(area + (m - 1) * math.log(r) - 0.5 * m * math.log(2 * math.pi * NOISE) - nats)

    total, _ = quad(density, 1e-9, 5, limit=200)
    if abs(total - 1) > 1e-6:
        raise RuntimeError(f"the density of |x| integrates to {total}")
    found, _ = quad(lambda r: density(r) * float(exact_of(np.array(r), m)), 1e-9, 5, limit=200)
    return float(found)


def measure(problem: Problem, m: int, settings: WassersteinSettings) -> dict[str, Any]:
    """One run of particles, beside the exact value of the same test vectors."""
    run = Run()
    particles, seconds = move_particles(problem, SLOPE, settings, run)
    point = measure_particles(particles, problem, SLOPE, run, seconds=seconds)
    excess = []
    for part in problem.test.chunk(PARTS):
        nats = measure_particles(particles, replace(problem, test=part), SLOPE, run).lagrangian_bits
        r = part.double().norm(dim=1).numpy()
        excess.append(nats * math.log(2) - float(exact_of(r, m).mean()))
    mean, error = float(np.mean(excess)), float(np.std(excess, ddof=1) / math.sqrt(PARTS))
    return {
        "m": m,
        "particles": settings.particles,
        "hybrid": settings.hybrid,
        "exact_nats": exact_nats(m),
        "lagrangian_nats": exact_nats(m) + mean,
        "excess_nats": mean,
        "excess_se_nats": error,
        "within_bar": mean < BAR_NATS,
        "rate_bits": point.rate_bits,
        "distortion": point.distortion,
        "exact_distortion": m * NOISE,
        "saturated": point.saturated,
        "effective_particles": point.details["effective_particles"],
        "seconds": point.seconds,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Excess over the exact Lagrangian against the number of particles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 5), constrained_layout=True)
    for c, m in enumerate(sorted({r["m"] for r in rows})):
        for hybrid, line in ((False, "-o"), (True, "--s")):
            some = sorted(
                (r for r in rows if (r["m"], r["hybrid"]) == (m, hybrid)), key=lambda r: r["particles"]
            )
            if some:
                ax.errorbar(
                    [r["particles"] for r in some], [r["excess_nats"] for r in some],
                    [2 * r["excess_se_nats"] for r in some], fmt=line, color=f"C{c}", capsize=3,
                    label=f"m = {m}{', with weight steps' if hybrid else ''}",
                )  # fmt: skip
    ax.axhline(BAR_NATS, color="0.5", linestyle=":", label=f"{BAR_NATS} nat")
    ax.set(xscale="log", xlabel="particles", ylabel="Lagrangian over the exact one, nats")
    ax.set_yscale("symlog", linthresh=0.05)
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--particles", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--more", type=int, default=2000, help="particles in the largest dimension; 0: none")
    parser.add_argument("--steps", type=int, default=WassersteinSettings().steps)
    parser.add_argument("--train", type=int, default=60_000, help="source vectors")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_sphere.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    for m in args.dims:
        spec = f"sphere:m={m},noise={NOISE}"
        problem = load_problem(spec, num_train=args.train, num_test=args.test)
        trials = [(n, hybrid) for n in args.particles for hybrid in (False, True)]
        if args.more and m == max(args.dims):
            trials.append((args.more, False))
        for n, hybrid in trials:
            settings = WassersteinSettings(particles=n, hybrid=hybrid, steps=args.steps)
            row = measure(problem, m, settings)
            rows.append(row)
            print(
                f"m {m} n {n} {'hybrid' if hybrid else 'plain'}: excess {row['excess_nats']:+.4f} "
                f"± {row['excess_se_nats']:.4f} nats, R {row['rate_bits']:.2f} bits, {row['seconds']:.0f} s",
                flush=True,
            )
    result = {
        "what": "Lagrangian of Wasserstein gradient descent on the noisy sphere, beside the exact one",
        **describe_run(began),
        "noise": NOISE,
        "beta": SLOPE,
        "bar_nats": BAR_NATS,
        "train": args.train,
        "test": args.test,
        "steps": args.steps,
        "rows": rows,
    }
    write_result(args.out, result)
    plot(rows, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
