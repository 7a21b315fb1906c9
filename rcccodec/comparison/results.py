"""Results as JSON, one file a curve, in the layout that ``python -m compressai.utils.plot`` reads.

    r.json             this codec's first curve (name, description, results), and everything about the run
    r.KEY.json         each further curve: this codec's other coders, references, bounds

    python -m compressai.utils.plot -f r.json r.*.json -o curves.png

``results`` holds parallel lists, cheapest point first: ``bpp``, ``psnr-rgb``, ``encoding_time`` and
``decoding_time`` (seconds an image; 0 for bounds, which have no files) as CompressAI writes them, and
``bits_per_image``, ``payload_bits`` (of all images), ``mse``, ``distortion`` (summed squared error an image,
pixels in [0, 1]), ``divergence_bits``, ``search_bits``, ``class_bits`` and ``framing_bits`` (of models of
latents, bits an image, together the whole file), ``rd_limit_bits``, ``overhead_bits``, ``guarantee_bits``,
``ci95`` and more, null where not known.
"""

import json
from pathlib import Path
from typing import Any

from rcccodec.atomic import write_bytes
from rcccodec.comparison.measured import Curve
from rcccodec.comparison.summary import Comparison, Record, curve_results, effort_levels


def curve_json(curve: Curve, comparison: Comparison) -> Record:
    """One curve in CompressAI's layout."""
    results = curve_results(curve, comparison)
    for key in ("encoding_time", "decoding_time"):
        results[key] = [0.0 if value is None else value for value in results[key]]
    return {
        "name": curve.name,
        "description": f"{curve.description}; {comparison.images.described}",
        "kind": curve.kind,
        "sha256": curve.sha256,
        "results": results,
    }


def result_files(path: Path, comparison: Comparison, deltas: list[Record]) -> dict[Path, bytes]:
    """Every file to write and its content; the one called ``path`` comes last."""
    first, *others = comparison.curves
    beside = {curve.key: path.with_name(f"{path.stem}.{curve.key}{path.suffix}") for curve in others}
    files = {beside[curve.key]: curve_json(curve, comparison) for curve in others}
    images = comparison.images
    files[path] = {
        **curve_json(first, comparison),
        "what": "bits_per_image: "
        + ("payload bits of one file of all images" if images.archive else "whole files, one an image")
        + "; every file was decoded and its pixels compared with the original",
        "images": images.described,
        "image_notes": list(images.notes),
        "files": {key: name.name for key, name in beside.items()},
        "theory": {sha256: [x.as_json() for x in limits] for sha256, limits in comparison.limits.items()},
        "bjontegaard": deltas,
        "efforts": effort_levels(comparison),
        **comparison.run,
    }
    return {name: _text(content) for name, content in files.items()}


def write_results(path: Path, comparison: Comparison, deltas: list[Record]) -> list[Path]:
    """Write every file, each whole or not at all, the main one last; their names in that order.

    Raises:
        OutputError: one cannot be written.
    """
    files = result_files(path, comparison, deltas)
    for name, data in files.items():
        write_bytes(name, data)
    return list(files)


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
