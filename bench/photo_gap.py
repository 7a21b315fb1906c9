"""How far results of ``rcc bench`` on Kodak lie from published figures: BD-rate, no images needed.

    rcc bench --data kodak --images 24 --against ntc,jpeg,webp --effort 1,5,9 \
        --json bench/results/photo_comparison.json
    python bench/photo_gap.py                                   # bench/results/photo_gap.json

Published curves are means over all 24 Kodak images (`bench/published/kodak_published.json`). Where a result
is of fewer, each is taken twice: as it is, and moved to these images, every rate by what WebP with the same
settings needs here beside its published rate at the same PSNR. Each gap is the mean over the PSNR range
that both curves have, which is given beside it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from comparison_table import read_curves
from metadata import RESULTS, describe_run, write_result

from rcccodec.comparison.bjontegaard import (
    bd_quality,
    bd_rate_percent,
    common_quality,
    rates_at_equal_quality,
)
from rcccodec.errors import InputError

PUBLISHED = RESULTS.parent / "published" / "kodak_published.json"
KODAK_IMAGES = 24
BEYOND_DB = 0.5  # the ends of a common range, where the nearest difference is taken
SAME_SETTINGS = "webp_pillow_m6_q1_5_20_50_75"  # as --against webp has them
Curve = list[tuple[float, float]]


def published_curves(path: Path = PUBLISHED) -> dict[str, Curve]:
    """(bpp, PSNR in dB) of every published codec."""
    found = json.loads(path.read_text())
    return {
        name: list(zip(rows["bpp"], rows["psnr"], strict=True))
        for name, rows in found.items()
        if isinstance(rows, dict)
    }


def check_images(result: dict[str, Any], path: Path) -> int:
    """How many images a result is of. Raises: InputError: not of Kodak."""
    if " of kodak," not in result["images"]:
        raise InputError(f"{path}: {result['images']}, not Kodak")
    return len(result["image_sha256"])


def moved(published: dict[str, Curve], here: Curve) -> dict[str, Curve]:
    """Published curves as they would be if other images cost every codec what they cost WebP.

    Points whose PSNR lies more than BEYOND_DB outside either WebP curve, ``here`` or published, are left out;
    so is WebP itself.
    """
    found = rates_at_equal_quality(published[SAME_SETTINGS], here)
    if found is None:
        return {}
    quality, percent = found
    return {
        f"{name}, moved to these images": [
            (rate * (1 + float(np.interp(q, quality, percent)) / 100), q)
            for rate, q in curve
            if quality[0] - BEYOND_DB <= q <= quality[-1] + BEYOND_DB
        ]
        for name, curve in published.items()
        if name != SAME_SETTINGS
    }


def points_of(curve: dict[str, Any]) -> Curve:
    """(bpp, PSNR in dB) of a curve of ``rcc bench``."""
    return list(zip(curve["results"]["bpp"], curve["results"]["psnr-rgb"], strict=True))


def gaps(curves: list[dict[str, Any]], published: dict[str, Curve]) -> list[dict[str, Any]]:
    """A record for every codec with files of its own that was trained or is this one, and published curve.

    ``bd_rate_percent``, ``bd_psnr_db``: null where the curves have hardly a quality, or rate, in common.
    """
    records = []
    for curve in (c for c in curves if c["kind"] == "rcc" or (c["kind"] == "reference" and c["sha256"])):
        points = points_of(curve)
        for name, other in published.items():
            common = common_quality(other, points)
            records.append(
                {
                    "codec": curve["name"],
                    "published": name,
                    "bd_rate_percent": bd_rate_percent(other, points),
                    "bd_psnr_db": bd_quality(other, points),
                    "psnr_range_db": None if common is None else list(common),
                }
            )
    return records


def line(gap: dict[str, Any]) -> str:
    """One gap in words."""
    pair = f"{gap['codec']} against published {gap['published']}"
    if gap["bd_rate_percent"] is None:
        return f"{pair}: no common range"
    low, high = gap["psnr_range_db"]
    quality = "" if gap["bd_psnr_db"] is None else f", BD-PSNR {gap['bd_psnr_db']:+.2f} dB"
    return f"{pair}: BD-rate {gap['bd_rate_percent']:+.1f} % from {low:.2f} to {high:.2f} dB{quality}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", default=[RESULTS / "photo_comparison.json"])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "photo_gap.json")
    args = parser.parse_args()

    began = time.perf_counter()
    published = published_curves()
    made = []
    for path in args.results:
        result = json.loads(path.read_text())
        count, curves, others = check_images(result, path), read_curves(path), dict(published)
        here = next((points_of(curve) for curve in curves if curve["name"] == "WebP"), None)
        if count != KODAK_IMAGES and here is not None:
            others |= moved(published, here)
        found = gaps(curves, others)
        made.append({"result": path.name, "images": result["images"], "gaps": found})
        print(f"{path.name}: {count} of {KODAK_IMAGES} images")
        print("\n".join(line(gap) for gap in found))
    what = "BD-rate and BD-PSNR against published means over all 24 Kodak images; negative rates: fewer bits"
    write_result(
        args.output,
        {"what": what, "published": PUBLISHED.name, "results": made, **describe_run(began)},
    )
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
