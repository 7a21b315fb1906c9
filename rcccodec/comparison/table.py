"""The table in the terminal: a line for each point as it is measured, then what it comes to."""

from collections.abc import Sequence
from dataclasses import asdict

from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point, axis_bits, mean_psnr_db
from rcccodec.comparison.summary import Record
from rcccodec.comparison.theory import Limit


def header(images: ImageSet) -> str:
    """Two lines: the images, the columns."""
    unit = "bits/image" if images.archive else "bpp"
    return (
        f"{images.described}\n{'codec':<26} {'setting':<12} {unit:>10} {'PSNR dB':>8} {'sq. error':>10} "
        f"{'encode ms':>9} {'decode ms':>9}"
    )


def point_line(curve: Curve, point: Point, images: ImageSet) -> str:
    """One point: means over the images."""
    bits = axis_bits(point, images)
    rate = f"{bits.mean():10.2f}" if images.archive else f"{(bits / images.pixels).mean():10.4f}"
    seconds = [f"{'-' if s is None else f'{1e3 * s:.2f}':>9}" for s in (point.encode_s, point.decode_s)]
    return (
        f"{curve.key:<26} {point.setting:<12} {rate} {float(mean_psnr_db(point, images)):8.2f} "
        f"{point.squared_error.mean():10.3f} {' '.join(seconds)}{_how(point)}"
    )


def _how(point: Point) -> str:
    """What this codec's files were made with, or where their bits went."""
    if point.split is not None:
        parts = {name.removesuffix("_bits"): bits for name, bits in asdict(point.split).items()}
        total = sum(parts.values())
        return "  " + ", ".join(f"{name} {100 * bits / total:.1f} %" for name, bits in parts.items())
    if point.index_code is None:
        return ""
    shared = f", {max(point.blocks_per_index)} blocks an index" * (max(point.blocks_per_index, default=1) > 1)
    count = len(point.codebooks)
    return f"  {point.index_code}{shared}, {count} codebook{'s' * (count > 1)}"


def limit_line(name: str, limit: Limit) -> str:
    """One rung in theory, bits an image."""
    d = "" if limit.distortion is None else f" at squared error {limit.distortion:.3f}"
    floor = "" if limit.floor_bits is None else f", floor {limit.floor_bits:.2f}"
    return (
        f"{name:<26} {f'rung {limit.rung}':<12} R {limit.rate_bits:.2f}{d}{floor}, sharper bound "
        f"{limit.sharper_bits:.2f}, guarantee {limit.guarantee_bits:.2f}"
        + (f"  saturated: log2 N - R {limit.margin_bits:.1f}" if limit.saturated else "")
        + ("" if limit.on_these_images else "  (the model's held-out estimate)")
    )


def delta_lines(deltas: Sequence[Record]) -> list[str]:
    """Bjontegaard deltas, one line a pair."""
    lines = []
    for delta in deltas:
        if delta["bd_rate_percent"] is None:
            text = "no common range"
        else:
            low, high = delta["psnr_range_db"]
            text = f"BD-rate {delta['bd_rate_percent']:+.1f} %{_interval(delta['bd_rate_ci95'])}"
            text += f" from {low:.2f} to {high:.2f} dB"
        if delta["bd_psnr_db"] is not None:
            text += f", BD-PSNR {delta['bd_psnr_db']:+.2f} dB{_interval(delta['bd_psnr_ci95'])}"
        lines.append(f"{delta['codec']} against {delta['reference']}: {text}")
    return lines


def level_lines(levels: Sequence[Record]) -> list[str]:
    """What each effort costs and gains, one line each."""
    lines = []
    for level in levels:
        seconds = f"encode {level['encoding_time']:.2f} s, decode {level['decoding_time']:.2f} s an image"
        text = f"{level['codec']}: {seconds}"
        if level["search_percent"] is not None:
            text += f", search {level['search_percent']:+.1f} % of the divergence"
        if level["over_ideal_percent"] is not None:
            text += f", BD-rate {level['over_ideal_percent']:+.1f} % against the ideal channel"
        if level["bd_rate_percent"] is not None:
            text += f", BD-rate {level['bd_rate_percent']:+.1f} % against {level['least_effort']}"
        lines.append(text)
    return lines


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f" [{bounds[0]:+.2f}, {bounds[1]:+.2f}]"
