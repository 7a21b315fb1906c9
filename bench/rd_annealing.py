"""Rate-distortion curves of generative models of MNIST by annealed importance sampling (lossy-rates).

    python bench/rd_annealing.py                       # bench/results/rd_annealing.{json,png}
    python bench/rd_annealing.py --width 1024 --chains 40 --images 50 --distributions 60000 --leapfrog 20

``linear`` (fig. 7): a linear decoder of ten latents (probabilistic PCA) beside its closed form, on five
times as many distributions since they cost little; every point's error and the largest. ``curves`` (figs.
3, 4): VAE, GAN with gradient penalty and adversarial autoencoder; 2, 10 and 100 latents; one hidden layer
and three. ``damage`` (fig. 5): the deep VAE of ten latents with a prior of which alpha is garbage, and with
blurred images, beside the same undamaged. ``features`` (fig. 6): the deep models of ten latents under
squared error of features.

Lagrangians are upper bounds in expectation. ``bdmc_gap_nats`` bounds how far they are off on data that each
model made itself, not on MNIST. Results are written after every curve (``complete`` tells whether it was the
last); stopped and started again, the bench goes on from the checkpoints in runs/.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from metadata import RESULTS, describe_run, write_result
from torch import nn

from rcccodec.rd.ais import trace_decoder
from rcccodec.rd.damage import BlurredDecoder, MixturePrior
from rcccodec.rd.deep_features import train_features
from rcccodec.rd.generative import GaussianPrior, train_decoder
from rcccodec.rd.linear_vae import fit_linear_decoder, linear_curve
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import AnnealingSettings

BETAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
MODELS, LATENTS, DEPTHS = ("vae", "gan", "aae"), (2, 10, 100), (3, 1)
ALPHAS, BLURS = (0.5, 0.99), (0.7, 1.5)
BAR_NATS = 0.5  # of the linear check
RUNS = Path("runs/rd_annealing")
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all curves share; ``x`` (images, 784): test images on ``device``; ``folder``: for checkpoints."""

    settings: AnnealingSettings
    problem: Problem
    x: torch.Tensor
    seed: int
    device: str
    folder: Path

    def run(self, name: str = "") -> Run:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return Run(self.seed, self.device, folder)

    def decoder(self, settings: AnnealingSettings) -> tuple[nn.Module, float]:
        return train_decoder(self.problem, settings, self.run())

    def trace(
        self,
        name: str,
        prior: Any,
        decoder: nn.Module,
        seconds: float,
        settings: AnnealingSettings,
        x: torch.Tensor | None = None,
    ) -> Row:
        began, x = time.perf_counter(), self.x if x is None else x
        method, run = f"ais-{settings.model}", self.run(name)
        points = list(trace_decoder(method, prior, decoder, x, "mse", BETAS, settings, run, seconds))
        last = points[-1]
        gap = last.details["bdmc_gap_nats"]
        print(
            f"{name}: {points[0].rate_bits:.2f} bits at D {points[0].distortion:.1f}, {last.rate_bits:.1f} at"
            f" {last.distortion:.2f}; gap {gap:.2f} nats; {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        return {
            "name": name,
            "model": settings.model,
            "latents": settings.latents,
            "depth": settings.depth,
            "training_seconds": seconds,
            "points": [p.as_json() for p in points],
        }


