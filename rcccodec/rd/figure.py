"""The figure of ``rcc rd``: estimators' points, what lies between the bounds, codecs, differences."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcccodec.rd.envelope import Envelope, gaps
from rcccodec.rd.point import RatePoint
from rcccodec.rd.results import Codec

_COLOURS = (
    "#1b6ca8", "#c1272d", "#2a9d8f", "#e8812c", "#7b3294", "#6a994e", "#8c564b", "#5e548e", "#b5838d",
)  # fmt: skip
_CODEC_COLOURS = ("black", "0.45", "0.65")
_MARKS = "osD^vPXh*"
_SHADE = "#d9e4ee"
_WIDE = 20.0  # distortions further apart than this factor are drawn on a logarithmic scale


def figure_bytes(
    name: str,
    distortion: str,
    points: Sequence[RatePoint],
    envelopes: tuple[Envelope, Envelope],
    codecs: Sequence[Codec],
    kind: str,
) -> bytes:
    """The figure as a file of ``kind``, "png" or "svg".

    Args:
        envelopes: with an allowance for errors, which is shaded; as measured, which differences are from.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shaded, bounds = envelopes
    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(6, 3), sharex=True)
    grid = _grid(points, bounds, codecs)
    base, upper, lower = bounds.upper(grid), shaded.upper(grid), shaded.lower(grid)
    if shaded.lines:
        label = "between the bounds, 99 % limits"
        above.fill_between(grid, lower, upper, color=_SHADE, linewidth=0, label=label)
        below.fill_between(grid, lower - base, upper - base, color=_SHADE, linewidth=0)
        above.plot(grid, lower, color="0.5", linewidth=1)
        below.plot(grid, lower - base, color="0.5", linewidth=1)
    below.axhline(0, color="0.5", linewidth=1)
    if shaded.corners:
        above.plot(grid, upper, color="0.5", linewidth=1)
    groups = list(dict.fromkeys((p.method, p.kind) for p in points))
    for number, (method, sort) in enumerate(groups):
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        mine = sorted((p for p in points if (p.method, p.kind) == (method, sort)), key=lambda p: p.beta)
        _draw(above, below, method, mine, bounds, grid, colour, mark)
    for number, codec in enumerate(codecs):
        colour = _CODEC_COLOURS[number % len(_CODEC_COLOURS)]
        rate, d = np.array(sorted(codec.points)).T
        style: dict[str, Any] = {"color": colour, "markersize": 9, "linewidth": 1, "zorder": 6}
        above.plot(d, rate, "*--", label=f"codec: {codec.name}", **style)
        found = [(g.distortion, g.above_upper_bits) for g in gaps(codec.points, bounds)]
        known = np.array([(x, y) for x, y in found if y is not None])
        if len(known):
            below.plot(*known.T, "*--", **style)
    if grid[-1] > _WIDE * grid[0]:
        above.set_xscale("log")
        above.set_xlim(grid[0] / 1.1, grid[-1] * 1.1)
    else:
        margin = 0.04 * (grid[-1] - grid[0])
        above.set_xlim(grid[0] - margin, grid[-1] + margin)
    above.set(ylabel="rate, bits a source vector", ylim=(0, _top(points, codecs, grid)))
    above.set_title(f"R(D) of {name}", loc="left", fontsize=11)
    below.set(xlabel=f"distortion a source vector ({_DISTORTIONS.get(distortion, distortion)})")
    below.set_ylabel("bits above the best upper bound\n(bars: two standard errors)")
    _limit(below, points, bounds, codecs)
    for axes in (above, below):
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    if any(p.saturated for p in points):
        hollow = {"color": "0.4", "markerfacecolor": "white", "markersize": 5}
        above.plot([], [], linestyle="", marker="o", label="hollow: saturated", **hollow)
    above.legend(frameon=False, fontsize=9, loc="upper right")
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue()


_DISTORTIONS = {"mse": "summed squared error", "l1": "summed absolute error", "hamming": "Hamming"}


