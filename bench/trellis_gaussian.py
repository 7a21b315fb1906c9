"""What sending i.i.d. Gaussians costs over R(D): the trellis at several L beside chunks of one index each.

    python bench/trellis_gaussian.py -o bench/results/trellis_gaussian

Each source has variance 1 and candidates of the output marginal's, N(0, 1 - D) with D = 4^-r. Excess is bits
spent over R at the squared error that was reached, R = log2(variance / error) / 2 with the sample's own
variance; means over independent runs with standard errors. Chunks of 14 bits are searched with N = 2^18 and
2^16 candidates (PFR, min-cost) and cost the ideal length of an index code fitted on other chunks.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from metadata import describe_run, write_result
from standard_error import standard_error

from rcccodec.latent import chunk_codes, chunks, trellis

RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
TRELLISES = (8, 10, 12, 14, 16)
RUNS, BITS = 6, 1500
BUDGET = 14
CHUNKS = 96  # of a run


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/trellis_gaussian"))
    arguments = parser.parse_args()
    began = time.perf_counter()
    rows = []
    for rate in RATES:
        for log2_states in TRELLISES:
            each = [
                _trellis(rate, log2_states, run) for run in range(RUNS if log2_states < 16 else RUNS // 2)
            ]
            rows.append(_row("trellis", rate, log2_states, each))
        for coder in ("pfr", "mincost"):
            log2 = BUDGET + chunks.MARGIN_BITS[coder]
            rows.append(_row(coder, rate, log2, _chunked(rate, coder, log2)))
    write_result(
        arguments.output.with_suffix(".json"),
        {"rows": rows, "runs": RUNS, "bits": BITS, **describe_run(began, "cpu")},
    )
    _draw(rows, arguments.output.with_suffix(".png"))


def _row(coder: str, rate: float, log2: int, each: list[float]) -> dict[str, float | str]:
    row: dict[str, float | str] = {
        "coder": coder,
        "rate_bits_per_dim": rate,
        "log2_num_candidates": log2,
        "excess_percent": 100 * float(np.mean(each)),
        "se_percent": 100 * standard_error(np.array(each)),
    }
    print(row, flush=True)
    return row


def _source(rate: float, count: int, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """x (count,), the linear and quadratic terms of its candidates, and their scale."""
    x = np.random.default_rng((run, round(1000 * rate))).standard_normal(count)
    distortion = 4.0**-rate
    scale = math.sqrt(1 - distortion)
    half = 1 / (2 * distortion)  # slope at which the channel has this rate, nats a squared error
    linear, quadratic = -2 * half * scale * x, np.full(count, half * scale**2)
    return x, linear.astype(np.float32), quadratic.astype(np.float32), scale


def _excess(bits: float, x: np.ndarray, y: np.ndarray) -> float:
    return bits / (len(x) * 0.5 * math.log2(np.square(x).mean() / np.square(x - y).mean())) - 1


def _trellis(rate: float, log2_states: int, run: int) -> float:
    x, linear, quadratic, scale = _source(rate, round(BITS / rate), run)
    when = trellis.schedule(np.full(len(x), round(1000 * rate)))
    options = {"log2_states": log2_states, "seed": run}
    (bits,) = trellis.search([linear], [quadratic], [when], **options)
    return _excess(when.num_bits, x, scale * trellis.values(bits, when, **options))


def _chunked(rate: float, coder: str, log2: int) -> list[float]:
    found = []
    fitted: dict[int, list[int]] = {}
    for run in range(-1, RUNS):  # the first run's chunks are those that the code is fitted on
        dims = max(1, round(BUDGET / rate))
        x, linear, quadratic, scale = _source(rate, CHUNKS * dims, run + 1000)
        starts = np.arange(CHUNKS + 1) * dims
        if run < 0:
            fitted[BUDGET] = chunk_codes.fit_frequencies(
                linear, quadratic, starts, coder=coder, num_candidates=1 << log2, seeds=range(50, 58)
            )
            continue
        bits = np.full(CHUNKS, BUDGET)
        costs = {}
        if coder == "mincost":
            cost_nats, kinds = chunk_codes.costs_nats(bits, fitted, 1 << log2)
            costs = {"cost_nats": cost_nats, "kinds": kinds}
        indices = chunks.choose(
            linear, quadratic, starts, coder=coder, num_candidates=1 << log2, seed=run, stream=0, **costs
        )
        code = chunk_codes.code_for(BUDGET, fitted, 1 << log2)
        y = scale * chunks.values(indices, starts, seed=run, stream=0)
        found.append(_excess(float(code.lengths_bits(indices).sum()), x, y))
    return found


def _draw(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    shades = pyplot.get_cmap("viridis")(np.linspace(0.85, 0.1, len(TRELLISES)))
    for coder, log2, colour, mark in (
        *(("trellis", n, shade, "o-") for n, shade in zip(TRELLISES, shades, strict=True)),
        ("pfr", BUDGET + chunks.MARGIN_BITS["pfr"], "C3", "s--"),
        ("mincost", BUDGET + chunks.MARGIN_BITS["mincost"], "C1", "^--"),
    ):
        mine = [r for r in rows if (r["coder"], r["log2_num_candidates"]) == (coder, log2)]
        name = (
            f"trellis, L = {log2}"
            if coder == "trellis"
            else f"chunks of {BUDGET} bits, {coder}, N = 2^{log2}"
        )
        axes.errorbar(
            [r["rate_bits_per_dim"] for r in mine], [r["excess_percent"] for r in mine],
            [r["se_percent"] for r in mine], fmt=mark, color=colour, label=name, markersize=4, linewidth=1,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="bits a dimension", ylabel="bits over R(D), %", ylim=(0, 40))
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
