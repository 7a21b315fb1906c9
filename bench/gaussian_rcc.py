"""Reverse channel coding of a Gaussian source with its exact Q_Y: real payload bits over R(D).

    python bench/gaussian_rcc.py                 # bench/results/gaussian_rcc.{json,png}
    python bench/gaussian_rcc.py --seeds 2 --blocks 100 --candidates 4096 -o /tmp/trial

Source: 20 independent components of variance 4 exp(-k / 2). A seed fixes the codebook, the arrival times and
fresh source blocks; its blocks are one job and share the codebook, as a file's blocks do, so it is the number
of seeds that makes an average sure. Fitted code and min-cost lengths are learnt on training seeds alone.

``excess_bits`` is the payload in bits a block less R(D) at the scheme's own distortion, both means over
seeds. Its standard error is that of bits + beta D / ln 2 over seeds, to first order the same thing.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result

from rcccodec.channel import best_per_class, candidates_at, select_channel, select_mincost, squared_distances
from rcccodec.index_code import FittedCode, IndexCode, ZipfHuffman, decode_segments, encode_segments
from rcccodec.index_code.fitted import class_sizes, class_starts, fit
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import standard_normals
from rcccodec.rd.gaussian import (
    estimate_simulation_floor_bits,
    gaussian_point_at_distortion,
    gaussian_point_at_slope,
)

VARIANCES = 4 * np.exp(-0.5 * np.arange(20))
BETAS = (8.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.25)
SOURCE_STREAM = 1 << 20  # far from the streams of latents and arrival times
FIRST_TRAINING_SEED = 1_000_000
CHANNELS = ("pfr", "orc")
# bits over R(D) measured once with an independent implementation, N = 65536, standard error about 0.1
REFERENCE = {
    "pfr zipf-huffman": (3.47, 2.83, 2.80, 2.90, 2.55, 2.12, 2.13),
    "pfr fitted": (2.48, 2.38, 2.43, 2.63, 2.23, 1.77, 1.46),
    "orc fitted": (2.47, 2.36, 2.41, 2.60, 2.23, 1.77, 1.46),
    "mincost fitted": (2.38, 2.12, 2.13, 2.10, 1.82, 1.37, 0.67),
}


def source_blocks(seed: int, count: int) -> torch.Tensor:
    """Blocks (count, 20) float32 of one seed."""
    scale = torch.as_tensor(np.sqrt(VARIANCES), dtype=torch.float32)
    return standard_normals(seed, torch.arange(count), len(VARIANCES), SOURCE_STREAM) * scale


def run_seed(seed: int, blocks: int, beta: float, args: argparse.Namespace) -> dict[str, tuple]:
    """Everything one codebook gives: the choices of each channel coder, and the class table for min-cost."""
    proposal, n = GaussianProposal(VARIANCES, beta), args.candidates
    x = source_blocks(seed, blocks)
    found: dict[str, tuple] = {"x": (x,)}
    for coder in CHANNELS:
        chosen = select_channel(
            x, proposal, beta=beta, coder=coder, seed=seed, num_candidates=n, device=args.device
        )
        found[coder] = (chosen.indices, float(chosen.certified.double().mean()))
    found["classes"] = best_per_class(
        x, proposal, class_starts=class_starts(n), num_candidates=n, seed=seed, device=args.device
    )
    return found


def learn(training: list[dict[str, tuple]], beta: float, n: int) -> dict[str, FittedCode]:
    """Fitted codes of each coder from the training seeds; min-cost starts from PFR's and settles."""
    codes = {
        coder: FittedCode(fit(torch.cat([t[coder][0] for t in training]).numpy(), num_candidates=n), n)
        for coder in CHANNELS
    }
    table = [torch.cat([t["classes"][i] for t in training]) for i in range(2)]
    start_bits = codes["pfr"].lengths_bits(class_starts(n))
    settled = select_mincost(*table, start_bits, beta=beta, class_sizes=class_sizes(n))
    codes["mincost"] = FittedCode(fit(settled.indices.numpy(), num_candidates=n), n)
    return codes


def payload_bits(code: IndexCode, indices: torch.Tensor) -> float:
    """Bits a block of the bytes that are really written; read back to be sure."""
    payload = encode_segments([(code, indices.numpy())])
    (read,) = decode_segments(payload, [(code, indices.numel())])
    if not np.array_equal(read, indices.numpy()):
        raise AssertionError("payload does not decode to its indices")
    return 8 * len(payload) / indices.numel()