def linear(bench: Bench) -> Row:
    """Annealing beside the closed form of the same decoder on the same images."""
    decoder = fit_linear_decoder(bench.problem.train, 10).to(bench.device)
    settings = replace(
        bench.settings, model="linear", latents=10, depth=0, distributions=5 * bench.settings.distributions
    )
    row = bench.trace("linear", GaussianPrior(10), decoder, 0.0, settings)
    for point in row["points"]:
        curve = linear_curve(decoder, bench.x, point["beta"])
        exact = float(curve.lagrangian_nats.mean())
        point |= {
            "exact_lagrangian_bits": exact / math.log(2),
            "exact_rate_bits": float(curve.rate_nats.mean()) / math.log(2),
            "exact_distortion": float(curve.distortion.mean()),
            "error_nats": point["lagrangian_bits"] * math.log(2) - exact,
        }
    worst = max(abs(p["error_nats"]) for p in row["points"])
    print(f"linear: at most {worst:.3f} nats from the closed form; bar {BAR_NATS}", flush=True)
    return row | {"largest_error_nats": worst, "bar_nats": BAR_NATS, "within_bar": worst <= BAR_NATS}


def curve(bench: Bench, model: str, latents: int, depth: int) -> Row:
    """One model as it was trained."""
    settings = replace(bench.settings, model=model, latents=latents, depth=depth)
    decoder, seconds = bench.decoder(settings)
    name = f"{model}{latents}-{'deep' if depth > 1 else 'shallow'}"
    return bench.trace(name, GaussianPrior(latents), decoder, seconds, settings)


def damage(bench: Bench, whole: Row) -> Iterator[Row]:
    """Damaged models, each with its difference from ``whole``, the undamaged one."""
    settings = replace(bench.settings, model="vae", latents=10, depth=3, gaps=1)
    decoder, seconds = bench.decoder(settings)
    shape = bench.problem.shape
    assert shape is not None
    kinds = [(f"prior-{a:g}", {"alpha": a}, MixturePrior(10, a), decoder) for a in ALPHAS]
    kinds += [
        (f"blur-{s:g}", {"sigma": s}, GaussianPrior(10), BlurredDecoder(decoder, shape, s)) for s in BLURS
    ]
    for name, how, prior, damaged in kinds:
        row = bench.trace(f"vae10-{name}", prior, damaged.to(bench.device), seconds, settings) | how
        more = [
            (a["lagrangian_bits"] - b["lagrangian_bits"]) * math.log(2)
            for a, b in zip(row["points"], whole["points"], strict=True)
        ]
        ends = [row["points"][i]["distortion"] - whole["points"][i]["distortion"] for i in (0, -1)]
        row |= {
            "excess_nats": more,
            "low_rate_excess_distortion": ends[0],
            "high_rate_excess_distortion": ends[1],
        }
        if "alpha" in how:
            row["most_excess_allowed_nats"] = -math.log(1 - how["alpha"])
        yield row


def features(bench: Bench) -> Iterator[Row]:
    """Squared error between features, for the deep models of ten latents."""
    extract, more = train_features(bench.problem, bench.run())
    for model in MODELS:
        settings = replace(bench.settings, model=model, latents=10, depth=3, gaps=1)
        decoder, seconds = bench.decoder(settings)
        both = nn.Sequential(decoder, extract)
        x = extract(bench.x)
        yield bench.trace(f"{model}10-features", GaussianPrior(10), both, seconds + more, settings, x)


def draw(axes: Any, row: Row, style: str, label: str) -> None:
    points = [RatePoint.from_json({k: p[k] for k in RatePoint.__annotations__}) for p in row["points"]]
    axes.plot(
        [p.distortion for p in points],
        [p.rate_bits for p in points],
        style,
        markersize=3,
        lw=1.2,
        label=label,
    )


