"""Recipes of the learned baseline compared without the test split: the last 5000 training digits held out.

    python bench/ntc_recipes.py --minutes 3 --maps 16
    python bench/ntc_recipes.py --minutes 3 --maps 0

Each run prints R + beta D (bits, plain encoder, really coded) of the digits held out at every slope, and D
less the D of the published points where R is theirs, by interpolation. It
chooses recipes; results are not made here.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rcccodec.baselines.run import load_items, make_run, measure
from rcccodec.baselines.training import NtcPlan, train

HELD_OUT = 5000
PUBLISHED = Path(__file__).resolve().parent / "published" / "mnist_published.json"


def main() -> None:
    """Parse, train one recipe, print its line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.5)
    parser.add_argument("--data-root", type=Path, help="Default: $RCC_DATA.")
    parser.add_argument("--jitter", type=float, default=0.5)
    parser.add_argument("--maps", type=int, default=16)
    for name in ("learning_rate", "hard_from", "sharpest"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(NtcPlan, name))
    parser.add_argument("--batch-size", type=int, default=24, help="Codes of each slope in a step.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = make_run("mnist", "recipe", data_root=arguments.data_root, jitter=arguments.jitter)
    spec = replace(run.plan.spec, maps=arguments.maps)
    changed = {
        name: getattr(arguments, name) for name in ("learning_rate", "hard_from", "sharpest", "batch_size")
    }
    plan = replace(run.plan, spec=spec, **changed)
    x = load_items(run, "train", arguments.data_root)
    training, held_out = x[:-HELD_OUT], x[-HELD_OUT:]
    marks: list[float] = []
    train(training, replace(plan, steps=30), report=lambda _: marks.append(time.monotonic()))
    plan = replace(plan, steps=round(60 * arguments.minutes * 20 / (marks[-1] - marks[-21])))
    trained = train(training, plan)
    network = trained.network.eval().requires_grad_(False)
    tables = network.tables()
    rows = [measure(network, tables, held_out, k) for k in range(len(spec.betas))]
    points = json.loads(PUBLISHED.read_text())["one_shot_dnn_compressor"]
    distortions = np.interp(points["R"], [r["rate_bits"] for r in rows], [r["distortion"] for r in rows])
    print(vars(arguments), f"{trained.step} steps, {trained.seconds:.0f} s")
    print("  R+bD", " ".join(f"{r['beta']:g}:{r['lagrangian_bits']:.2f}" for r in rows))
    print(
        "  D-D_published",
        " ".join(f"{r}:{d:+.2f}" for r, d in zip(points["R"], distortions - points["D"], strict=True)),
    )


if __name__ == "__main__":
    main()
