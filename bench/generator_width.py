"""The width of the paper's generator (nerd-rcc fig. 20): DCGANs of c_d = 4, 8, 16, 32 at equal steps.

    python bench/generator_width.py                    # bench/results/generator_width.{json,png}

Each is trained on MNIST at one slope by the project's trainer, a beta-VAE warm start and NERD, for the same
number of steps and with the same seed, and estimated on test images and fresh candidates. The paper trains
for far longer; a few minutes a network say what a width is worth at equal steps, not where each would end.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from tqdm import tqdm

from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source
from rcccodec.training.plan import generator_spec
from rcccodec.training.trainer import TrainingPlan, train

WIDTHS = (4, 8, 16, 32)
ESTIMATE_SEEDS = ((1 << 32) + 11, (1 << 32) + 12)
Row = dict[str, Any]


def measure(width: int, beta: float, x: torch.Tensor, test: torch.Tensor, args: argparse.Namespace) -> Row:
    """Train c_d = ``width`` at slope beta on uint8 x (n, 1024); estimate on float32 ``test``."""
    spec = generator_spec(
        "dcgan", (32, 32, 1), (beta, beta), latent_dim=None, width=width, output="sigmoid", coordinates=None
    )
    plan = TrainingPlan(
        spec, (beta, beta), vae_steps=args.vae_steps, nerd_steps=args.nerd_steps, batch_size=args.batch_size,
        nerd_batch_size=args.batch_size, pool_draws=2, pool_prior_draws=args.batch_size,
    )  # fmt: skip
    began = time.process_time()
    with tqdm(total=plan.steps, desc=f"c_d {width}, beta {beta:g}", unit="step") as bar:
        trained = train(x, plan, report=lambda _: bar.update())
    seconds = time.process_time() - began
    point = estimate_nerd(
        test, GeneratorProposal(trained.generator.at_slope(beta)), beta=beta, num_candidates=args.candidates,
        seeds=ESTIMATE_SEEDS,
    )  # fmt: skip
    return {
        "width": width,
        "beta": beta,
        "parameters": sum(p.numel() for p in trained.generator.parameters()),
        "rate_bits": point.rate_bits,
        "rate_se_bits": point.rate_se_bits,
        "distortion": point.distortion,
        "distortion_se": point.distortion_se,
        "lagrangian_bits": point.lagrangian_bits,
        "lagrangian_se_bits": point.lagrangian_se_bits,
        "saturated": point.saturated,
        "training_cpu_s": round(seconds, 1),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Left: R and D of every width. Right: the Lagrangian against the width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    rows = result["rows"]
    for colour, width in enumerate(dict.fromkeys(r["width"] for r in rows)):
        some = [r for r in rows if r["width"] == width]
        left.errorbar(
            [r["rate_bits"] for r in some], [r["distortion"] for r in some],
            xerr=[2 * r["rate_se_bits"] for r in some], yerr=[2 * r["distortion_se"] for r in some],
            color=f"C{colour}", marker="o", markersize=4, capsize=2, label=f"c_d = {width}",
        )  # fmt: skip
    for mark, beta in zip("osD^vP", dict.fromkeys(r["beta"] for r in rows), strict=False):
        some = [r for r in rows if r["beta"] == beta]
        right.errorbar(
            [r["width"] for r in some], [r["lagrangian_bits"] for r in some],
            yerr=[2 * r["lagrangian_se_bits"] for r in some], color="k", marker=mark, capsize=2,
            label=f"beta {beta:g}",
        )  # fmt: skip
    left.set(
        xlabel="R, bits an image", ylabel="summed squared error", title="NERD estimates (2 standard errors)"
    )
    right.set(
        xlabel="c_d", ylabel="R + beta D / ln 2, bits", xscale="log", title=f"{result['steps']} steps each"
    )
    right.minorticks_off()
    right.set_xticks(sorted({r["width"] for r in rows}), [str(w) for w in sorted({r["width"] for r in rows})])
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="mnist", help="of 32x32 grey images")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--betas", type=float, nargs="+", default=[0.4])
    parser.add_argument("--vae-steps", type=int, default=1200)
    parser.add_argument("--nerd-steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=8192)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "generator_width", help="without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    x = torch.from_numpy(np.stack(load_source(args.source, "train").images())).flatten(1)
    images = np.stack(load_source(args.source, "test", limit=args.test_images).images())
    test = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
    rows = []
    for width in args.widths:
        for beta in args.betas:
            rows.append(row := measure(width, beta, x, test, args))
            print(
                f"c_d {width} beta {beta:g}: R {row['rate_bits']:.2f}, D {row['distortion']:.2f}, Lagrangian "
                f"{row['lagrangian_bits']:.3f} +- {row['lagrangian_se_bits']:.3f} bits",
                flush=True,
            )
    result = {
        "what": "NERD estimates of DCGAN generators of several widths after equal steps",
        "source": args.source,
        "steps": args.vae_steps + args.nerd_steps,
        "training": {
            "vae_steps": args.vae_steps,
            "nerd_steps": args.nerd_steps,
            "batch": args.batch_size,
            "seed": 0,
        },
        "num_candidates": args.candidates,
        "test_images": len(images),
        **describe_run(began),
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
