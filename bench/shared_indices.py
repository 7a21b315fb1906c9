"""Blocks that share an index: what joint coding saves, digit by digit, at two sizes of the search.

    python bench/shared_indices.py                  # bench/results/shared_indices.{json,png}

MNIST test digits as one archive, through real files, decoded and compared, with an index each (at the
smaller N) and with as many digits an index as N has room for (`rcccodec.joint`). Fitted codes for all, so
that nothing but the sharing differs. ``excess_bits`` is the Lagrangian R + beta D / ln 2 of the file less
that of the NERD estimate on the same digits with the same codebooks and the smaller N.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from rcc_files import payload_bits
from standard_error import standard_error

from rcccodec import codec
from rcccodec.bundle import Model, load_model
from rcccodec.comparison.rcc_files import blocks_per_index
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source

Row = dict[str, Any]
CODERS = ("pfr", "mincost")
MARKS = {"pfr": "o", "mincost": "D"}


def file_lagrangian(images: list[np.ndarray], model: Model, **options: Any) -> tuple[float, float, int]:
    """Payload bits and squared error an image of one file, decoded and compared; digits an index."""
    encoded = codec.compress(images, model, index_code="fitted", **options)
    decoded = codec.decompress(encoded.data, model)
    if not all(map(np.array_equal, decoded, encoded.images)):
        raise AssertionError("a file does not decode to what its encoder said")
    errors = [np.square((x.astype(float) - y) / 255).sum() for x, y in zip(images, decoded, strict=True)]
    (size,) = blocks_per_index(encoded.data, model)
    return payload_bits(encoded.data) / len(images), float(np.mean(errors)), size


def measure(
    images: list[np.ndarray], model: Model, rung: int, numbers: list[int], seeds: range, device: str
) -> list[Row]:
    """The rows of one rung: every N, with and without sharing, every coder."""
    stage = model.rungs[rung].stages[0]
    x = torch.from_numpy(np.stack(images).reshape(len(images), -1).astype(np.float32) / 255)
    proposal, fewest = stage.proposal(device), min(numbers)
    estimate: dict[str, Any] = {"beta": stage.beta, "num_candidates": fewest, "device": device}
    points = [estimate_nerd(x, proposal, seeds=(seed,), **estimate) for seed in seeds]
    rows = []
    for n in numbers:
        for joint in (False, True) if n == fewest else (True,):
            for coder in CODERS:
                options: dict[str, Any] = {
                    "rung": rung, "coder": coder, "joint": joint, "num_candidates": n, "device": device
                }  # fmt: skip
                made = [file_lagrangian(images, model, seed=seed, **options) for seed in seeds]
                if joint and made[0][2] == 1:
                    continue  # N has no room for two: the row without sharing is this one
                bits, errors, sizes = zip(*made, strict=True)
                spent = [b + stage.beta * d / math.log(2) for b, d, _ in made]
                excess = [s - p.lagrangian_bits for s, p in zip(spent, points, strict=True)]
                rows.append(
                    {
                        "beta": stage.beta,
                        "rd_rate_bits": float(np.mean([p.rate_bits for p in points])),
                        "rd_distortion": float(np.mean([p.distortion for p in points])),
                        "coder": coder,
                        "index_code": "fitted",
                        "num_candidates": n,
                        "images_per_index": sizes[0],
                        "payload_bits_per_image": float(np.mean(bits)),
                        "distortion": float(np.mean(errors)),
                        "excess_bits": float(np.mean(excess)),
                        "excess_se_codebooks_bits": standard_error(excess),
                        "seeds": len(seeds),
                    }
                )
                row = rows[-1]
                print(
                    f"beta {stage.beta:<5g} R {row['rd_rate_bits']:6.2f}  N 2^{math.log2(n):<5.4g} {coder:<8}"
                    f"{sizes[0]:>3} an index  {row['payload_bits_per_image']:7.3f} bits  "
                    f"D {row['distortion']:6.2f}  excess {row['excess_bits']:.3f}",
                    flush=True,
                )
    return rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Excess of a digit against R, a panel for each coder: alone, and shared at each N."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(CODERS), figsize=(10, 4.6), sharey=True, constrained_layout=True)
    numbers = sorted({row["num_candidates"] for row in result["rows"]})
    for axes, coder in zip(panels, CODERS, strict=True):
        rows = [row for row in result["rows"] if row["coder"] == coder]
        lines = [("an index each", "0.45", [r for r in rows if r["images_per_index"] == 1])]
        for i, n in enumerate(numbers):
            shared = [r for r in rows if r["images_per_index"] > 1 and r["num_candidates"] == n]
            lines.append((f"shared, N = 2^{math.log2(n):.3g}", f"C{i}", shared))
        for label, colour, kept in lines:
            axes.errorbar(
                [r["rd_rate_bits"] for r in kept], [r["excess_bits"] for r in kept],
                yerr=[2 * (r["excess_se_codebooks_bits"] or 0) for r in kept],
                color=colour, marker=MARKS[coder], markersize=5, capsize=2, label=label,
            )  # fmt: skip
            for row in kept:
                if row["images_per_index"] > 1:
                    axes.annotate(
                        str(row["images_per_index"]), (row["rd_rate_bits"], row["excess_bits"]),
                        textcoords="offset points", xytext=(0, -13), ha="center", fontsize=8, color=colour,
                    )  # fmt: skip
        axes.set(xlabel="R of a digit, bits", title=coder, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("excess of the Lagrangian, bits a digit")
    figure.suptitle(f"{result['images']}; numbers: digits an index", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder")
    parser.add_argument("--source", default="mnist", help="of images as large as the model's block")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1 << 15, 1 << 16])
    parser.add_argument("--rungs", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, default=2, help="codebooks: seeds 1, 2, ...")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "shared_indices", help="path without suffix"
    )
    args = parser.parse_args()

    began = time.perf_counter()
    model = load_model(args.model)
    images = load_source(args.source, "test", limit=args.images).images()
    numbers, seeds = sorted(args.candidates), range(1, args.seeds + 1)
    rows: list[Row] = []
    for rung in args.rungs:
        rows += measure(images, model, rung, numbers, seeds, args.device)
    result = {
        "what": "bits a digit of real payloads with an index each and with shared ones, decoded and compared",
        "images": f"first {len(images)} of the test split of {args.source}, in index order",
        "model": model.name,
        "model_sha256": model.sha256,
        "codebook_seeds": list(seeds),
        **describe_run(began, args.device),
        "rows": rows,
    }
    write_result(args.output.with_suffix(".json"), result)
    plot(result, args.output.with_suffix(".png"))
    print(f"written: {args.output}.json, {args.output}.png")


if __name__ == "__main__":
    main()
