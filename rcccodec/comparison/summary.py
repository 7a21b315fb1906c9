"""From curves to numbers: a record for every point, and Bjontegaard deltas with intervals over images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from rcccodec.comparison.bjontegaard import bd_quality, bd_rate_percent, common_quality
from rcccodec.comparison.bootstrap import interval95, interval_of, resampled_shares
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import BitsSplit, Curve, Point, axis_bits, mean_psnr_db
from rcccodec.comparison.theory import Limit, limit_at

BD_RESAMPLES = 300
_SPLIT = [field.name for field in fields(BitsSplit)]
Record = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured on one set of images; this codec's curves come first."""

    images: ImageSet
    curves: tuple[Curve, ...]
    limits: dict[str, list[Limit]]  # by the SHA-256 of the model
    run: Record

    def limits_of(self, curve: Curve) -> list[Limit]:
        """The curve's own model's, else the first model's that was measured on these images."""
        if curve.sha256 in self.limits:
            return self.limits[curve.sha256]
        measured = [x for x in self.limits.values() if x and x[0].on_these_images]
        return measured[0] if measured else []


def point_record(point: Point, images: ImageSet, limits: Sequence[Limit], exact: bool) -> Record:
    """The documented values of one point; per-image values have become means and 95 % intervals.

    ``overhead_bits`` is ``bits_per_image`` less ``rd_limit_bits``. Exact coders have ``guarantee_bits``.
    """
    bits, error = axis_bits(point, images), point.squared_error
    shares = resampled_shares(len(bits))
    distortion, mean_bits = float(error.mean()), float(bits.mean())
    own = [x for x in limits if x.rung == point.rung] if point.rung is not None else []
    limit = limit_at(point, distortion, limits)
    return {
        "setting": point.setting,
        "beta": point.beta,
        "bpp": mean_bits / float(images.pixels.mean()) if images.archive else _mean_bpp(bits, images),
        "psnr-rgb": float(mean_psnr_db(point, images)),
        "ms-ssim-rgb": None if point.ms_ssim is None else float(point.ms_ssim.mean()),
        "encoding_time": point.encode_s,
        "decoding_time": point.decode_s,
        "bits_per_image": mean_bits,
        "file_bits_per_image": float(point.file_bits.mean()),
        "payload_bits": float(point.payload_bits.sum()),
        "mse": float(error.sum() / point.samples.sum()),
        "distortion": distortion,
        "rd_limit_bits": limit,
        "overhead_bits": None if limit is None else mean_bits - limit,
        "guarantee_bits": own[0].guarantee_bits if own and exact else None,
        "sharper_bound_bits": own[0].sharper_bits if own else None,
        "floor_bits": own[0].floor_bits if own and exact else None,
        "margin_bits": own[0].margin_bits if own else None,
        "saturated": own[0].saturated if own else None,
        "certified_fraction": point.certified,
        "index_code": point.index_code,
        "blocks_per_index": list(point.blocks_per_index) or None,
        **(asdict(point.split) if point.split else dict.fromkeys(_SPLIT)),
        "codebooks": len(point.codebooks) or None,
        "codebook_bits_and_distortion": [list(pair) for pair in point.codebooks] or None,
        "ci95": {
            "bits_per_image": interval_of(shares, lambda w: w @ bits),
            "distortion": interval_of(shares, lambda w: w @ error),
            "psnr-rgb": interval_of(shares, lambda w: mean_psnr_db(point, images, w)),
        },
    }


def curve_results(curve: Curve, comparison: Comparison) -> dict[str, list[Any]]:
    """The records of a curve as parallel lists, cheapest point first, as CompressAI stores results."""
    limits = comparison.limits_of(curve)
    records = [point_record(p, comparison.images, limits, curve.exact) for p in curve.points]
    records.sort(key=lambda record: record["bits_per_image"])
    kept = [k for k in records[0] if k != "ms-ssim-rgb" or records[0][k] is not None] if records else []
    return {key: [record[key] for record in records] for key in kept}


