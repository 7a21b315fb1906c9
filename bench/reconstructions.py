"""Originals and what files decode to (nerd-rcc fig. 12): this codec beside learned transform coding.

    python bench/reconstructions.py                    # bench/results/reconstructions.{json,png}

The test images are one file for each codec and slope. Learned transform coding is shown at the slope of its
ladder whose payload is nearest to that of ``pfr``; both payloads are in the caption.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from metadata import RESULTS, describe_run, write_result
from pictures import picture_rows
from rcc_files import image_bits, payload_bits
from standard_error import standard_error

from rcccodec import codec
from rcccodec.baselines import load_baseline
from rcccodec.bundle import load_model
from rcccodec.comparison.measured import squared_errors
from rcccodec.sources import load_source

CODERS = ("pfr", "mincost")
Row = dict[str, Any]


def entry(
    name: str,
    beta: float,
    images: list[np.ndarray],
    decoded: list[np.ndarray],
    payload: int,
    lengths: np.ndarray | None,
) -> Row:
    """One row: payload bits an image, D, standard errors over images; ``lengths`` (n,) are ideal ones."""
    errors = squared_errors(images, decoded)
    return {
        "codec": name,
        "beta": beta,
        "payload_bits_per_image": payload / len(images),
        "payload_se_bits": None if lengths is None else standard_error(lengths),
        "distortion": float(errors.mean()),
        "distortion_se": standard_error(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder")
    parser.add_argument("--baseline", default="mnist-ntc", help="name or folder; empty for none")
    parser.add_argument("--source", default="mnist", help="its test split is taken")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rungs", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--columns", type=int, default=16, help="images shown")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "reconstructions", help="without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    model = load_model(args.model)
    images = load_source(args.source, "test", limit=args.images).images()
    rows: list[Row] = []
    shown = [("originals", images[: args.columns])]

    def note(row: Row, decoded: list[np.ndarray]) -> None:
        rows.append(row)
        caption = f"{row['codec']}, beta {row['beta']:g}: {row['payload_bits_per_image']:.2f} bits an image, "
        caption += f"squared error {row['distortion']:.2f}"
        print(caption, flush=True)
        shown.append((caption, decoded[: args.columns]))

    transform = []  # every slope of the baseline
    baseline = load_baseline(args.baseline) if args.baseline else None
    for beta in baseline.betas if baseline else ():
        data = baseline.compress(images, beta)
        decoded = baseline.decompress(data)
        transform.append(
            (entry(baseline.name, beta, images, decoded, baseline.payload_bits(data), None), decoded)
        )
    for rung in args.rungs:
        for coder in CODERS:
            encoded = codec.compress(images, model, rung=rung, coder=coder)
            decoded = codec.decompress(encoded.data, model)
            row = entry(
                f"{model.name} {coder}", model.rungs[rung].beta, images, decoded, payload_bits(encoded.data),
                image_bits(encoded.data, model),
            )  # fmt: skip
            note(row, decoded)
        wanted = rows[-len(CODERS)]["payload_bits_per_image"]
        if transform:
            note(*min(transform, key=lambda made: abs(made[0]["payload_bits_per_image"] - wanted)))
    result = {
        "what": "payload bits of one file of all images, and what it decodes to",
        "images": f"first {len(images)} of the test split of {args.source}",
        "model": model.name,
        "model_sha256": model.sha256,
        "baseline": None if baseline is None else {"name": baseline.name, "sha256": baseline.sha256},
        "codebook_seed": model.default_seed,
        **describe_run(began),
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    picture_rows(shown, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
