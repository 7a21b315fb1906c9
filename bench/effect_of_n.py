"""Effect of N (nerd-rcc fig. 14): what files cost and keep as the search sees more candidates.

    python bench/effect_of_n.py                     # bench/results/effect_of_n.{json,png}

MNIST test digits through real files, decoded and compared, at N from 2^8 to 2^16. Candidate i does not
depend on N, so a larger N only adds to the codebook. The index codes are fitted again for every N and slope,
on training digits and other codebooks. ``excess_bits`` is that of mnist_rcc.py over one estimate for all N,
the one of the largest: it shows what is lost by searching less. ``estimates`` has the NERD estimate at every
N, which can not exceed log2 N.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from mnist_rcc import code_images, flat_pixels
from mnist_rows import HEADER, Estimate, Row, Trial, estimate_record, line, make_row

from rcccodec.bundle import Model, Stage, load_model
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.report import SATURATION_BITS
from rcccodec.sources import load_source
from rcccodec.training.index_codes import fit_histograms
from rcccodec.training.rungs import HISTOGRAM_SEEDS

CODERS = ("pfr", "orc", "mincost")
PARTS = 20  # of the images, for standard errors over images
FITTING_SEEDS = HISTOGRAM_SEEDS[:2]


class Codebook(GeneratorProposal):
    """A proposal that makes each chunk of candidates once, for all N, coders and parts of the images."""

    def __init__(self, stage: Stage, device: str) -> None:
        super().__init__(stage.generator.at_slope(stage.beta), device)
        self._made: dict[tuple[torch.dtype, int, bytes], torch.Tensor] = {}

    def candidates(self, z: torch.Tensor) -> torch.Tensor:
        if z.dtype == torch.float64:  # a decoder's: any indices in any order
            return super().candidates(z)
        key = z.dtype, len(z), z[0].cpu().float().numpy().tobytes()
        if key not in self._made:
            self._made[key] = super().candidates(z)
        return self._made[key]


@dataclass(frozen=True)
class SharedStage(Stage):
    """A stage whose proposal is a codebook already made."""

    codebook: Codebook

    def proposal(self, device: str = "cpu") -> GeneratorProposal:
        return self.codebook


def fitted_codes(
    stage: Stage, training: torch.Tensor, numbers: list[int], device: str
) -> dict[int, dict[str, list[int]]]:
    """Class frequencies of every coder for every N, from training digits float32 (n, 1024)."""
    codebook = Codebook(stage, device)
    return {
        n: fit_histograms(
            training, codebook, beta=stage.beta, num_candidates=n, stage=0, seeds=FITTING_SEEDS, device=device
        )
        for n in numbers
    }


def measure(
    images: np.ndarray,
    training: np.ndarray,
    model: Model,
    rung: int,
    numbers: list[int],
    seeds: range,
    device: str,
) -> tuple[list[Row], list[Row]]:
    """Estimates and rows of one rung, of every N (rising).

    Raises:
        ValueError: the model is not one of a single stage whose block is the image.
    """
    stage = model.rungs[rung].stages[0]
    if len(model.rungs[rung].stages) != 1 or stage.block != images.shape[1:]:
        raise ValueError("this bench takes models of one stage whose block is the image")
    parts = min(PARTS, len(images))
    codes = fitted_codes(stage, flat_pixels(training), numbers, device)
    trials: dict[tuple[int, str], list[Trial]] = {(n, coder): [] for n in numbers for coder in CODERS}
    points: dict[int, list[tuple[list[float], list[float]]]] = {n: [] for n in numbers}
    for seed in seeds:
        codebook = Codebook(stage, device)
        for n in numbers:
            each = [
                estimate_nerd(x, codebook, beta=stage.beta, num_candidates=n, seeds=(seed,), device=device)
                for x in torch.tensor_split(flat_pixels(images), parts)
            ]
            points[n].append(([p.rate_bits for p in each], [p.distortion for p in each]))
            shared = SharedStage(**vars(replace(stage, fitted=codes[n], priors={})), codebook=codebook)
            rungs = list(model.rungs)
            rungs[rung] = replace(rungs[rung], stages=(shared,))
            options: dict[str, Any] = {"rung": rung, "seed": seed, "num_candidates": n, "device": device}
            for coder in CODERS:
                refitted = replace(model, rungs=tuple(rungs))
                trials[n, coder] += code_images(images, refitted, parts, ("fitted",), coder=coder, **options)
    shares = np.array([len(part) for part in np.array_split(images, parts)]) / len(images)
    found = {
        n: Estimate(np.array([r for r, _ in p]), np.array([d for _, d in p]), shares)
        for n, p in points.items()
    }
    best = found[numbers[-1]]
    rows = [
        make_row(
            stage.beta, best, made, coder=coder, index_code="fitted", seeds=list(seeds), num_candidates=n
        )
        for (n, coder), made in trials.items()
    ]
    return [estimate_record(stage.beta, one, n, []) for n, one in found.items()], rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Left: D against payload of PFR, a line for each N. Right: excess against log2 N - R of every coder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), constrained_layout=True)
    numbers = sorted({r["num_candidates"] for r in result["rows"]})
    shades = plt.cm.viridis(np.linspace(0.9, 0.1, len(numbers)))
    for n, shade in zip(numbers, shades, strict=True):
        rows = [r for r in result["rows"] if r["coder"] == "pfr" and r["num_candidates"] == n]
        left.plot(
            [r["payload_bits_per_image"] for r in rows], [r["distortion"] for r in rows],
            color=shade, marker="o", markersize=4, label=f"PFR, N = 2^{math.log2(n):g}",
        )  # fmt: skip
    best = [e for e in result["estimates"] if e["num_candidates"] == numbers[-1]]
    left.plot(
        [e["rate_bits"] for e in best], [e["distortion"] for e in best], "k--", label="R(D), NERD, largest N"
    )
    left.set(xlabel="payload, bits an image", ylabel="summed squared error")
    betas = sorted({r["beta"] for r in result["rows"]})
    for colour, coder in zip(("C0", "C2", "C3"), CODERS, strict=True):
        for mark, beta in zip("osD^vP*X", betas, strict=False):
            rows = [r for r in result["rows"] if (r["coder"], r["beta"]) == (coder, beta)]
            errors = [r["excess_se_codebooks_bits"] or 0 for r in rows]
            unsure = math.log2(numbers[-1]) - rows[0]["rd_rate_bits"] < SATURATION_BITS
            right.errorbar(
                [r["log2_candidates_less_rate"] for r in rows], [r["excess_bits"] for r in rows],
                yerr=[2 * e for e in errors], color=colour, marker=mark, markersize=4, linewidth=0.8,
                markerfacecolor="white" if unsure else None,
                capsize=2, label=f"{coder}, beta {beta:g}",
            )  # fmt: skip
    right.set(xlabel="log2 N - R, bits", ylabel="excess of the Lagrangian over the largest N's R(D), bits")
    right.axvline(SATURATION_BITS, color="0.6", linestyle=":", linewidth=1)
    right.set(yscale="log", ylim=(1, None), yticks=[1, 2, 3, 5, 10, 20], yticklabels=[1, 2, 3, 5, 10, 20])
    right.set_title(
        f"{result['images']}, {len(result['codebook_seeds'])} codebooks (2 s.e.); "
        "hollow: the largest N is itself too small",
        fontsize=9,
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=1 if axes is left else 3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder")
    parser.add_argument("--source", default="mnist", help="of images as large as the model's block")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--training-images", type=int, default=2000, help="that index codes are fitted to")
    parser.add_argument("--log2-candidates", type=int, nargs="+", default=[8, 10, 12, 14, 16])
    parser.add_argument("--rungs", type=int, nargs="+", default=[1, 3, 5, 7])
    parser.add_argument("--seeds", type=int, default=3, help="codebooks: seeds 0, 1, ...")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "effect_of_n", help="path without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    model = load_model(args.model)
    images = np.stack(load_source(args.source, "test", limit=args.images).images())
    training = np.stack(load_source(args.source, "train", limit=args.training_images).images())
    numbers = [1 << n for n in sorted(args.log2_candidates)]
    print(HEADER, flush=True)
    estimates: list[Row] = []
    rows: list[Row] = []
    for rung in args.rungs:
        found, made = measure(images, training, model, rung, numbers, range(args.seeds), args.device)
        for n in numbers:
            print(f"N = {n}")
            print("\n".join(line(row) for row in made if row["num_candidates"] == n), flush=True)
        estimates, rows = estimates + found, rows + made
    result = {
        "what": "bits an image of real payloads, decoded and compared, against N; excess over the estimate "
        "of the largest N",
        "images": f"first {len(images)} of the test split of {args.source}",
        "index_codes": f"fitted for each N and slope on {len(training)} training images, "
        f"{len(FITTING_SEEDS)} other codebooks",
        "model": model.name,
        "model_sha256": model.sha256,
        "codebook_seeds": list(range(args.seeds)),
        **describe_run(began, args.device),
        "estimates": estimates,
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
