"""NERD's two forms on Gaussian sources up to 16 bits, beside reverse water-filling.

    python bench/rd_gaussian.py                    # bench/results/rd_gaussian.{json,png}

Sources: independent components of variance 4 exp(-k / 2), m = 20, and 4 exp(-k / 4), m = 40. Forms:

    exact plain     the optimal Q_Y, N candidates: Monte-Carlo bias alone
    exact more      the same, more candidates
    learned plain   a learned generator, N candidates: bias and what was not learned
    learned is      the same generator, importance sampling from its encoder: no ceiling at log2 N

The networks begin at the linear Gaussian model of the sample covariance, which is optimal here; learning has
to keep it. Estimates are paired: the exact Lagrangian and distortion of each test vector under the optimal
Q_Y are subtracted, their expectations added (control variates)::

    L(x) = sum_active (1/2) ln(s_k^2 / l) + x_k^2 / (2 s_k^2)  +  beta sum_inactive x_k^2
    D(x) = sum_active x_k^2 l^2 / s_k^4 + l (1 - l / s_k^2)    +  sum_inactive x_k^2       l = 1 / (2 beta)

Errors are over parts of the test vectors, each with codebooks or draws of its own. ``lagrangian_excess_bits``
is over the curve's at that slope; ``rate_excess_bits`` over R(D) at the own distortion. The bar is 0.1 bit
for R up to log2 N - 4.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result

from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.rd.beta_vae import paired_distortion
from rcccodec.rd.gaussian import gaussian_point_at_distortion, gaussian_point_at_slope
from rcccodec.rd.importance import estimate_importance
from rcccodec.rd.nerd import CEILING_BITS, estimate_nerd
from rcccodec.rd.nerd_law import learn_nerd
from rcccodec.rd.point import RatePoint, is_saturated
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BetaVaeSettings, NerdSettings
from rcccodec.sources.synthetic import gaussian_variances

DECAYS = {20: 0.5, 40: 0.25}
RATES_BITS = (0.5, 1, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16)
FORMS = ("exact plain", "exact more", "learned plain", "learned is")
PARTS = 16
BAR_BITS, MARGIN_BITS = 0.1, 4


def slope_of_rate(variances: np.ndarray, rate_bits: float) -> float:
    """The slope at which R(D) has this rate, by bisection of its logarithm."""
    low, high = 1e-6, 1e6
    for _ in range(80):
        middle = math.sqrt(low * high)
        if gaussian_point_at_slope(variances, middle).rate_bits < rate_bits:
            low = middle
        else:
            high = middle
    return high


def exact_of(x: np.ndarray, variances: np.ndarray, beta: float) -> tuple[float, float]:
    """Means of L(x), nats, and D(x) over the vectors x (n, m)."""
    level = 1 / (2 * beta)
    active = variances > level
    s, some, rest = variances[active], x[:, active] ** 2, (x[:, ~active] ** 2).sum(1)
    nats = 0.5 * np.log(s / level).sum() + (some / (2 * s)).sum(1) + beta * rest
    d = (some * (level / s) ** 2 + level * (1 - level / s)).sum(1) + rest
    return float(nats.mean()), float(d.mean())


def row_of(
    form: str, variances: np.ndarray, beta: float, parts: list[tuple[torch.Tensor, RatePoint]]
) -> dict[str, Any]:
    """The paired estimate of parts of the test vectors."""
    known, ln2 = gaussian_point_at_slope(variances, beta), math.log(2)
    differences = []
    for x, point in parts:
        nats, d = exact_of(x.double().numpy(), variances, beta)
        differences.append((point.lagrangian_bits - nats / ln2, point.distortion - d))
    values = np.array(differences)
    errors = values.std(0, ddof=1) / math.sqrt(len(values))
    excess, shift = values.mean(0)
    distortion = known.distortion + float(shift)
    rate_bits = known.rate_bits + float(excess) - beta * float(shift) / ln2
    at_same_d = gaussian_point_at_distortion(variances, distortion).rate_bits
    num_samples = parts[0][1].num_samples
    plain = form != "learned is"
    return {
        "form": form,
        "beta": beta,
        "exact_rate_bits": known.rate_bits,
        "exact_distortion": known.distortion,
        "rate_bits": rate_bits,
        "distortion": distortion,
        "distortion_se": float(errors[1]),
        "rd_at_own_distortion_bits": at_same_d,
        "rate_excess_bits": rate_bits - at_same_d,
        "lagrangian_excess_bits": float(excess),
        "lagrangian_excess_se_bits": float(errors[0]),
        "num_samples": num_samples,
        "saturated": is_saturated(num_samples, rate_bits) if plain else any(p.saturated for _, p in parts),
        "below_margin": plain and known.rate_bits <= math.log2(num_samples) - MARGIN_BITS,
        "seconds": sum(p.seconds for _, p in parts),
    }


def measure(problem: Problem, variances: np.ndarray, beta: float, args: argparse.Namespace) -> list[dict]:
    """All forms at one slope."""
    vae = BetaVaeSettings(width=args.width, depth=1, steps=args.steps)
    settings = NerdSettings(steps=args.tuning_steps)
    learned = learn_nerd(problem, beta, settings, Run(), vae=vae)
    exact, paired = GaussianProposal(variances, beta), paired_distortion(problem)
    parts = problem.test.chunk(PARTS)
    few = problem.test[: args.more_test].chunk(PARTS)
    made: dict[str, list[tuple[torch.Tensor, RatePoint]]] = {form: [] for form in FORMS}
    for i, x in enumerate(parts):
        seeds = ((1 << 32) + i,)
        for form, law in (("exact plain", exact), ("learned plain", learned.proposal)):
            point = estimate_nerd(x, law, beta=beta, num_candidates=args.candidates, seeds=seeds)
            made[form].append((x, point))
        weighed = estimate_importance(
            x, learned.decode, learned.posterior, paired, beta=beta, draws=args.draws, repeats=1,
            generator=Run().generator("bench", beta, i),
        )  # fmt: skip
        made["learned is"].append((x, weighed))
    for i, x in enumerate(few):
        seeds = ((1 << 33) + i,)
        point = estimate_nerd(x, exact, beta=beta, num_candidates=args.more_candidates, seeds=seeds)
        made["exact more"].append((x, point))
    rows = {form: row_of(form, variances, beta, some) for form, some in made.items()}
    weighed = rows["learned is"]
    for row in rows.values():  # plain NERD cannot see its own ceiling: the rule of `trace_nerd`
        over = row["lagrangian_excess_bits"] - weighed["lagrangian_excess_bits"]
        hidden = over > CEILING_BITS or is_saturated(row["num_samples"], weighed["rate_bits"])
        row["saturated"] = row["saturated"] or (row is not weighed and hidden)
    return list(rows.values())


def reach(rows: list[dict[str, Any]]) -> dict[str, float]:
    """By form, the largest exact rate up to which every excess of the Lagrangian is within the bar."""
    found = {}
    for form in FORMS:
        within = 0.0
        for row in sorted((r for r in rows if r["form"] == form), key=lambda r: r["exact_rate_bits"]):
            if row["lagrangian_excess_bits"] > BAR_BITS:
                break
            within = row["exact_rate_bits"]
        found[form] = within
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Excess of the Lagrangian against the exact rate, a panel for each source."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(result["sources"]), figsize=(13, 5), constrained_layout=True)
    for ax, source in zip(np.atleast_1d(axes), result["sources"], strict=True):
        for form, mark in zip(FORMS, ("k+-", "kx--", "C0o-", "C1s-"), strict=True):
            rows = [r for r in source["rows"] if r["form"] == form]
            ax.errorbar(
                [r["exact_rate_bits"] for r in rows], [r["lagrangian_excess_bits"] for r in rows],
                [2 * r["lagrangian_excess_se_bits"] for r in rows], fmt=mark, capsize=2,
                label=f"{form}, {rows[0]['num_samples']}",
            )  # fmt: skip
        ax.axhline(BAR_BITS, color="0.5", linestyle=":")
        ax.axvline(math.log2(result["num_candidates"]) - MARGIN_BITS, color="0.5", linestyle=":")
        ax.set(title=source["source"], xlabel="R, bits", ylabel="R + beta D over the exact one, bits")
        ax.set_yscale("symlog", linthresh=0.1)
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", choices=list(DECAYS), default=list(DECAYS))
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES_BITS), help="bits, exact")
    parser.add_argument("--candidates", type=int, default=1 << 16)
    parser.add_argument("--more-candidates", type=int, default=1 << 20)
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--test", type=int, default=2048)
    parser.add_argument("--more-test", type=int, default=256, help="vectors with more candidates")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600, help="of the warm start")
    parser.add_argument("--tuning-steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_gaussian.json")
    args = parser.parse_args()
    began, sources = time.perf_counter(), []
    for m in args.dims:
        spec, variances = f"gaussian:m={m},decay={DECAYS[m]}", gaussian_variances(m, DECAYS[m])
        problem, rows = load_problem(spec, num_test=args.test), []
        for rate in args.rates:
            found = measure(problem, variances, slope_of_rate(variances, rate), args)
            rows += found
            words = [
                f"{r['form']} {r['lagrangian_excess_bits']:+.3f} ± {r['lagrangian_excess_se_bits']:.3f}"
                f"{' saturated' if r['saturated'] else ''}"
                for r in found
            ]
            print(f"{spec} R {rate:g}: {'; '.join(words)}; {time.perf_counter() - began:.0f} s", flush=True)
        sources.append({"source": spec, "within_bar_up_to_bits": reach(rows), "rows": rows})
    result = {
        "what": "excess of NERD's two forms over reverse water-filling, paired with the exact values",
        **describe_run(began),
        "bar_bits": BAR_BITS,
        "margin_bits": MARGIN_BITS,
        "num_candidates": args.candidates,
        "test_vectors": args.test,
        "training": {"width": args.width, "steps": args.steps, "tuning_steps": args.tuning_steps},
        "sources": sources,
    }
    write_result(args.out, result)
    plot(result, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