def _draw(
    above: Any,
    below: Any,
    method: str,
    mine: list[RatePoint],
    bounds: Envelope,
    grid: np.ndarray,
    colour: str,
    mark: str,
) -> None:
    """A method's points with two standard errors and the chords between them; lower lines as the highest."""
    kind = mine[0].kind
    words = "" if kind == "exact" else f" ({kind}{' bound' if kind in ('upper', 'lower') else ''})"
    flat = [p for p in mine if math.isfinite(p.distortion) and math.isfinite(p.rate_bits)]
    if kind == "lower":
        lagrangian, beta = np.array([(p.lagrangian_bits, p.beta) for p in mine]).T
        line = np.maximum(0, (lagrangian - np.outer(grid, beta) / math.log(2)).max(1))
        above.plot(grid, line, color=colour, linewidth=1.5, linestyle=":", label=f"{method}{words}")
        return
    if not any(grid[0] <= p.distortion <= grid[-1] for p in flat):
        return
    flat.sort(key=lambda p: p.distortion)
    d, rate, error = np.array([(p.distortion, p.rate_bits, p.rate_se_bits) for p in flat]).T
    between = np.unique(np.concatenate([d, grid[(grid > d[0]) & (grid < d[-1])]]))
    chord = np.interp(between, d, rate)  # a straight line between points, on a logarithmic axis too
    for axes, x, y, marks in (
        (above, between, chord, rate),
        (below, between, chord - bounds.upper(between), rate - bounds.upper(d)),
    ):
        axes.plot(x, y, color=colour, linewidth=1.2, zorder=4)
        known = np.isfinite(error) & (error > 0)
        if known.any():
            bars = {"fmt": "none", "ecolor": colour, "elinewidth": 1.2, "capsize": 2, "zorder": 4}
            axes.errorbar(d[known], marks[known], yerr=2 * error[known], **bars)
        for p, x_at, y_at in zip(flat, d, marks, strict=True):
            face = "white" if p.saturated else colour
            axes.plot(x_at, y_at, marker=mark, markersize=5, color=colour, markerfacecolor=face, zorder=5)
    above.plot([], [], marker=mark, markersize=5, color=colour, linewidth=1.2, label=f"{method}{words}")


def _grid(points: Sequence[RatePoint], bounds: Envelope, codecs: Sequence[Codec]) -> np.ndarray:
    """Distortions to draw: from the least to the largest of bounds and codecs, else of estimates."""
    known = [p for p in points if math.isfinite(p.distortion) and p.distortion > 0]
    most = 1.2 * bounds.corners[-1][0] if bounds.corners else math.inf  # beyond rate 0 is nothing to see
    known = [p for p in known if p.distortion <= most] or known
    seen = [p.distortion for p in known if p.kind != "estimate"] or [p.distortion for p in known]
    seen += [d for codec in codecs for _, d in codec.points if d > 0]
    seen += [d for d, _ in bounds.corners[-1:] if d > 0]
    low, high = (min(seen), max(seen)) if seen else (0.1, 1.0)
    return np.unique(np.concatenate([np.geomspace(low, high, 400), np.linspace(low, high, 400)]))


def _top(points: Sequence[RatePoint], codecs: Sequence[Codec], grid: np.ndarray) -> float | None:
    """A little above the highest rate in sight."""
    pairs = [(p.distortion, p.rate_bits) for p in points] + [(d, r) for c in codecs for r, d in c.points]
    rates = [r for d, r in pairs if grid[0] <= d <= grid[-1] and math.isfinite(r)]
    return 1.06 * max(rates) if rates and max(rates) > 0 else None


def _limit(axes: Any, points: Sequence[RatePoint], bounds: Envelope, codecs: Sequence[Codec]) -> None:
    """The height of the panel of differences: that of estimators and codecs, not of a loose bound."""
    flat = [p for p in points if math.isfinite(p.distortion) and math.isfinite(p.rate_bits)]
    pairs = [(p.distortion, p.rate_bits) for p in flat] + [(d, r) for c in codecs for r, d in c.points]
    if not pairs:
        return
    d, rate = np.array(pairs).T
    excess = rate - bounds.upper(d)
    excess = excess[np.isfinite(excess)]
    if excess.size:
        top = max(0.5, float(np.quantile(excess, 0.9)) * 1.3)
        axes.set_ylim(-top, top)
