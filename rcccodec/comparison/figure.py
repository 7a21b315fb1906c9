"""The figure of a comparison: every codec's curve with its band, R(D), floor and guarantee.

Small images: bits an image against summed squared error. Photographs: bits a pixel against PSNR, and a panel
of the differences, which are small beside the curves: bits at equal PSNR in percent of a reference's.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcccodec.comparison.bjontegaard import rates_at_equal_quality
from rcccodec.comparison.measured import Curve
from rcccodec.comparison.summary import Comparison, curve_results
from rcccodec.comparison.theory import Limit
from rcccodec.errors import InputError

_OURS = ("#c1272d", "#e8812c", "#7b3294", "#b5838d", "#5e548e", "#d4a017")
_OTHERS = ("#1b6ca8", "#2a9d8f", "#6a994e", "#8d99ae", "#457b9d", "#3a5a40")
_MARKS = "osD^vP"
_HEADROOM_PERCENT = 30  # above the best codec's worst, in the panel of differences; what is dearer leaves it
_THEORY = (  # field of Limit, line, width, label, side and height of the label
    ("floor_bits", ":", 1.2, "floor of exact simulation, one image an index", "", 0.0),
    ("sharper_bits", "-.", 1.0, "known bound I + log2(I + 3.4) + 1", "", 0.0),
    ("guarantee_bits", "--", 1.4, "guarantee R + log2(R + 1) + 5", "right", 0.3),
)


@dataclass(frozen=True)
class _Line:
    x: np.ndarray
    y: np.ndarray
    name: str
    colour: str
    handle: Any = None
    beside: str = ""  # the side of the line that its name is written on; else it is in the key
    beside_height: float = 0.5


def require_matplotlib() -> None:
    """Say what is missing before any long work.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'rcccodec[bench]'") from error