def plot(result: Row, path: Path) -> None:
    """Curves by family, size of code and depth; the linear check; damage; features."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(16, 9), constrained_layout=True)
    colours, lines = {"vae": "C0", "gan": "C3", "aae": "C2"}, {2: ":", 10: "-", 100: "--"}
    check, rows = result["linear"], result["curves"]
    grid[0, 0].axhline(0, color="k", lw=0.8)
    grid[0, 0].errorbar(
        [p["beta"] for p in check["points"]],
        [p["error_nats"] for p in check["points"]],
        fmt="o-",
        label="AIS",
    )
    for sign in (1, -1):
        grid[0, 0].axhline(sign * check["bar_nats"], color="k", ls=":")
    grid[0, 0].set(
        xscale="log", xlabel="beta", ylabel="nats above the closed form", title="linear decoder, 10 latents"
    )
    for row in rows:
        colour, line, size = colours[row["model"]], lines[row["latents"]], row["latents"]
        if row["depth"] > 1:
            draw(grid[0, 1], row, f"{colour}{line}", f"{row['model'].upper()} {size}")
        if row["model"] == "gan":
            deep = row["depth"] > 1
            kind = "deep" if deep else "shallow"
            draw(grid[0, 2], row, f"{'C3' if deep else 'C1'}{line}", f"{kind} GAN {size}")
    grid[0, 1].set_title("three hidden layers")
    grid[0, 2].set_title("GAN: depth and size of the code")
    whole = [r for r in rows if r["name"] == "vae10-deep"]
    for axes, key, title in (
        (grid[1, 0], "alpha", "prior with garbage"),
        (grid[1, 1], "sigma", "blurred decoder"),
    ):
        for row in whole:
            draw(axes, row, "C0o-", "VAE 10")
        for i, row in enumerate(r for r in result["damage"] if key in r):
            draw(axes, row, f"C{i + 4}o-", f"{key} {row[key]:g}")
        axes.set_title(title)
    for row in result["features"]:
        draw(grid[1, 2], row, f"{colours[row['model']]}o-", f"{row['model'].upper()} 10")
    grid[1, 2].set_title("squared error of features")
    for axes in grid.flat:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        if axes is not grid[0, 0]:
            axes.set(xlabel="D", ylabel="R, bits an image", ylim=(0, 100))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256, help="hidden units (the paper: 1024)")
    parser.add_argument("--training", type=int, default=1500, help="steps")
    parser.add_argument("--chains", type=int, default=8, help="the paper: 40")
    parser.add_argument("--images", type=int, default=10, help="the paper: 50")
    parser.add_argument("--distributions", type=int, default=600, help="the paper: 60,000 and more")
    parser.add_argument("--leapfrog", type=int, default=5, help="the paper: 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoints", type=Path, default=RUNS)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "rd_annealing", help="path without suffix"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # small matrices
    began, problem = time.perf_counter(), load_problem("mnist", num_test=max(args.images, 100))
    names = ("width", "training", "chains", "images", "distributions", "leapfrog")
    settings = AnnealingSettings(**{n: getattr(args, n) for n in names}, gaps=2)
    x = problem.test[: args.images].to(args.device)
    bench = Bench(settings, problem, x, args.seed, args.device, args.checkpoints)
    result: Row = {
        "what": "rate-distortion curves of generative models by annealed importance sampling",
        "source": "mnist",
        "distortion": "summed squared error of pixels in [0, 1]; features: of scaled hidden units",
        "betas": list(BETAS),
        "settings": asdict(settings),
        "seed": args.seed,
        "note": "Lagrangians are upper bounds in expectation; gaps certify simulated data, not these images",
        "complete": False,
        "linear": linear(bench),
        "curves": [],
        "damage": [],
        "features": [],
    }

    def keep(kind: str, row: Row) -> None:
        result[kind].append(row)
        write_result(Path(f"{args.output}.json"), result | describe_run(began, args.device))
        plot(result, Path(f"{args.output}.png"))

    for model in MODELS:
        keep("curves", curve(bench, model, 10, 3))
    for row in damage(bench, result["curves"][0]):
        keep("damage", row)
    for row in features(bench):
        keep("features", row)
    for depth in DEPTHS:
        for latents in LATENTS:
            for model in MODELS:
                result["complete"] = (depth, latents, model) == (DEPTHS[-1], LATENTS[-1], MODELS[-1])
                if (depth, latents) != (3, 10):
                    keep("curves", curve(bench, model, latents, depth))


if __name__ == "__main__":
    main()
