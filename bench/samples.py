"""Draws from learned Q_Y at several slopes (nerd-rcc figs. 4, 5): as R falls to 0 they become the mean image.

    python bench/samples.py                                            # bench/results/samples.{json,png}
    python bench/samples.py --model runs/cifar10 --low-slopes 0.01 0.02 -o bench/results/samples_colour

Shipped models begin at some bits of rate; the low end comes from a small network that this script trains, a
beta-VAE warm start and NERD, on the same source. ``spread`` is the total variance of the draws, ``from_mean``
the squared distance from their mean to the mean image of the training split. At R = 0 the best law is that
one image, with D_max = E ||x - mean||^2.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from pictures import picture_rows

from rcccodec.bundle import load_model, read_card
from rcccodec.channel import candidates_at
from rcccodec.images import from_float
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source
from rcccodec.training.plan import generator_spec
from rcccodec.training.trainer import TrainingPlan, train

ESTIMATE_SEEDS = ((1 << 32) + 11, (1 << 32) + 12)
WIDTH = 256  # of the low-slope network
Row = dict[str, Any]


def low_end(training: np.ndarray, slopes: tuple[float, float], steps: int) -> dict[float, GeneratorProposal]:
    """Proposals at both slopes of one small network, trained on uint8 images (n, h, w[, c])."""
    shape = (*training.shape[1:3], 1 if training.ndim == 3 else training.shape[3])
    spec = generator_spec(
        None, shape, slopes, latent_dim=None, width=WIDTH, output="sigmoid", coordinates=None
    )
    plan = TrainingPlan(spec, slopes, vae_steps=steps, nerd_steps=max(1, steps // 4), encoder_width=WIDTH)
    trained = train(torch.from_numpy(training.reshape(len(training), -1)), plan).generator
    return {beta: GeneratorProposal(trained.at_slope(beta)) for beta in slopes}


def describe(
    proposal: GeneratorProposal,
    beta: float,
    test: torch.Tensor,
    mean: torch.Tensor,
    candidates: int,
    draws: int,
) -> tuple[Row, torch.Tensor]:
    """What the law's draws look like in numbers, and ``draws`` of them, float64 (draws, dim).

    Args:
        test: float32 (n, dim). mean: float64 (dim,), of the training images.
    """
    point = estimate_nerd(test, proposal, beta=beta, num_candidates=candidates, seeds=ESTIMATE_SEEDS)
    y = proposal.synthesise(candidates_at(proposal, torch.arange(draws), seed=0))
    row = {
        "beta": beta,
        "rate_bits": point.rate_bits,
        "rate_se_bits": point.rate_se_bits,
        "distortion": point.distortion,
        "distortion_se": point.distortion_se,
        "saturated": point.saturated,
        "spread": float(y.var(0).sum()),
        "from_mean": float((y.mean(0) - mean).square().sum()),
    }
    return row, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder, of one stage")
    parser.add_argument("--source", help="default: the model's own")
    parser.add_argument("--low-slopes", type=float, nargs=2, default=[0.1, 0.13], help="of the small network")
    parser.add_argument("--steps", type=int, default=600, help="of its warm start; NERD takes a quarter")
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=16384)
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "samples", help="path without suffix")
    args = parser.parse_args()
    began = time.perf_counter()
    model = load_model(args.model)
    source = args.source or read_card(args.model)["source"]
    training = np.stack(load_source(source, "train").images())
    images = np.stack(load_source(source, "test", limit=args.test_images).images())
    test = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
    mean = torch.from_numpy(training.reshape(len(training), -1).mean(0) / 255)

    laws = [
        ("small network", beta, p)
        for beta, p in low_end(training, tuple(args.low_slopes), args.steps).items()
    ]
    for rung in model.rungs:
        if len(rung.stages) != 1 or rung.stages[0].block != images.shape[1:3]:
            raise SystemExit("samples.py: takes models of one stage whose block is the image")
        laws.append((model.name, rung.beta, rung.stages[0].proposal()))

    def picture(flat: torch.Tensor) -> np.ndarray:
        return from_float(flat.numpy().reshape(*images.shape[1:3], -1), grey=images.ndim == 3)

    rows, shown = [], [("mean of the training images", [picture(mean)])]
    for name, beta, proposal in laws:
        row, y = describe(proposal, beta, test, mean, args.candidates, max(args.draws, args.columns))
        rows.append({"model": name, **row})
        caption = f"{name}, beta {beta:g}: R {row['rate_bits']:.2f} bits, D {row['distortion']:.1f}"
        print(f"{caption}, spread {row['spread']:.2f}, from the mean {row['from_mean']:.3f}", flush=True)
        shown.append((caption, [picture(one) for one in y[: args.columns]]))
    result = {
        "what": "draws from learned Q_Y; R and D are NERD estimates on test images",
        "source": source,
        "model_sha256": model.sha256,
        "small_network": {"slopes": args.low_slopes, "vae_steps": args.steps, "width": WIDTH, "seed": 0},
        "num_candidates": args.candidates,
        "test_images": len(images),
        "draws": args.draws,
        "d_max": float((test.double() - mean).square().sum(1).mean()),
        **describe_run(began),
        "rows": rows,
    }
    print(f"D_max = {result['d_max']:.2f}")
    write_result(Path(f"{args.output}.json"), result)
    picture_rows(shown, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
