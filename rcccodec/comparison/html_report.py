"""One HTML page with everything in it: curves, pictures at equal rate, tables, what it was made with."""

import base64
import html
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcccodec.comparison.figure import figure_bytes
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import KEPT_PICTURES, Curve, Point, axis_bits, mean_psnr_db
from rcccodec.comparison.summary import Comparison, Record, curve_results, effort_levels
from rcccodec.comparison.table import delta_lines
from rcccodec.images import image_bytes

CROP = 320  # pixels of a photograph's side that are shown, one for one
SHOWN_PHOTOGRAPHS = 3
_SPLIT = ("divergence_bits", "search_bits", "class_bits", "framing_bits")

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
svg { width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4 }
td:first-child, th:first-child { text-align: left }
.grid { display: flex; flex-wrap: wrap; gap: .6rem; margin-bottom: 1.4rem } figure { margin: 0 }
figure img { display: block } figcaption { font-size: .8rem; line-height: 1.3; padding-top: .2rem }
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
        _pictures(comparison) if images.archive else _photographs(comparison),
        *_efforts(effort_levels(comparison)),
        "<h2>Bjontegaard deltas</h2><pre>",
        html.escape("\n".join(delta_lines(deltas)) or "no reference was asked for"),
        "</pre>",
        *(_table(curve, comparison) for curve in comparison.curves),
        *(["<h2>Theory, bits an image</h2>"] if comparison.limits else []),
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
        return _rate(point, comparison.images)

    target = rate(middle_point(codecs[0], comparison.images))
    return [(c, min(c.points, key=lambda p: abs(math.log(rate(p) / target)))) for c in codecs]


