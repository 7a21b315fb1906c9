"""One HTML page with everything in it: curves, pictures at equal rate, tables, what it was made with."""

import base64
import html
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcccodec.comparison.figure import figure_bytes
from rcccodec.comparison.measured import Curve, Point, axis_bits, mean_psnr_db
from rcccodec.comparison.summary import Comparison, Record, curve_results
from rcccodec.comparison.table import delta_lines
from rcccodec.images import image_bytes

CROP = 256  # pixels of a photograph's side that are shown
SHOWN_PHOTOGRAPHS = 3

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
svg { width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4 }
td:first-child, th:first-child { text-align: left }
.strip { image-rendering: pixelated; display: block } .note { color: #666 } pre { overflow-x: auto }
"""


def report_bytes(comparison: Comparison, deltas: list[Record]) -> bytes:
    """The page, UTF-8; it asks for nothing from anywhere else."""
    images = comparison.images
    bits = "payload bits of one file of all images" if images.archive else "whole files, one an image"
    drawing = figure_bytes(comparison, "svg").decode()
    body = [
        "<h1>Reverse channel coding, compared</h1>",
        f"<p>{html.escape(images.described)}. Rates are {bits}; every file was decoded. Bands and brackets "
        "are 95 % intervals over images, all codecs resampled together; they do not hold a codebook's luck, "
        "which all images share. Hollow marks: saturated, log2 N - R below 3 bits.</p>",
        drawing[drawing.index("<svg") :],
        "<h2>At equal rate</h2>",
        _pictures(comparison),
        "<h2>Bjontegaard deltas</h2><pre>",
        html.escape("\n".join(delta_lines(deltas)) or "no reference was asked for"),
        "</pre>",
        *(_table(curve, comparison) for curve in comparison.curves),
        "<h2>Theory, bits an image</h2>",
        *(_theory(limits) for limits in comparison.limits.values()),
        "<h2>Made with</h2><pre>",
        html.escape(json.dumps(_short(comparison.run), indent=1)),
        "</pre>",
    ]
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>rcc bench</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )
    return page.encode()


def equal_rate(comparison: Comparison) -> list[tuple[Curve, Point]]:
    """Of every codec the point whose rate is nearest, in ratio, to the middle point of the first codec."""
    codecs = [curve for curve in comparison.curves if curve.kind != "bound" and curve.points]

    def rate(point: Point) -> float:
        return max(float(axis_bits(point, comparison.images).mean()), 1e-9)

    first = sorted(codecs[0].points, key=rate)
    target = rate(first[len(first) // 2])
    return [(c, min(c.points, key=lambda p: abs(math.log(rate(p) / target)))) for c in codecs]


def _pictures(comparison: Comparison) -> str:
    images = comparison.images
    rows = [("original", "", images.images)]
    for curve, point in equal_rate(comparison):
        bits = axis_bits(point, images)
        rate = f"{bits.mean():.1f} bits" if images.archive else f"{(bits / images.pixels).mean():.4f} bpp"
        caption = f"{rate}, {float(mean_psnr_db(point, images)):.2f} dB"
        rows.append((curve.name, f"{point.setting}: {caption}", list(point.pictures)))
    count = min(len(pictures) for _, _, pictures in rows)
    count = count if images.archive else min(count, SHOWN_PHOTOGRAPHS)
    cells = []
    for name, caption, pictures in rows:
        strip = _strip(pictures[:count], images.archive)
        source = base64.b64encode(image_bytes(strip)).decode()
        scale = 2 if images.archive else 1
        cells.append(
            f'<tr><td>{html.escape(name)}<br><span class="note">{html.escape(caption)}</span></td><td>'
            f'<img class="strip" width="{scale * strip.shape[1]}" alt="{html.escape(name)}" '
            f'src="data:image/png;base64,{source}"></td></tr>'
        )
    return f"<table>{''.join(cells)}</table>"


def _strip(pictures: Sequence[np.ndarray], archive: bool) -> np.ndarray:
    """Pictures side by side, photographs cut to their middle."""
    parts = []
    for x in pictures:
        if not archive:
            top, left = max(0, (x.shape[0] - CROP) // 2), max(0, (x.shape[1] - CROP) // 2)
            x = x[top : top + CROP, left : left + CROP]
        parts.append(np.repeat(x[:, :, None], 3, axis=2) if x.ndim == 2 else x)
    height = max(x.shape[0] for x in parts)
    padded = [np.pad(x, ((0, height - x.shape[0]), (0, 4), (0, 0)), constant_values=255) for x in parts]
    return np.ascontiguousarray(np.concatenate(padded, axis=1))


def _table(curve: Curve, comparison: Comparison) -> str:
    results = curve_results(curve, comparison)
    columns = ["setting", "bits_per_image", "file_bits_per_image", "bpp", "psnr-rgb", "distortion"]
    columns += ["rd_limit_bits", "overhead_bits", "guarantee_bits", "encoding_time", "decoding_time"]
    columns += ["ms-ssim-rgb"] if "ms-ssim-rgb" in results else []
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = []
    for i, interval in enumerate(results["ci95"]):
        cells = [_cell(results[name][i], interval.get(name)) for name in columns]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    note = f'<p class="note">{html.escape(curve.description)}</p>'
    return f"<h2>{html.escape(curve.name)}</h2>{note}<table><tr>{head}</tr>{''.join(rows)}</table>"


def _theory(limits: Sequence[Any]) -> str:
    records = [limit.as_json() for limit in limits]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in records[0])
    rows = ["".join(f"<td>{_cell(value, None)}</td>" for value in record.values()) for record in records]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cell(value: Any, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
    return text + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _short(run: Record) -> Record:
    """The run without the hash of every single image."""
    return {key: value for key, value in run.items() if key != "image_sha256"}
