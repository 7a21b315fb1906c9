"""Lower bounds on R(D) by the dual problem, beside exact values of sources that have them.

    python bench/rd_lower_bound.py            # bench/results/rd_lower_bound.{json,png}

Two parts. ``rows``: sources with a known Lagrangian R + beta D, each with fresh data and a fresh fit for
every seed: the bound (a one-sided 99 % limit), the mean it comes from, and the gap to the exact value, which
must not be negative. ``draws``: one Gaussian source at rising slopes for several k: no bound passes log2 k
bits.

Exact values: reverse water-filling; ln(beta b) + 1 a component for the Laplacian with absolute error;
H(p) - ln(1 + exp(-beta)) a component for bits; h(X) - (m / 2) ln(2 pi s) for the noisy sphere at the slope
1 / (2 s), by radial integration; Blahut-Arimoto over all sequences with their exact masses for the Markov
source, less its gap.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from scipy.integrate import quad
from scipy.special import gammaln, ive

from rcccodec.rd.blahut_arimoto import blahut_arimoto
from rcccodec.rd.dual_bound import trace_lower_bound
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.problem import load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import SandwichSettings
from rcccodec.rd.supremum import list_reproductions
from rcccodec.sources.synthetic import gaussian_variances, parse_synthetic

ROWS = (
    # source, distortion, beta, k, training vectors
    ("gaussian:m=1,decay=0", None, 0.3, 1024, 60_000),
    ("gaussian:m=1,decay=0", None, 0.3, 8192, 400_000),
    ("gaussian:m=1,decay=0", None, 2.0, 1024, 60_000),
    ("gaussian:m=1,decay=0", None, 2.0, 8192, 400_000),
    ("gaussian:m=5,decay=0.5", None, 0.5, 1024, 60_000),
    ("gaussian:m=20,decay=0.5", None, 0.3, 1024, 60_000),
    ("laplacian:m=1", "l1", 3.0, 1024, 60_000),
    ("laplacian:m=4", "l1", 1.2, 1024, 60_000),
    ("bernoulli:m=1,p=0.3", None, 2.0, 1024, 60_000),
    ("sphere:m=2,noise=0.1", None, 5.0, 1024, 60_000),
    ("sphere:m=5,noise=0.1", None, 5.0, 1024, 60_000),
    ("markov:n=10,p=0.25,q=0.25", None, 1.0, 1024, 60_000),
)
DRAWS_SOURCE, DRAWS_BETAS, DRAWS = "gaussian:m=20,decay=0.5", (0.1, 0.3, 1.0, 3.0), (256, 1024, 4096)
DRAWS_FOLDS, DRAWS_VECTORS = 8, 120_000


def exact_bits(spec: str, beta: float) -> float:
    """min over channels of I + beta E d, in bits a vector."""
    name, p = parse_synthetic(spec)
    if name == "gaussian":
        point = gaussian_point_at_slope(gaussian_variances(int(p["m"]), p["decay"], p["variance"]), beta)
        return point.rate_bits + beta * point.distortion / math.log(2)
    if name == "laplacian":
        assert beta * p["b"] >= 1, "the rate is 0 below this slope"
        return p["m"] * (math.log(beta * p["b"]) + 1) / math.log(2)
    if name == "bernoulli":
        h = -(p["p"] * math.log(p["p"]) + (1 - p["p"]) * math.log1p(-p["p"]))
        return p["m"] * (h - math.log1p(math.exp(-beta))) / math.log(2)
    if name == "sphere":
        assert math.isclose(beta, 1 / (2 * p["noise"])), "exact at this slope only"
        return sphere_bits(int(p["m"]), p["noise"])
    return markov_bits(int(p["n"]), p["p"], p["q"], beta)


def sphere_bits(m: int, noise: float) -> float:
    """h(X) - (m / 2) ln(2 pi noise), X = Y + N(0, noise I), Y uniform on the unit sphere of R^m."""
    order = m / 2 - 1

    def log_density(r: float) -> float:
        kappa = r / noise
        mean = gammaln(m / 2) + order * math.log(2 / kappa) + math.log(ive(order, kappa)) + kappa
        return -m / 2 * math.log(2 * math.pi * noise) - (r * r + 1) / (2 * noise) + mean

    surface = math.log(2) + m / 2 * math.log(math.pi) - gammaln(m / 2)

    def mass(r: float) -> float:
        return math.exp(surface + (m - 1) * math.log(r) + log_density(r))

    reach = 1 + 12 * math.sqrt(noise)
    total = quad(mass, 1e-9, reach, limit=400)[0]
    assert abs(total - 1) < 1e-7, total
    entropy = quad(lambda r: -mass(r) * log_density(r), 1e-9, reach, limit=400)[0]
    return (entropy - m / 2 * math.log(2 * math.pi * noise)) / math.log(2)


def markov_bits(n: int, p: float, q: float, beta: float) -> float:
    """All 2^n sequences, as sources and reproductions."""
    y = list_reproductions(torch.tensor([0.0, 1.0]), n)
    assert y is not None
    bits = y.long().numpy()
    mass = np.where(bits[:, 0] == 0, p / (p + q), q / (p + q))
    step = np.array([[1 - q, q], [p, 1 - p]])
    for t in range(1, n):
        mass = mass * step[bits[:, t - 1], bits[:, t]]
    d = (y @ (1 - y).T + (1 - y) @ y.T).double()
    found = blahut_arimoto(d, beta, tolerance_bits=1e-5, max_rounds=5000, source=torch.from_numpy(mass))
    return found.lagrangian_bits - found.gap_bits


def measure(
    spec: str, distortion: str | None, beta: float, k: int, vectors: int, seed: int, folds: int
) -> dict[str, Any]:
    """One bound, from data and a fit of their own."""
    problem = load_problem(spec, distortion=distortion, num_train=vectors, seed=seed)
    point = trace_lower_bound(problem, beta, SandwichSettings(draws=k, evaluations=folds), Run(seed=seed))
    known = exact_bits(spec, beta)
    return {
        "seed": seed,
        "exact_bits": known,
        "lower_bits": point.lagrangian_bits,
        "mean_bits": point.details["mean_bits"],
        "mean_se_bits": point.lagrangian_se_samples_bits,
        "gap_bits": known - point.lagrangian_bits,
        "mean_gap_bits": known - point.details["mean_bits"],
        "supremum": point.details["supremum"],
        "supremum_half": point.details["supremum_half"],
        "supremum_fresh": point.details["supremum_fresh"],
        "supremum_proven": bool(point.details["proven"]),
        "unsettled_starts": point.details["unsettled_starts"],
        "network_gain_bits": point.details["network_gain_bits"],
        "saturated": point.saturated,
        "num_samples": point.num_samples,
        "seconds": point.seconds,
    }


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds of one row."""
    gaps = np.array([f["gap_bits"] for f in found])
    return {
        "exact_bits": found[0]["exact_bits"],
        "gap_bits": float(gaps.mean()),
        "smallest_gap_bits": float(gaps.min()),
        "mean_gap_bits": float(np.mean([f["mean_gap_bits"] for f in found])),
        "above_exact": int((gaps < 0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_lower_bound.json")
    parser.add_argument("--replot", action="store_true", help="draw the figure of --out again")
    args = parser.parse_args()
    if args.replot:
        plot(json.loads(args.out.read_text()), args.out.with_suffix(".png"))
        return
    began = time.perf_counter()
    before = describe_run(began)  # the checkout as it is at the start
    result: dict[str, Any] = {"command": f"python bench/rd_lower_bound.py --seeds {args.seeds}"}
    result |= {"rows": [], "draws": []}

    def save(*, complete: bool) -> None:
        seconds = time.perf_counter() - began
        write_result(args.out, before | {"seconds": seconds, "complete": complete} | result)

    for spec, distortion, beta, k, vectors in ROWS:
        found = [measure(spec, distortion, beta, k, vectors, seed, 20) for seed in range(args.seeds)]
        row = {
            "source": spec,
            "distortion": distortion or "default",
            "beta": beta,
            "k": k,
            "vectors": vectors,
        }
        row |= summarise(found)
        print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
        result["rows"].append(row | {"seeds": found})
        save(complete=False)
    for k in DRAWS:
        for beta in DRAWS_BETAS:
            found = measure(DRAWS_SOURCE, None, beta, k, DRAWS_VECTORS, 0, DRAWS_FOLDS)
            print(k, beta, round(found["exact_bits"], 3), round(found["lower_bits"], 3), flush=True)
            result["draws"].append({"source": DRAWS_SOURCE, "beta": beta, "k": k, **found})
    save(complete=True)
    plot(result, args.out.with_suffix(".png"))


def plot(result: dict[str, Any], path: Path) -> None:
    """Left: every bound beside its exact value. Right: what k does."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    for row in result["rows"]:
        gaps = [s["gap_bits"] for s in row["seeds"]]
        label = f"{row['source']}, β = {row['beta']:g}, k = {row['k']}"
        left.plot(gaps, [label] * len(gaps), "o", ms=4, alpha=0.7)
    left.axvline(0, color="black", lw=1)
    left.invert_yaxis()
    left.tick_params(axis="y", labelsize=7)
    left.set_xlabel("exact Lagrangian minus bound, bits")
    left.set_title("five fits each; left of 0 would be wrong", fontsize=9)
    exact = sorted({r["exact_bits"] for r in result["draws"]})
    right.plot(exact, exact, color="black", lw=1, label="exact")
    for k in sorted({r["k"] for r in result["draws"]}):
        rows = [r for r in result["draws"] if r["k"] == k]
        (line,) = right.plot(
            [r["exact_bits"] for r in rows], [r["lower_bits"] for r in rows], "o-", label=f"k = {k}"
        )
        right.axhline(math.log2(k), color=line.get_color(), ls=":", lw=1)
    right.set_xlabel("exact Lagrangian R + βD / ln 2, bits")
    right.set_ylabel("bound, bits (dotted: log2 k)")
    right.set_title(result["draws"][0]["source"], fontsize=9)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
