"""Block codes (nerd-rcc fig. 13): transform coding of four images at once beside one image at a time.

    python bench/block_codes.py                        # bench/results/block_codes.{json,png}

Both baselines code the same MNIST test images into one file, decoded back; rate and distortion are an
image's. This codec's curves, with images that share an index where N has room for it (`rcccodec.joint`), and
R(D) are those of ``results/mnist_comparison*.json``. ``saving_bits`` is what the transform coder's block code
saves at the one-shot code's own distortions, on straight lines between its points.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from metadata import RESULTS, describe_run, write_result
from mnist_figure import measured_lines

from rcccodec.comparison.image_set import load_image_set
from rcccodec.comparison.learned import learned_curve, load_learned
from rcccodec.comparison.measured import Curve, Point
from rcccodec.errors import RccError

Line = dict[str, Any]


def line_of(curve: Curve) -> Line:
    """A baseline's points, cheapest first, with standard errors of the means over images."""
    points = sorted(curve.points, key=lambda point: float(point.payload_bits.mean()))
    root = len(points[0].squared_error) ** 0.5
    return {
        "name": curve.name,
        "sha256": curve.sha256,
        "beta": [p.beta for p in points],
        "bits": [float(p.payload_bits.mean()) for p in points],
        "bits_se": [float(p.payload_bits.std() / root) for p in points],
        "distortion": [float(p.squared_error.mean()) for p in points],
        "distortion_se": [float(p.squared_error.std() / root) for p in points],
    }


def savings(one_shot: Line, block: Line) -> list[Line]:
    """Bits an image that the block code saves at each distortion of the one-shot code that both reach."""
    errors, bits = np.array(sorted(zip(block["distortion"], block["bits"], strict=True))).T
    return [
        {"distortion": d, "one_shot_bits": r, "saving_bits": r - float(np.interp(d, errors, bits))}
        for d, r in zip(one_shot["distortion"], one_shot["bits"], strict=True)
        if errors[0] <= d <= errors[-1]
    ]


def plot(result: dict[str, Any], path: Path) -> None:
    """Squared error against bits an image: block, one-shot, this codec, R(D)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 5.6), constrained_layout=True)
    axes.plot(result["rd"]["bits"], result["rd"]["distortion"], "k.-", label=result["rd"]["name"])
    for number, line in enumerate(line for line in result["codecs"] if line["kind"] == "rcc"):
        axes.plot(line["bits"], line["distortion"], f"C{number}o-", markersize=4, label=line["name"])
    for line, style in zip((result["one_shot"], result["block"]), ("C4s--", "C5D-"), strict=True):
        axes.errorbar(
            line["bits"], line["distortion"], xerr=2 * np.array(line["bits_se"]),
            yerr=2 * np.array(line["distortion_se"]), fmt=style, markersize=4, capsize=2, label=line["name"],
        )  # fmt: skip
    axes.set(xlabel="bits an image", ylabel="summed squared error (2 s.e.)", xlim=(0, 22), ylim=(0, 62))
    axes.set_title(result["images"], fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one-shot", default="mnist-ntc", help="baseline: name or folder")
    parser.add_argument("--block", default="mnist-ntc-block", help="baseline: name or folder")
    parser.add_argument("--comparison", type=Path, default=RESULTS / "mnist_comparison.json")
    parser.add_argument("--source", default="mnist", help="its test split is taken")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "block_codes", help="path without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    images = load_image_set(args.source, args.images)

    def say(curve: Curve, point: Point) -> None:
        bits, error = point.payload_bits.mean(), point.squared_error.mean()
        print(
            f"{curve.name} {point.setting}: {bits:.2f} bits an image, squared error {error:.2f}", flush=True
        )

    try:
        learned = load_learned((args.one_shot, args.block), images)
        one_shot, block = (line_of(learned_curve(images, each, say)) for each in learned)
    except RccError as error:
        raise SystemExit(f"block_codes.py: {error}") from None
    codecs, rd = measured_lines(args.comparison)
    result = {
        "what": "payload bits of one file of all images, an image, decoded and compared",
        "images": images.described,
        "comparison": args.comparison.name,
        **describe_run(began),
        "one_shot": one_shot,
        "block": block,
        "savings": savings(one_shot, block),
        "rd": rd,
        "codecs": codecs,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