def measure(beta: float, args: argparse.Namespace) -> list[dict[str, object]]:
    """Rows of one slope."""
    n, point = args.candidates, gaussian_point_at_slope(VARIANCES, beta)
    proposal = GaussianProposal(VARIANCES, beta)
    training = [
        run_seed(FIRST_TRAINING_SEED + s, args.training_blocks, beta, args)
        for s in range(args.training_seeds)
    ]
    codes = learn(training, beta, n)
    zipf = ZipfHuffman(n, round(1000 * point.rate_bits))
    tried: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for seed in range(args.seeds):
        found = run_seed(seed, args.blocks, beta, args)
        fixed = codes["mincost"].lengths_bits(class_starts(n))
        chosen = select_mincost(*found["classes"], fixed, beta=beta, class_sizes=class_sizes(n), refit=False)
        found["mincost"] = (chosen.indices, 0.0)
        for coder in (*CHANNELS, "mincost"):
            indices, certified = found[coder]
            y = candidates_at(proposal, indices, seed=seed)
            distortion = float(squared_distances(found["x"][0], y).mean())
            tables: list[tuple[str, IndexCode]] = [("fitted", codes[coder])]
            if coder in CHANNELS:
                tables.append(("zipf-huffman", zipf))
            for name, code in tables:
                ideal = float(code.lengths_bits(indices.numpy()).mean())
                row = (payload_bits(code, indices), distortion, certified, ideal)
                tried.setdefault((coder, name), []).append(row)
    floor, floor_error = estimate_simulation_floor_bits(VARIANCES, beta, num_sources=600, num_samples=10_000)
    rows: list[dict[str, object]] = []
    for (coder, name), values in tried.items():
        bits, distortion, certified, ideal = np.array(values).T
        rd = gaussian_point_at_distortion(VARIANCES, float(distortion.mean()))
        lagrangian = bits + beta * distortion / math.log(2)
        count = len(values)
        reference = dict(zip(BETAS, REFERENCE.get(f"{coder} {name}", ()), strict=False)).get(beta)
        rows.append(
            {
                "beta": beta,
                "rd_rate_bits": point.rate_bits,
                "rd_distortion": point.distortion,
                "coder": coder,
                "index_code": name,
                "payload_bits_per_block": float(bits.mean()),
                "code_length_bits_per_block": float(ideal.mean()),
                "distortion": float(distortion.mean()),
                "distortion_standard_error": float(distortion.std(ddof=1) / math.sqrt(count)),
                "rate_at_own_distortion_bits": rd.rate_bits,
                "excess_bits": float(bits.mean()) - rd.rate_bits,
                "excess_standard_error": float(lagrangian.std(ddof=1) / math.sqrt(count)),
                "reference_excess_bits": reference,
                "simulation_floor_excess_bits": floor - point.rate_bits,
                "simulation_floor_standard_error": floor_error,
                "certified_fraction": float(certified.mean()) if coder == "pfr" else None,
                "log2_candidates_less_rate": math.log2(n) - point.rate_bits,
                "seeds": count,
            }
        )
    return rows


def plot(result: dict, path: Path) -> None:
    """Excess against R, every scheme, with the floor and the reference values."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), constrained_layout=True)
    shown = [("pfr", "zipf-huffman"), ("pfr", "fitted"), ("orc", "fitted"), ("mincost", "fitted")]
    offsets = dict(zip(shown, (-0.06, -0.02, 0.06, 0.02), strict=True))
    for colour, key in enumerate(shown):
        rows = [r for r in result["rows"] if (r["coder"], r["index_code"]) == key]
        rate = np.array([r["rd_rate_bits"] for r in rows])
        axes.errorbar(
            rate + offsets[key],
            [r["excess_bits"] for r in rows],
            yerr=[2 * r["excess_standard_error"] for r in rows],
            color=f"C{colour}",
            marker="o",
            markersize=4,
            capsize=2,
            label=f"{key[0]}, {key[1]}",
        )
        reference = [r["reference_excess_bits"] for r in rows]
        axes.plot(rate, reference, "x", color=f"C{colour}")
    floor = [r["simulation_floor_excess_bits"] for r in rows]
    axes.plot(rate, floor, "k--", linewidth=1, label="floor of exact simulation")
    axes.plot([], [], "kx", label="reference values")
    axes.set_xlabel("R(D) at the slope, bits a block")
    axes.set_ylabel("payload bits over R(D) at own D (2 standard errors)")
    axes.set_title(f"Gaussian source, m = 20, exact Q_Y, N = {result['num_candidates']}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--training-seeds", type=int, default=60)
    parser.add_argument("--training-blocks", type=int, default=100, help="blocks a training seed")
    parser.add_argument("--blocks", type=int, default=200, help="blocks a seed")
    parser.add_argument("--candidates", type=int, default=65536)
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=RESULTS / "gaussian_rcc",
        help="path without suffix",
    )
    args = parser.parse_args()
    began = time.perf_counter()
    rows = []
    for beta in args.betas:
        for row in measure(beta, args):
            rows.append(row)
            print(
                f"beta {beta:<5g} R {row['rd_rate_bits']:6.2f}  {row['coder']:>7} {row['index_code']:<12} "
                f"bits {row['payload_bits_per_block']:6.2f}  D {row['distortion']:.4f}  "
                f"excess {row['excess_bits']:.2f} +- {row['excess_standard_error']:.2f}  "
                f"reference {row['reference_excess_bits']}  floor {row['simulation_floor_excess_bits']:.2f}",
                flush=True,
            )
    result = {
        "source": "variances 4 exp(-0.5 k), k = 0..19; exact Q_Y",
        "num_candidates": args.candidates,
        "blocks_per_seed": args.blocks,
        "training_blocks_per_seed": args.training_blocks,
        "seeds": list(range(args.seeds)),
        "training_seeds": [FIRST_TRAINING_SEED + s for s in range(args.training_seeds)],
        **describe_run(began, args.device),
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