def figure_bytes(comparison: Comparison, kind: str) -> bytes:
    """The figure as a file of ``kind``, "png" or "svg"."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    archive = comparison.images.archive
    base = None if archive else _base(comparison.curves)
    heights = [6.2] if base is None else [6.2, 3.2]  # inches
    figure = Figure(figsize=(10.5, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes, *below = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    lines: list[_Line] = []
    colours = _colours(comparison.curves)
    widest = 0.0
    bounds = {curve.name for curve in comparison.curves if curve.kind == "bound"}
    for number, curve in enumerate(comparison.curves):
        line = _draw_curve(axes, curve, curve_results(curve, comparison), archive, colours[curve.key], number)
        lines.append(line)
        if curve.kind == "rcc" or (curve.kind == "reference" and curve.sha256 and not archive):
            widest = max(widest, float(line.x.max()))
    if archive:
        lines += _draw_theory(axes, list(comparison.limits.values()))
        axes.set(xlabel="bits an image (payload)", ylabel="summed squared error an image, pixels in [0, 1]")
        axes.set_xlim(0, 1.75 * widest)
        axes.set_ylim(bottom=0)
    else:
        axes.set(xlabel="bits a pixel (whole files)", ylabel="PSNR, dB")
        axes.set_xlim(0, 1.3 * widest)
    _limit_height(axes, [line for line in lines if line.name not in bounds])  # in-sample ones go far down
    axes.set_title(comparison.images.described, fontsize=10, loc="left", color="0.3")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    _label(axes, lines, archive)
    if base is not None:
        _draw_differences(below[0], lines, next(line for line in lines if line.name == base.name))
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=140, metadata=metadata)
    return buffer.getvalue()


def _base(curves: Sequence[Curve]) -> Curve | None:
    """What the panel of differences holds codecs against: the first learned reference, else the first one."""
    references = [curve for curve in curves if curve.kind == "reference" and curve.points]
    learned = [curve for curve in references if curve.sha256]
    return next(iter(learned or references), None)


def _draw_differences(axes: Any, lines: Sequence[_Line], base: _Line) -> None:
    """Bits at equal PSNR in percent, where both codecs reach it."""
    drawn = []
    for line in lines:
        pairs = [list(zip(one.x.tolist(), one.y.tolist(), strict=True)) for one in (base, line)]
        found = None if line is base else rates_at_equal_quality(*pairs)
        if found is not None:
            style = {"linestyle": line.handle.get_linestyle(), "linewidth": line.handle.get_linewidth()}
            axes.plot(found[0], 100 + found[1], color=line.colour, **style)
            drawn.append(found[1])
    axes.axhline(100, color=base.colour, linewidth=1.5)
    axes.set(xlabel="PSNR, dB", ylabel=f"bits, % of those of\n{base.name}")
    if drawn:
        top = 100 + max(min(float(np.max(one)) for one in drawn), 0)
        axes.set_ylim(top=top + _HEADROOM_PERCENT)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    ours = [c.key for c in curves if c.kind == "rcc"]
    ideal = [c.key for c in curves if c.kind == "bound" and c.sha256]
    others = [c.key for c in curves if c.kind != "rcc" and c.key not in ideal]
    return (
        {key: _OURS[i % len(_OURS)] for i, key in enumerate(ours)}
        | {key: _OTHERS[i % len(_OTHERS)] for i, key in enumerate(others)}
        | dict.fromkeys(ideal, "0.35")
    )


def _draw_curve(
    axes: Any, curve: Curve, results: dict[str, list[Any]], archive: bool, colour: str, number: int
) -> _Line:
    """Line, marks and the 95 % band."""
    x = np.array(results["bits_per_image" if archive else "bpp"])
    y = np.array(results["distortion" if archive else "psnr-rgb"])
    bound = curve.kind == "bound"
    style = {"linestyle": (0, (1, 1)) if bound else "-", "linewidth": 1.0 if bound else 1.5}
    mark = None if bound else _MARKS[number % len(_MARKS)]
    (handle,) = axes.plot(x, y, color=colour, zorder=3, marker=mark, markersize=5, **style)
    hollow = np.array([bool(s) for s in results["saturated"]])
    if hollow.any():
        axes.plot(
            x[hollow], y[hollow], linestyle="", marker=mark, markersize=5,
            color=colour, markerfacecolor="white", zorder=4,
        )  # fmt: skip
    name = "distortion" if archive else "psnr-rgb"
    bands = [(ci["bits_per_image"], ci[name]) for ci in results["ci95"]]
    if bands and None not in bands[0]:
        across, along = (np.array(side).T for side in zip(*bands, strict=True))  # (2, points) each
        bits = np.array(results["bits_per_image"])
        scale = np.divide(x, bits, out=np.ones_like(bits), where=bits > 0)  # 1, or bits a pixel
        low, high = (0, 1) if archive else (1, 0)  # fewer bits and less quality on one side of the band
        corner_x = np.concatenate([across[0] * scale, (across[1] * scale)[::-1]])
        corner_y = np.concatenate([along[low], along[high][::-1]])
        axes.fill(corner_x, corner_y, color=colour, alpha=0.15, linewidth=0, zorder=2)
    return _Line(x, y, curve.name, colour, handle)


def _draw_theory(axes: Any, models: list[list[Limit]]) -> list[_Line]:
    drawn = []
    for limits in models[:1]:
        known = [limit for limit in limits if limit.on_these_images]
        if not known:
            continue
        d = np.array([limit.distortion for limit in known])
        rates = np.array([limit.rate_bits for limit in known])
        axes.plot(rates, d, color="black", linewidth=1.8, zorder=5)
        axes.plot(
            [x.rate_bits for x in known if x.saturated], [x.distortion for x in known if x.saturated],
            linestyle="", marker="o", markersize=5, color="black", markerfacecolor="white", zorder=6,
        )  # fmt: skip
        drawn.append(_Line(rates, d, "R(D), NERD upper bound", "black", None, "left", 0.25))
        for field, line, width, label, side, height in _THEORY:
            x = np.array([getattr(limit, field) for limit in known])
            (handle,) = axes.plot(x, d, color="0.35", linestyle=line, linewidth=width, zorder=1)
            drawn.append(_Line(x, d, label, "0.35", handle, side, height))
    return drawn


def _limit_height(axes: Any, lines: list[_Line]) -> None:
    """The height of what lies inside the width."""
    right = axes.get_xlim()[1]
    y = np.concatenate([line.y[line.x <= right] for line in lines])
    if y.size:
        low, high = float(y.min()), float(y.max())
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _label(axes: Any, lines: list[_Line], archive: bool) -> None:
    """Theory beside its lines; codecs in a key in the free corner, in the order in which their curves lie."""
    right, (bottom, top) = axes.get_xlim()[1], axes.get_ylim()
    shown = []
    for line in lines:
        keep = (line.x <= right) & (line.y >= bottom) & (line.y <= top)
        if not keep.any():
            continue
        if line.beside:
            _beside(axes, line, keep)
        else:
            shown.append((float(np.median(line.x[keep])), line))
    shown.sort(key=lambda one: one[0])
    legend = axes.legend(
        [line.handle for _, line in shown],
        [line.name for _, line in shown],
        loc="upper right" if archive else "lower right",
        frameon=False,
        fontsize=9,
    )
    for text, (_, line) in zip(legend.get_texts(), shown, strict=True):
        text.set_color(line.colour)


def _beside(axes: Any, line: _Line, keep: np.ndarray) -> None:
    x, y = line.x[keep], line.y[keep]
    order, at = np.argsort(y), float(y.min() + line.beside_height * (y.max() - y.min()))
    left = line.beside == "left"
    axes.annotate(
        line.name,
        xy=(float(np.interp(at, y[order], x[order])), at),
        xytext=(-7 if left else 11, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        color=line.colour,
        fontsize=9,
    )
