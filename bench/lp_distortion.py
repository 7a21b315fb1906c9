"""R(D) of a Gaussian source under squared l^p distances (nerd-rcc fig. 7), d_p(x, y) = ||x - y||_p^2.

    python bench/lp_distortion.py                      # bench/results/lp_distortion.{json,png}

Source: 20 independent components of variance 4 exp(-k / 2). Algorithm 1 for parts of D_max, the mean of
d_p(x, 0), where R = 0, with the paper's fully connected generator; estimates on test vectors and fresh
candidates, at the slope that the last steps of training solved for. Since ||v||_p falls in p, R_1(D) >=
R_2(D) >= R_3(D) (eq. 24): ``ordered`` says for neighbouring curves whether the estimates obey it wherever
both are known. Between points, rates are read off straight lines, which time-sharing reaches.
"""

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from tqdm import tqdm

from rcccodec.distortion import parse_distortion
from rcccodec.proposals.generator import GeneratorProposal, GeneratorSpec
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source
from rcccodec.sources.synthetic import gaussian_variances
from rcccodec.training.trainer import TrainingPlan, train

SOURCE, M, DECAY = "gaussian:m=20,decay=0.5", 20, 0.5
EXPONENTS = (1.0, 2.0, 3.0)
PARTS = (0.75, 0.5, 0.3, 0.2)  # of D_max
SLOPE_STEPS = 50  # at the end of training, whose slopes are averaged
ESTIMATE_SEEDS = ((1 << 32) + 11, (1 << 32) + 12)
TRAINING_VECTORS = 60_000
Row = dict[str, Any]


def measure(p: float, wanted: float, x: torch.Tensor, test: torch.Tensor, args: argparse.Namespace) -> Row:
    """Train for d_p at the distortion ``wanted`` on x (n, 20); estimate on ``test``."""
    spec = GeneratorSpec("fc", (M,), M, M, 2, "linear")
    plan = TrainingPlan(
        spec, (1.0, 1.0), vae_steps=0, nerd_steps=args.steps, target_distortion=wanted,
        distortion=f"lp:{p:g}", nerd_batch_size=128, num_candidates=args.step_candidates,
        nerd_learning_rate=3e-3,
    )  # fmt: skip
    slopes: list[float] = []
    trained = train(x, plan, report=lambda progress: slopes.append(progress.beta))
    beta = float(np.mean(slopes[-SLOPE_STEPS:]))
    learned = GeneratorProposal(trained.generator.at_slope(beta))
    point = estimate_nerd(
        test, learned, beta=beta, num_candidates=args.candidates, seeds=ESTIMATE_SEEDS, distortion=f"lp:{p:g}"
    )
    return {
        "p": p,
        "wanted_distortion": wanted,
        "beta": beta,
        "rate_bits": point.rate_bits,
        "rate_se_bits": point.rate_se_bits,
        "distortion": point.distortion,
        "distortion_se": point.distortion_se,
        "lagrangian_bits": point.lagrangian_bits,
        "lagrangian_se_bits": point.lagrangian_se_bits,
        "num_candidates": point.num_samples,
        "saturated": point.saturated,
    }


def zero_rate(p: float, test: torch.Tensor) -> Row:
    """The end of the curve: nothing is sent and the source's mean, 0, is taken."""
    d = parse_distortion(f"lp:{p:g}")(test, torch.zeros(1, M))[:, 0].double()
    return {
        "p": p, "beta": 0.0, "rate_bits": 0.0, "rate_se_bits": 0.0, "distortion": float(d.mean()),
        "distortion_se": float(d.std() / math.sqrt(len(d))),
    }  # fmt: skip


def rate_at(distortion: float, rows: list[Row]) -> float | None:
    """Bits at a distortion, on straight lines between the points of one curve; None below all of them."""
    curve = sorted((r["distortion"], r["rate_bits"]) for r in rows)
    d, rate = np.array(curve).T
    return float(np.interp(distortion, d, rate, right=0.0)) if distortion >= d[0] else None


