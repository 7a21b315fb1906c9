"""The figure of mnist_rcc.py: rate-distortion points of real files, and their excess."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PUBLISHED = Path(__file__).resolve().parent / "published"
SHOWN = {  # colour and mark of a coder and index code
    ("pfr", "zipf"): ("C0", "o"),
    ("pfr", "fitted"): ("C0", "s"),
    ("pfr", "prior"): ("C0", "D"),
    ("pfr", "prior_refitted"): ("C0", "^"),
    ("orc", "zipf"): ("C2", "o"),
    ("orc", "fitted"): ("C2", "s"),
    ("orc", "prior"): ("C2", "D"),
    ("orc", "prior_refitted"): ("C2", "^"),
    ("mincost", "fitted"): ("C3", "s"),
    ("mincost", "prior"): ("C1", "D"),
    ("mincost", "prior_refitted"): ("C1", "^"),
}


def plot(result: dict[str, Any], reference: list[dict], path: Path) -> None:
    """Left: D against bits an image. Right: excess against R with two standard errors."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), constrained_layout=True)
    published = json.loads((PUBLISHED / "mnist_published.json").read_text())
    _curves(left, result, reference, published)
    for (coder, index_code), (colour, mark) in SHOWN.items():
        rows = [r for r in result["rows"] if (r["coder"], r["index_code"]) == (coder, index_code)]
        if not rows:
            continue
        label, style = f"{coder}, {index_code.replace('_', ' ')}", {"color": colour, "marker": mark}
        left.plot(
            [r["payload_bits_per_image"] for r in rows], [r["distortion"] for r in rows],
            linestyle="", markersize=5, label=label, **style,
        )  # fmt: skip
        right.errorbar(
            [r["rd_rate_bits"] for r in rows],
            [r["excess_bits"] for r in rows],
            yerr=[2 * (r["excess_se_codebooks_bits"] or r["excess_se_images_bits"] or 0) for r in rows],
            markersize=4, capsize=2, linewidth=1, label=label, **style,
        )  # fmt: skip
    known = [e for e in result["estimates"] if "reference_pfr_zipf_excess_bits" in e]
    right.plot(
        [e["reference_rate_bits"] for e in known], [e["reference_pfr_zipf_excess_bits"] for e in known],
        "kx", label="reference weights, pfr, zipf",
    )  # fmt: skip
    left.set(xlabel="bits an image", ylabel="summed squared error", xlim=(0, 22), ylim=(10, 55))
    right.set(xlabel="R at the slope, bits an image", ylabel="excess of the Lagrangian, bits")
    right.set_ylim(bottom=0)
    left.set_title(f"MNIST 32x32, {result['images']}", fontsize=10)
    right.set_title(f"excess over the estimate, {len(result['codebook_seeds'])} codebooks", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    right.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(axes: Axes, result: dict[str, Any], reference: list[dict], published: dict) -> None:
    estimates = result["estimates"]
    axes.plot(
        [e["rate_bits"] for e in estimates],
        [e["distortion"] for e in estimates],
        "k-",
        label="this model's R(D)",
    )
    axes.plot(
        [r["R_nerd"] for r in reference], [r["D_nerd"] for r in reference], "k--", linewidth=1,
        label="reference weights' R(D)",
    )  # fmt: skip
    axes.plot(
        [r["pfr_zipf_huffman_bits"] for r in reference], [r["pfr_D"] for r in reference], "kx",
        label="reference weights, pfr, zipf",
    )  # fmt: skip
    for key, style, label in (
        ("nerd_M40000", "0.6", "published NERD (training images)"),
        ("one_shot_dnn_compressor", "C4", "published one-shot DNN compressor"),
    ):
        axes.plot(published[key]["R"], published[key]["D"], ":", color=style, label=label)
