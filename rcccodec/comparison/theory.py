"""What theory says of a model on these images: R(D), what exact coding is known to cost, what it must cost.

A model of one stage whose block is the image is measured on the images themselves, by NERD; its points are an
upper bound on their R(D). A model of several stages codes residuals of its own choices; its rates are the
bundle's held-out estimates, summed over the blocks of an image, and say nothing about R(D) of photographs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from rcccodec.bundle import Model, Rung
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Point
from rcccodec.images import to_channels
from rcccodec.layout import Layout, tile_size
from rcccodec.rd.bounds import estimate_floor_excess, sharper_bound_bits
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.report import SATURATION_BITS, guarantee_bits

FLOOR_IMAGES = 200  # the floor's excess varies little from image to image


@dataclass(frozen=True)
class Limit:
    """One rung in theory; bits and distortion are of an image, mean over the images.

    rate_bits: R. floor_bits: channel-simulation divergence, None if not estimated. sharper_bits and
    guarantee_bits: what some exact code, and PFR with its Zipf code, cost at most, expected over seeds. All
    three are of one block an index; blocks that share one may cost less.
    margin_bits: least log2 N - R of a search. on_these_images: or held-out figures of the bundle.
    """

    rung: int
    beta: float
    rate_bits: float
    rate_se_bits: float | None
    distortion: float | None
    distortion_se: float | None
    floor_bits: float | None
    sharper_bits: float
    guarantee_bits: float
    num_candidates: int
    margin_bits: float
    saturated: bool
    on_these_images: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def model_limits(
    images: ImageSet,
    model: Model,
    *,
    seeds: Sequence[int],
    num_candidates: int | None = None,
    device: str = "cpu",
    done: Callable[[Limit], None] = lambda _: None,
) -> list[Limit]:
    """A Limit for every rung; seeds are the codebooks that NERD averages over."""
    n = num_candidates or model.default_num_candidates
    limits = []
    for number, rung in enumerate(model.rungs):
        single = (
            len(rung.stages) == 1 and images.archive and rung.stages[0].block == images.images[0].shape[:2]
        )
        limit = (
            _measured(images, model, number, seeds, n, device)
            if single
            else _held_out(images, model, number, n)
        )
        limits.append(limit)
        done(limit)
    return limits


def limit_at(point: Point, distortion: float, limits: Sequence[Limit]) -> float | None:
    """R(D) in bits an image, to hold a point of this distortion against.

    A rung of the model itself is held against the tangent of its own limit, which lies below the curve,
    anything else against the chord between two limits, which lies above: both err against this codec. None
    outside the limits, or where they are not of these images.
    """
    known = sorted(
        (limit.distortion, limit.rate_bits) for limit in limits if limit.on_these_images and limit.distortion
    )
    if not known:
        own = [x for x in limits if x.rung == point.rung and not x.on_these_images]
        return own[0].rate_bits if own else None
    if point.rung is not None:
        own = next(limit for limit in limits if limit.rung == point.rung)
        return own.rate_bits + own.beta * (own.distortion - distortion) / math.log(2)
    ds, rates = zip(*known, strict=True)
    return float(np.interp(distortion, ds, rates)) if ds[0] <= distortion <= ds[-1] else None


def _measured(
    images: ImageSet, model: Model, number: int, seeds: Sequence[int], num_candidates: int, device: str
) -> Limit:
    rung = model.rungs[number]
    stage = rung.stages[0]
    proposal = stage.proposal(device)
    planes = [to_channels(image, model.channels)[0] for image in images.images]
    x = torch.from_numpy(np.stack(planes).reshape(len(planes), -1).astype(np.float32) / 255)
    point = estimate_nerd(
        x, proposal, beta=stage.beta, num_candidates=num_candidates, seeds=tuple(seeds), device=device
    )
    few = proposal.analyse(x[:FLOOR_IMAGES].to(device))
    excess = estimate_floor_excess(
        few, proposal, beta=stage.beta, num_candidates=num_candidates, seed=seeds[0], device=device
    )
    return _limit(
        number, rung, [(1, point.rate_bits)], num_candidates, measured=True,
        rate_se=_finite(point.rate_se_bits), distortion=point.distortion,
        distortion_se=_finite(point.distortion_se), floor_excess=float(excess.mean()),
    )  # fmt: skip


def _held_out(images: ImageSet, model: Model, number: int, num_candidates: int) -> Limit:
    rung = model.rungs[number]
    tile = tile_size([stage.block for stage in rung.stages])
    layouts = [Layout(1, x.shape[0], x.shape[1], x.ndim == 3, tile) for x in images.images]
    counts = [
        (sum(layout.num_blocks(stage.block) for layout in layouts) / len(layouts), stage.rate_bits)
        for stage in rung.stages
    ]
    return _limit(number, rung, counts, num_candidates, measured=False)


def _limit(
    number: int,
    rung: Rung,
    counts: list[tuple[float, float]],
    num_candidates: int,
    *,
    measured: bool,
    rate_se: float | None = None,
    distortion: float | None = None,
    distortion_se: float | None = None,
    floor_excess: float | None = None,
) -> Limit:
    """From (blocks an image, R of a block) of every stage."""
    rate = math.fsum(blocks * bits for blocks, bits in counts)
    margin = math.log2(num_candidates) - max(bits for _, bits in counts)
    return Limit(
        rung=number,
        beta=rung.beta,
        rate_bits=rate,
        rate_se_bits=rate_se,
        distortion=distortion,
        distortion_se=distortion_se,
        floor_bits=None if floor_excess is None else rate + floor_excess,
        sharper_bits=math.fsum(blocks * sharper_bound_bits(bits) for blocks, bits in counts),
        guarantee_bits=math.fsum(blocks * guarantee_bits(bits) for blocks, bits in counts),
        num_candidates=num_candidates,
        margin_bits=margin,
        saturated=margin < SATURATION_BITS,
        on_these_images=measured,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
