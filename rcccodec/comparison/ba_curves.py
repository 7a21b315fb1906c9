"""Blahut-Arimoto with training samples as candidates (Y = X): a bound without a decoder.

In-sample it is the R(D) of those samples, at most log2 n bits and lower than that of their law. On the test
images, under the law it found, it is an upper bound like NERD's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point
from rcccodec.distortion import squared_error
from rcccodec.errors import InputError
from rcccodec.rd.blahut_arimoto import blahut_arimoto, evaluate_law

SAMPLES = 5000
TOLERANCE_BITS, MAX_ROUNDS = 0.02, 200


def ba_curves(
    images: ImageSet,
    betas: Sequence[float],
    done: Callable[[Curve, Point], None] = lambda _curve, _point: None,
    *,
    samples: int = SAMPLES,
) -> list[Curve]:
    """The in-sample curve and the one of the test images.

    Raises:
        InputError: photographs, of which there are no samples of one size.
    """
    if not images.archive:
        raise InputError("ba: only for small images of one size")
    training = images.training(samples)
    y, x = _rows(training), _rows(images.images)
    among, across = squared_error(y, y), squared_error(x, y)
    among.fill_diagonal_(0)
    limit = f"at most log2 {len(y)} = {math.log2(len(y)):.2f} bits"
    inside = Curve(
        "ba-train",
        f"BA on {len(y)} training images",
        f"Y = X, in-sample: R(D) of the samples, {limit}",
        (),
        "bound",
    )
    outside = Curve(
        "ba",
        "BA law on these images",
        f"Y = training samples, on these images: upper bound, {limit}",
        (),
        "bound",
    )
    found: dict[str, list[Point]] = {inside.key: [], outside.key: []}
    start = None
    for beta in sorted(betas):
        point = blahut_arimoto(among, beta, tolerance_bits=TOLERANCE_BITS, max_rounds=MAX_ROUNDS, start=start)
        start = torch.logaddexp(point.log_mass, torch.tensor(-10.0 - math.log(len(y)), dtype=torch.float64))
        for curve, distances in ((inside, among), (outside, across)):
            rate, distortion = evaluate_law(distances, point.log_mass, beta)
            made = _point(beta, rate.numpy(), distortion.numpy(), images.images[0].size)
            note = "" if point.settled else f", gap {point.gap_bits:.2f} bits"
            found[curve.key].append(replace(made, setting=made.setting + note))
            done(curve, found[curve.key][-1])
    return [replace(curve, points=tuple(found[curve.key])) for curve in (inside, outside)]


def _point(beta: float, rate_bits: np.ndarray, distortion: np.ndarray, samples: int) -> Point:
    return Point(
        f"beta {beta:g}", rate_bits, rate_bits, distortion, np.full(len(rate_bits), float(samples)),
        None, None, beta=beta,
    )  # fmt: skip


def _rows(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).reshape(len(images), -1).astype(np.float32) / 255)
