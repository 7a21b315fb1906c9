"""Learned transform coding of Gaussian vectors beside reverse channel coding with the exact Q_Y.

    python bench/gaussian_ntc.py                 # bench/results/gaussian_ntc.{json,png}
    python bench/gaussian_ntc.py --vectors 2000 --seeds 3 --training-seeds 3 -o /tmp/trial

The source is that of bench/gaussian_rcc.py; the baseline is `models/gaussian-ntc`, with and without the
search of its encoder. Both sides code fresh vectors, are decoded back, and are charged the payload that was
written; ``excess_bits`` is that less R(D) at the distortion that was reached.
"""

import argparse
import math
import time
from pathlib import Path

import gaussian_rcc
import numpy as np
from metadata import RESULTS, describe_run, write_result

from rcccodec.baselines import load_baseline
from rcccodec.baselines.baseline import Baseline
from rcccodec.rd.gaussian import gaussian_point_at_distortion

JOB = 1000  # vectors in one stream, the spread over which gives the standard error
FIRST_SEED = 1000  # away from the codebooks'


def measure(baseline: Baseline, beta: float, search_passes: int, vectors: int) -> dict[str, object]:
    """The baseline at one of its slopes: payload bits and squared error a vector, after decoding."""
    bits, distortion = [], []
    for job in range(vectors // JOB):
        x = gaussian_rcc.source_blocks(FIRST_SEED + job, JOB).numpy()
        data = baseline.compress(list(x), beta, search_passes=search_passes)
        x_hat = np.stack(baseline.decompress(data))
        bits.append(baseline.payload_bits(data) / JOB)
        distortion.append(float(np.square(x - x_hat).sum(1).mean()))
    lagrangian = np.array(bits) + beta * np.array(distortion) / math.log(2)
    rd = gaussian_point_at_distortion(gaussian_rcc.VARIANCES, float(np.mean(distortion)))
    return {
        "beta": beta,
        "coder": f"ntc, {'searching' if search_passes else 'rounding'} encoder",
        "index_code": None,
        "payload_bits_per_block": float(np.mean(bits)),
        "distortion": float(np.mean(distortion)),
        "rate_at_own_distortion_bits": rd.rate_bits,
        "excess_bits": float(np.mean(bits)) - rd.rate_bits,
        "excess_standard_error": float(lagrangian.std(ddof=1) / math.sqrt(len(bits))),
    }


def plot(rows: list[dict], path: Path) -> None:
    """Excess against the rate at the distortion reached."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), constrained_layout=True)
    names = {(row["coder"], row["index_code"]): None for row in rows}
    for coder, code in names:
        own = [row for row in rows if (row["coder"], row["index_code"]) == (coder, code)]
        own.sort(key=lambda row: row["rate_at_own_distortion_bits"])
        axes.errorbar(
            [row["rate_at_own_distortion_bits"] for row in own],
            [row["excess_bits"] for row in own],
            yerr=[2 * row["excess_standard_error"] for row in own],
            marker="o",
            markersize=4,
            capsize=2,
            linestyle="--" if code is None else "-",
            label=coder + (f", {code}" if code else ""),
        )
    axes.set_xlabel("R(D), bits a vector")
    axes.set_ylabel("payload bits over R(D) at own D (2 standard errors)")
    axes.set_title("Gaussian vectors, m = 20: transform coding and reverse channel coding")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", default="gaussian-ntc")
    parser.add_argument("--vectors", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=20, help="codebooks")
    parser.add_argument("--training-seeds", type=int, default=20)
    parser.add_argument("--training-blocks", type=int, default=100)
    parser.add_argument("--blocks", type=int, default=200, help="vectors a codebook")
    parser.add_argument("--candidates", type=int, default=65536)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "gaussian_ntc", help="without suffix")
    args = parser.parse_args()
    began, baseline = time.perf_counter(), load_baseline(args.baseline)
    rows: list[dict] = []
    for beta in baseline.betas:
        rows += [measure(baseline, beta, passes, args.vectors) for passes in (1, 0)]
        if beta <= max(gaussian_rcc.BETAS):
            rows += gaussian_rcc.measure(beta, args)
        for row in (row for row in rows if row["beta"] == beta):
            print(
                f"beta {beta:<5g} {row['coder']:>24} {row['index_code'] or '':<12} bits "
                f"{row['payload_bits_per_block']:6.2f}  D {row['distortion']:.4f}  "
                f"excess {row['excess_bits']:.2f} +- {row['excess_standard_error']:.2f}",
                flush=True,
            )
    result = {
        "source": "variances 4 exp(-0.5 k), k = 0..19",
        "baseline": {"name": baseline.name, "sha256": baseline.sha256},
        "num_candidates": args.candidates,
        "vectors": args.vectors,
        "codebooks": args.seeds,
        **describe_run(began, args.device),
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(rows, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
