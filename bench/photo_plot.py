"""The figures of photo_kodak.py: PSNR against rate, and pictures beside each other."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcccodec.images import psnr_db, write_image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CROP = (256, 384)  # height, width shown of every picture
GAP, CAPTION = 6, 16  # pixels

Picture = tuple[
    np.ndarray, tuple[np.ndarray, int], tuple[np.ndarray, int]
]  # original; (decoded, bytes) twice


def plot(result: dict[str, Any], published: dict[str, Any], path: Path) -> None:
    """Mean PSNR against mean bpp with two standard errors for this codec, and published means."""
    figure, axes = plt.subplots(figsize=(8, 5.6), constrained_layout=True)
    for name, style in (("jpeg", "C0-"), ("jpeg optimize", "C0--"), ("webp method 6", "C2-")):
        rows = [r for r in result["others"] if r["codec"] == name]
        axes.plot([r["bpp"] for r in rows], [r["psnr_db"] for r in rows], style, marker=".", label=name)
    rows = result["rows"]
    axes.errorbar(
        [r["bpp"] for r in rows],
        [r["psnr_db"] for r in rows],
        xerr=[2 * (r["bpp_se"] or 0) for r in rows],
        yerr=[2 * (r["psnr_db_se"] or 0) for r in rows],
        color="C3",
        marker="o",
        markersize=5,
        capsize=2,
        linewidth=1.5,
        label=f"rcc, {result['coder']} (2 standard errors over images)",
    )
    learned = published["bmshj2018-factorized"]
    axes.plot(learned["bpp"], learned["psnr"], "k:", label="bmshj2018-factorized, published, 24 images")
    axes.plot(result["goal"]["bpp"], result["goal"]["psnr_db"], "k*", label="JPEG quality 5, 24 images")
    axes.set(xlabel="whole-file bits a pixel", ylabel="PSNR, dB", xlim=(0, 0.45), ylim=(18, 31))
    axes.set_title(result["images"], fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def picture_grid(pictures: list[Picture], path: Path) -> None:
    """Original, this codec and JPEG in a row for every picture: the middle of each, pixel by pixel.

    The captions' numbers are of the whole image, not of the part that is shown.
    """
    height, width = (min(side, *(x.shape[i] for x, _, _ in pictures)) for i, side in enumerate(CROP))
    size = 3 * (width + GAP) + GAP, len(pictures) * (height + CAPTION + GAP) + GAP
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for number, (x, rcc, jpeg) in enumerate(pictures):
        shown = [("original", x)]
        for name, (y, count) in (("rcc", rcc), ("JPEG", jpeg)):
            bpp = 8 * count / (x.shape[0] * x.shape[1])
            shown.append((f"{name}: {count} bytes, {bpp:.3f} bpp, {psnr_db(x, y):.2f} dB", y))
        top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
        for column, (caption, y) in enumerate(shown):
            at = GAP + column * (width + GAP), GAP + number * (height + CAPTION + GAP)
            part = np.ascontiguousarray(y[top : top + height, left : left + width])
            canvas.paste(Image.fromarray(part).convert("RGB"), at)
            draw.text((at[0], at[1] + height + 2), caption, fill="black", font=font)
    write_image(path, np.asarray(canvas))