def middle_point(curve: Curve, images: ImageSet) -> Point:
    """The point with the middle rate; of two the dearer."""
    return sorted(curve.points, key=lambda point: _rate(point, images))[len(curve.points) // 2]


def _rate(point: Point, images: ImageSet) -> float:
    return max(float(axis_bits(point, images).mean()), 1e-9)


def _pictures(comparison: Comparison) -> str:
    images = comparison.images
    rows = [("original", "", images.images)]
    for curve, point in equal_rate(comparison):
        caption = f"{axis_bits(point, images).mean():.1f} bits, {float(mean_psnr_db(point, images)):.2f} dB"
        rows.append((curve.name, f"{point.setting}: {caption}", list(point.pictures)))
    count = min(len(pictures) for _, _, pictures in rows)
    cells = []
    for name, caption, pictures in rows:
        strip = _strip(pictures[:count])
        cells.append(
            f'<tr><td>{html.escape(name)}<br><span class="note">{html.escape(caption)}</span></td><td>'
            f'<img class="strip" width="{2 * strip.shape[1]}" alt="{html.escape(name)}" '
            f'src="{_source(strip)}"></td></tr>'
        )
    return f"<table>{''.join(cells)}</table>"


def _photographs(comparison: Comparison) -> str:
    """Of some pictures the original and every codec at about equal rate, the middle pixel for pixel."""
    images = comparison.images
    note = "The middle of each, pixel for pixel; rates and PSNR are of the whole image."
    grids = [f'<p class="note">{note}</p>']
    codecs = [curve for curve in comparison.curves if curve.kind != "bound" and curve.points]
    for number, x in enumerate(images.images[: min(SHOWN_PHOTOGRAPHS, KEPT_PICTURES)]):
        target = _of_image(middle_point(codecs[0], images), images, number)[0]
        cells = [_figure(x, "original", f"{x.shape[1]}x{x.shape[0]}")]
        for curve in codecs:
            each = [(point, *_of_image(point, images, number)) for point in curve.points]
            point, bpp, psnr = min(each, key=lambda one: abs(math.log(one[1] / target)))
            cells.append(_figure(point.pictures[number], curve.name, f"{bpp:.3f} bpp, {psnr:.2f} dB"))
        grids.append(f'<div class="grid">{"".join(cells)}</div>')
    return "".join(grids)


def _of_image(point: Point, images: ImageSet, number: int) -> tuple[float, float]:
    """Bits a pixel and PSNR of one image."""
    error = max(point.squared_error[number] / point.samples[number], 1e-12)
    return float(axis_bits(point, images)[number] / images.pixels[number]), float(-10 * np.log10(error))


def _figure(x: np.ndarray, name: str, caption: str) -> str:
    top, left = max(0, (x.shape[0] - CROP) // 2), max(0, (x.shape[1] - CROP) // 2)
    part = np.ascontiguousarray(x[top : top + CROP, left : left + CROP])
    name = html.escape(name)
    return (
        f'<figure style="max-width: {part.shape[1]}px"><img alt="{name}" src="{_source(part)}">'
        f"<figcaption>{name}<br>{caption}</figcaption></figure>"
    )


def _source(x: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(image_bytes(x)).decode()}"


def _strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures side by side."""
    parts = [np.repeat(x[:, :, None], 3, axis=2) if x.ndim == 2 else x for x in pictures]
    height = max(x.shape[0] for x in parts)
    padded = [np.pad(x, ((0, height - x.shape[0]), (0, 4), (0, 0)), constant_values=255) for x in parts]
    return np.ascontiguousarray(np.concatenate(padded, axis=1))


def _table(curve: Curve, comparison: Comparison) -> str:
    results = curve_results(curve, comparison)
    columns = ["setting", "bits_per_image", "file_bits_per_image", "bpp", "psnr-rgb", "distortion"]
    columns += ["rd_limit_bits", "overhead_bits", "guarantee_bits", "encoding_time", "decoding_time"]
    columns += ["ms-ssim-rgb"] if "ms-ssim-rgb" in results else []
    columns = [name for name in columns if any(value is not None for value in results[name])]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = []
    for i, interval in enumerate(results["ci95"]):
        cells = [_cell(results[name][i], interval.get(name)) for name in columns]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    note = f'<p class="note">{html.escape(curve.description)}</p>'
    table = f"<table><tr>{head}</tr>{''.join(rows)}</table>"
    return f"<h2>{html.escape(curve.name)}</h2>{note}{table}{_split_table(results)}"


def _split_table(results: Record) -> str:
    """Where the bits of files of latents go; nothing for others."""
    if any(bits is None for bits in results["divergence_bits"]):
        return ""
    titles = ("setting", "bpp", *(name.removesuffix("_bits") for name in _SPLIT), "encode s", "decode s")
    rows = []
    for i, setting in enumerate(results["setting"]):
        total = sum(results[name][i] for name in _SPLIT)
        parts = [f"{results[n][i]:.0f} ({100 * results[n][i] / total:.1f} %)" for n in _SPLIT]
        times = [results[name][i] for name in ("encoding_time", "decoding_time")]
        seconds = ["-" if time is None else f"{time:.2f}" for time in times]
        rows.append([setting, f"{results['bpp'][i]:.4f}", *parts, *seconds])
    note = "search: what is sent through the channel less the divergence, which it costs at the least"
    return f'<h3>Where the bits go, bits an image</h3><p class="note">{note}</p>{_plain_table(titles, rows)}'


def _efforts(levels: Sequence[Record]) -> list[str]:
    """What each effort costs and gains; nothing without models of latents."""
    if not levels:
        return []
    titles = (
        "codec",
        "encode s",
        "decode s",
        "search, % of divergence",
        "over the ideal, %",
        "BD-rate, %",
        "against",
    )
    rows = []
    for level in levels:
        names = ("encoding_time", "decoding_time", "search_percent", "over_ideal_percent", "bd_rate_percent")
        cells = ["-" if level[name] is None else f"{level[name]:.2f}" for name in names]
        against = "-" if level["codec"] == level["least_effort"] else level["least_effort"]
        rows.append([level["codec"], *cells, against])
    note = (
        "Seconds an image. A short search costs few bits more, but its pictures are worse: over the ideal is "
        "the BD-rate against a channel that costs the divergence alone; BD-rate is against the least effort."
    )
    title = f'<h2>What an effort costs and gains</h2><p class="note">{note}</p>'
    return [title, _plain_table(titles, rows)]


def _plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


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