def bjontegaard_deltas(comparison: Comparison) -> list[Record]:
    """Every curve of this codec against every reference: BD-rate and BD-PSNR with 95 % intervals."""
    images = comparison.images
    shares = resampled_shares(len(images.images), BD_RESAMPLES)
    codecs = [curve for curve in comparison.curves if curve.kind != "bound"]
    drawn = {curve.key: _rate_and_psnr(curve, images, shares) for curve in codecs}
    deltas = []
    for mine in (c for c in codecs if c.kind == "rcc"):
        for other in (c for c in codecs if c.kind == "reference"):
            (rate, quality), *again = (
                (bd_rate_percent(a, b), bd_quality(a, b))
                for a, b in zip(drawn[other.key], drawn[mine.key], strict=True)
            )
            common = common_quality(drawn[other.key][0], drawn[mine.key][0])
            deltas.append(
                {
                    "codec": mine.key,
                    "reference": other.key,
                    "psnr_range_db": None if common is None else list(common),
                    "bd_rate_percent": rate,
                    "bd_rate_ci95": _interval([r for r, _ in again]),
                    "bd_psnr_db": quality,
                    "bd_psnr_ci95": _interval([q for _, q in again]),
                }
            )
    return deltas


def effort_levels(comparison: Comparison) -> list[Record]:
    """What every effort of a model of latents costs and gains: a record a curve, means over its points.

    ``search_percent``: `BitsSplit.search_bits` in percent of the divergence, all points together.
    ``bd_rate_percent``: against the curve of the least effort of the same model and coder.
    ``over_ideal_percent``: BD-rate against the model's ideal channel.
    """
    levels = []
    for curve in (c for c in comparison.curves if c.effort is not None and c.points):
        same = [c for c in comparison.curves if (c.sha256, c.coder) == (curve.sha256, curve.coder)]
        least = min((c for c in same if c.effort is not None), key=lambda c: c.effort or 0)
        pair = [_rate_and_psnr(c, comparison.images, None)[0] for c in (least, curve)]
        ideal = [c for c in comparison.curves if c.kind == "bound" and c.sha256 == curve.sha256]
        bound = _rate_and_psnr(ideal[0], comparison.images, None)[0] if ideal else None
        splits = [point.split for point in curve.points if point.split]
        divergence = sum(split.divergence_bits for split in splits)
        levels.append(
            {
                "codec": curve.key,
                "effort": curve.effort,
                "encoding_time": _mean([point.encode_s for point in curve.points]),
                "decoding_time": _mean([point.decode_s for point in curve.points]),
                "search_percent": 100 * sum(s.search_bits for s in splits) / divergence
                if divergence
                else None,
                "over_ideal_percent": None if bound is None else bd_rate_percent(bound, pair[1]),
                "least_effort": least.key,
                "bd_rate_percent": None if curve is least else bd_rate_percent(*pair),
            }
        )
    return levels


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rate_and_psnr(
    curve: Curve, images: ImageSet, shares: np.ndarray | None
) -> list[list[tuple[float, float]]]:
    """The curve on all images, then on every resample."""
    n = len(images.images)
    rows = np.full((1, n), 1 / n)
    rows = rows if shares is None else np.concatenate([rows, shares])
    rates = np.stack([rows @ axis_bits(p, images) for p in curve.points], axis=1)
    quality = np.stack([mean_psnr_db(p, images, rows) for p in curve.points], axis=1)
    return [list(zip(r.tolist(), q.tolist(), strict=True)) for r, q in zip(rates, quality, strict=True)]


def _interval(values: list[float | None]) -> list[float] | None:
    known = np.array([v for v in values if v is not None])
    return interval95(known) if len(known) > len(values) // 2 else None


def _mean_bpp(bits: np.ndarray, images: ImageSet) -> float:
    return float((bits / images.pixels).mean())
