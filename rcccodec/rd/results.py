"""The JSON that ``rcc rd`` writes after every point, and goes on from.

    {"source", "distortion", "seed", "train", "test", "dim", "data" (a digest), "unit",
     "zero_rate_distortion", "zero_rate_distortion_se",
     "methods": {"nerd": {"settings": {...}, "betas": [done], "points": [RatePoint, ...],
                          "run": {commit, versions, device, threads, ...}}, ...},
     "envelope": {"upper": [[D, R], ...], "lower": [[lagrangian_bits, beta], ...]},
     "codecs": {NAME: [gap, ...]}, commit, versions, ...}

It also reads codecs' results, in the layout of ``rcc bench --json``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rcccodec.atomic import write_bytes
from rcccodec.errors import InputError, OutputError
from rcccodec.rd.envelope import Envelope, Gap, gaps
from rcccodec.rd.point import RatePoint


@dataclass
class MethodResult:
    """Points of one method, the slopes that are done, and what the last of them was made with."""

    settings: dict[str, Any]
    betas: list[float] = field(default_factory=list)
    points: list[RatePoint] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Codec:
    """A codec's points: (bits, distortion) a source vector; and what images, as its file describes them."""

    name: str
    points: tuple[tuple[float, float], ...]
    images: str | None = None


Methods = dict[str, MethodResult]


def read_results(path: Path, request: Mapping[str, Any]) -> Methods:
    """The methods in ``path``, made for the same source, sizes and seed; none if there is no such file.

    Args:
        request: what must agree: source, distortion, seed, train, test.

    Raises:
        OutputError: the file holds something else, which a run would overwrite.
    """
    if not os.path.exists(path):
        return {}
    if not os.path.isfile(path):
        raise OutputError(f"{path}: not a regular file")
    refusal = "; name another file, or start over with --fresh"
    try:
        content = json.loads(path.read_bytes())
        found = {
            name: MethodResult(
                entry["settings"],
                [float(beta) for beta in entry["betas"]],
                [RatePoint.from_json(point) for point in entry["points"]],
                dict(entry["run"]),
            )
            for name, entry in content["methods"].items()
        }
        for result in found.values():
            _check_points(result)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        raise OutputError(f"{path}: exists and is no result of rcc rd{refusal}") from error
    for key, value in request.items():
        if content.get(key) != value:
            raise OutputError(f"{path}: its {key} is {content.get(key)!r}, not {value!r}{refusal}")
    return found


def write_results(path: Path, request: Mapping[str, Any], methods: Methods, more: Mapping[str, Any]) -> None:
    """Replace ``path``, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        **request,
        "unit": "bits a source vector; beta in nats per unit of distortion, summed over a vector",
        "methods": {
            name: {
                "settings": result.settings,
                "betas": sorted(result.betas),
                "points": [point.as_json() for point in result.points],
                "run": result.run,
            }
            for name, result in methods.items()
        },
        **more,
    }
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def envelope_json(bounds: Envelope) -> dict[str, Any]:
    """The bounds as plain lists; every upper corner with its allowance for errors."""
    return {"upper": [list(c) for c in bounds.corners], "lower": [list(line) for line in bounds.lines]}


def gap_json(gap: Gap) -> dict[str, Any]:
    """A gap with its differences."""
    return asdict(gap) | {
        "above_upper_bits": gap.above_upper_bits,
        "above_lower_bits": gap.above_lower_bits,
    }


def codec_gaps(codecs: Sequence[Codec], bounds: Envelope) -> dict[str, Any]:
    """Each codec's gaps by its name."""
    return {codec.name: [gap_json(gap) for gap in gaps(codec.points, bounds)] for codec in codecs}


def read_codec(path: Path) -> Codec:
    """A codec's rates and distortions from a result of ``rcc bench --json``.

    Only ``name`` and, in ``results``, the parallel lists ``bits_per_image`` and ``distortion`` are read.

    Raises:
        InputError: missing, not such a file, or numbers that are negative or not finite.
    """
    try:
        content = json.loads(path.read_bytes())
        results = content["results"]
        rates, distortions = results["bits_per_image"], results["distortion"]
        if not (isinstance(rates, list) and isinstance(distortions, list)):
            raise TypeError("no lists")
        points = [(float(r), float(d)) for r, d in zip(rates, distortions, strict=True)]
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(
            f"{path}: no codec's results: expected lists results.bits_per_image and results.distortion, "
            "as rcc bench --json writes them"
        ) from error
    if not points or not all(0 <= value < math.inf for point in points for value in point):
        raise InputError(f"{path}: a codec's bits and distortions must be finite and not negative")
    images = content.get("images")
    return Codec(
        str(content.get("name", path.stem)), tuple(points), images if isinstance(images, str) else None
    )


def check_codec(codec: Codec, source: str) -> None:
    """Refuse results that say they are of other images.

    Raises:
        InputError: the file names its images, and the source is not among them.
    """
    if codec.images is not None and Path(source).name not in codec.images:
        raise InputError(f"--codec: {codec.name} was measured on {codec.images}, not on {source}")


def _check_points(result: MethodResult) -> None:
    """Refuse points whose fields are not of their kinds.

    Raises:
        TypeError: one is not.
    """
    for point in result.points:
        for name, value in vars(point).items():
            if name in ("method", "kind"):
                right = isinstance(value, str)
            elif name == "details":
                right = all(isinstance(x, int | float) for x in value.values())
            else:
                right = isinstance(value, int | float)
            if not right:
                raise TypeError(name)
        if point.kind not in ("exact", "upper", "lower", "estimate"):
            raise TypeError("kind")
    if result.betas and not result.points:
        raise TypeError("no points")


def all_points(methods: Methods) -> Sequence[RatePoint]:
    """Every point of every method."""
    return [point for result in methods.values() for point in result.points]