def ordering(rows: list[Row], exponents: list[float]) -> list[Row]:
    """For each pair p < q: the least R_p(D) - R_q(D) in bits over the points of both curves."""
    found = []
    for p, q in pairwise(sorted(exponents)):
        curves = [[r for r in rows if r["p"] == exponent] for exponent in (p, q)]
        gaps = []
        for row in (*curves[0], *curves[1]):
            at_p, at_q = (rate_at(row["distortion"], curve) for curve in curves)
            if at_p is not None and at_q is not None:
                gaps.append(at_p - at_q)
        least = min(gaps)
        least = min(gaps)
        found.append({"p": p, "q": q, "least_gap_bits": least, "ordered": least >= 0, "points": len(gaps)})
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """R against D on a logarithmic axis: the distances differ tenfold; the closed form where there is one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), constrained_layout=True)
    exponents = sorted({r["p"] for r in result["rows"]})
    for colour, p in enumerate(exponents):
        rows = sorted((r for r in result["rows"] if r["p"] == p), key=lambda r: r["distortion"])
        axes.errorbar(
            [r["distortion"] for r in rows], [r["rate_bits"] for r in rows],
            xerr=[2 * r["distortion_se"] for r in rows], yerr=[2 * r["rate_se_bits"] for r in rows],
            color=f"C{colour}", marker="o", markersize=4, capsize=2, label=f"NERD, p = {p:g} (2 s.e.)",
        )  # fmt: skip
        unsure = [r for r in rows if r.get("saturated")]
        axes.plot(
            [r["distortion"] for r in unsure], [r["rate_bits"] for r in unsure], f"C{colour}o", markersize=4,
            markerfacecolor="white", zorder=4,
        )  # fmt: skip
    if 2.0 in exponents:
        variances = gaussian_variances(M, DECAY)
        curve = [gaussian_point_at_slope(variances, beta) for beta in np.geomspace(0.126, 6, 200)]
        axes.plot(
            [c.distortion for c in curve], [c.rate_bits for c in curve], "k--", label="closed form, p = 2"
        )
    axes.set(xscale="log", xlabel="D = E ||x - y||_p^2", ylabel="R(D), bits a vector")
    axes.set_title(f"{result['source']}, N = {result['num_candidates']} (hollow: too few)", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exponents", type=float, nargs="+", default=list(EXPONENTS))
    parser.add_argument("--parts", type=float, nargs="+", default=list(PARTS), help="of D_max")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--step-candidates", type=int, default=1024, help="N of a training step")
    parser.add_argument("--candidates", type=int, default=32768)
    parser.add_argument("--test-vectors", type=int, default=500)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "lp_distortion", help="path without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    x = torch.from_numpy(load_source(SOURCE, "train", limit=TRAINING_VECTORS).flattened())
    test = torch.from_numpy(load_source(SOURCE, "test", limit=args.test_vectors).flattened())
    rows: list[Row] = []
    with tqdm(total=len(args.exponents) * len(args.parts), unit="training") as bar:
        for p in args.exponents:
            rows.append(end := zero_rate(p, test))
            for part in args.parts:
                rows.append(row := measure(p, part * end["distortion"], x, test, args))
                bar.write(
                    f"p {p:g} beta {row['beta']:.3g}: R {row['rate_bits']:.2f}, D {row['distortion']:.3f}"
                )
                bar.update()
    ordered = ordering(rows, args.exponents)
    for pair in ordered:
        print(f"R_{pair['p']:g}(D) - R_{pair['q']:g}(D) is at least {pair['least_gap_bits']:.2f} bits")
    result = {
        "what": "NERD estimates of R(D) under squared l^p distances",
        "source": SOURCE,
        "num_candidates": args.candidates,
        "training": {"vectors": TRAINING_VECTORS, "seed": 0, "steps": args.steps, "N": args.step_candidates},
        "test_vectors": args.test_vectors,
        **describe_run(began),
        "ordered": ordered,
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
