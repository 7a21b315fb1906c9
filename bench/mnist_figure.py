"""MNIST as the paper draws it (nerd-rcc figs. 1, 10): R(D), BA on samples, this codec and DNN compressors.

    python bench/mnist_figure.py                       # bench/results/mnist_figure.{json,png}

The codec, its R(D) and the transform coder come from ``results/mnist_comparison*.json`` (real files; see
``rcc bench``), the NERD-RCC authors' points from ``published/``. Only Blahut-Arimoto runs here, with Y = X,
training images: in-sample it ends at log2 n bits without distortion, which is the R(D) of those n images and
not of their law; the same law on test images is an upper bound that stops at the nearest neighbour.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from metadata import RESULTS, describe_run, write_result
from mnist_rows import read_reference

from rcccodec.comparison.ba_curves import ba_curves
from rcccodec.comparison.image_set import load_image_set
from rcccodec.comparison.measured import Curve

PUBLISHED = Path(__file__).resolve().parent / "published"
BETAS = (0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.5)
Line = dict[str, Any]


def line_of(curve: Curve, samples: int) -> Line:
    """A Blahut-Arimoto curve as lists, with the standard errors of its means over images."""
    points = sorted(curve.points, key=lambda point: float(point.payload_bits.mean()))
    root = len(points[0].squared_error) ** 0.5
    return {
        "name": curve.name,
        "samples": samples,
        "beta": [p.beta for p in points],
        "bits": [float(p.payload_bits.mean()) for p in points],
        "bits_se": [float(p.payload_bits.std() / root) for p in points],
        "distortion": [float(p.squared_error.mean()) for p in points],
        "distortion_se": [float(p.squared_error.std() / root) for p in points],
    }


def measured_lines(path: Path) -> tuple[list[Line], Line]:
    """Every codec's line of a result of ``rcc bench``, and R(D) with the guarantee."""
    main = json.loads(path.read_text())
    curves = [main, *(json.loads(path.with_name(name).read_text()) for name in main["files"].values())]
    lines = [
        {
            "name": curve["name"],
            "kind": curve["kind"],
            "bits": curve["results"]["bits_per_image"],
            "distortion": curve["results"]["distortion"],
        }
        for curve in curves
        if curve["kind"] != "bound"
    ]
    (limits,) = list(main["theory"].values())[:1]
    rd = {
        "name": "R(D), NERD, test images",
        "bits": [x["rate_bits"] for x in limits],
        "distortion": [x["distortion"] for x in limits],
        "guarantee_bits": [x["guarantee_bits"] for x in limits],
    }
    return lines, rd


def plot(result: dict[str, Any], path: Path) -> None:
    """Left: limits and compressors (fig. 1). Right: reverse channel coding and its guarantee (fig. 10)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    published = json.loads((PUBLISHED / "mnist_published.json").read_text())
    theirs = read_reference(PUBLISHED / "mnist_reference.json")
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), constrained_layout=True)
    rd, codecs = result["rd"], result["codecs"]
    for axes in (left, right):
        axes.plot(rd["bits"], rd["distortion"], "k.-", label=rd["name"])
    for number, line in enumerate(result["blahut_arimoto"]):
        label = f"{line['name']}, n = {line['samples']}"
        left.plot(line["bits"], line["distortion"], f"C{number}--", marker=".", label=label)
    ba, nerd, dnn = (
        published[k] for k in ("blahut_arimoto_Y_is_X_60k", "nerd_M40000", "one_shot_dnn_compressor")
    )
    left.plot(ba["R"], ba["D"], ":", color="0.4", label="published BA, 60,000 images, in-sample")
    left.plot(nerd["R"], nerd["D"], "kx", markersize=5, label="published NERD (training images)")
    for axes in (left, right):
        axes.plot(dnn["R"], dnn["D"], "m*", markersize=6, label="published one-shot DNN compressor")
    for number, line in enumerate(line for line in codecs if line["kind"] == "reference"):
        left.plot(line["bits"], line["distortion"], f"C{4 + number}o-", markersize=3, label=line["name"])
    for number, line in enumerate(line for line in codecs if line["kind"] == "rcc"):
        right.plot(line["bits"], line["distortion"], f"C{number}o-", markersize=4, label=line["name"])
    right.plot(rd["guarantee_bits"], rd["distortion"], "k--", label="guarantee R + log2(R + 1) + 5")
    right.plot(
        [r["pfr_zipf_huffman_bits"] for r in theirs], [r["pfr_D"] for r in theirs], "rx",
        label="authors' weights, PFR, Zipf-Huffman",
    )  # fmt: skip
    for axes in (left, right):
        axes.set(xlabel="bits an image", ylabel="summed squared error", xlim=(0, 24), ylim=(0, 70))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set_title(f"limits and compressors: {result['images']}", fontsize=10)
    right.set_title("reverse channel coding", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparison", type=Path, default=RESULTS / "mnist_comparison.json")
    parser.add_argument("--source", default="mnist", help="for Blahut-Arimoto")
    parser.add_argument("--images", type=int, default=1000, help="test images of Blahut-Arimoto")
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 5000], help="its training images")
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "mnist_figure", help="path without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    images = load_image_set(args.source, args.images)
    lines = []
    for samples in args.samples:
        for curve in ba_curves(images, args.betas, samples=samples):
            lines.append(made := line_of(curve, samples))
            print(
                f"{made['name']}: to {max(made['bits']):.2f} bits, D {min(made['distortion']):.2f}",
                flush=True,
            )
    codecs, rd = measured_lines(args.comparison)
    result = {
        "what": "bits an image and summed squared error; codecs and R(D) are copied from the comparison",
        "images": images.described,
        "comparison": args.comparison.name,
        **describe_run(began),
        "blahut_arimoto": lines,
        "rd": rd,
        "codecs": codecs,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
