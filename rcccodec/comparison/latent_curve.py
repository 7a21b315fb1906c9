"""A model of latents on the images: every rung, one coder, one effort, and where the bits went."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from rcccodec import codec
from rcccodec.codec import Progress
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import BitsSplit, Curve, Point, average_codebooks, measure_point
from rcccodec.comparison.rcc_files import payload_bits
from rcccodec.latent.file import choose_settings
from rcccodec.latent.model import LatentModel
from rcccodec.latent.report import LatentReport


def latent_curve(
    images: ImageSet,
    model: LatentModel,
    coder: str,
    *,
    effort: int,
    seeds: Sequence[int],
    num_candidates: int | None = None,
    device: str = "cpu",
    bar: Callable[[str], AbstractContextManager[Progress | None]] = lambda _: nullcontext(),
    done: Callable[[Curve, Point], None] = lambda _curve, _point: None,
) -> Curve:
    """Measure one coder at every rung; each point is given to ``done`` as soon as it is there.

    Args:
        effort, num_candidates: as in `rcccodec.codec.compress`; the second overrides the first.
        seeds: codebooks to average over.
        bar: a progress bar for one search, by its caption.

    Raises:
        LimitError, ModelError: the model has no such coder, effort or number of candidates.
    """
    curve = empty_curve(model, coder, effort, num_candidates)
    options = {"coder": coder, "effort": effort, "num_candidates": num_candidates, "device": device}
    points = []
    for rung in range(len(model.rungs)):
        each = []
        for seed in seeds:
            with bar(f"{curve.key} rung {rung}") as progress:
                each.append(_one(images, model, {**options, "rung": rung, "seed": seed}, progress))
        points.append(average_codebooks(each, images))
        done(curve, points[-1])
    return replace(curve, points=tuple(points))


def empty_curve(model: LatentModel, coder: str, effort: int, num_candidates: int | None) -> Curve:
    """The curve without its points; settings that the model does not have are said here.

    Raises:
        LimitError, ModelError: as `latent_curve`.
    """
    channel = choose_settings(model, coder=coder, effort=effort, num_candidates=num_candidates).channel
    log2 = channel.num_candidates.bit_length() - 1
    searched = f"2^{log2} states" if coder == "trellis" else f"2^{log2} candidates a chunk"
    level, ending = (f"effort {effort}", f"e{effort}") if num_candidates is None else (searched, f"n{log2}")
    exact = coder in ("pfr", "orc")
    how = (
        f"exact channel simulation ({coder.upper()}) as N grows"
        if exact
        else "the best of all candidates; not an exact channel simulation"
    )
    return Curve(
        f"{model.name}-{coder}-{ending}",
        f"{model.name} {coder}, {level}",
        f"this codec, latents sent by {coder} with {searched}: {how}",
        (),
        "rcc",
        exact,
        model.sha256,
        coder,
        effort if num_candidates is None else None,
    )


def _one(images: ImageSet, model: LatentModel, options: dict, progress: Progress | None) -> Point:
    made: list[codec.Encoded] = []

    def encode(job: list[np.ndarray]) -> bytes:
        made.append(codec.compress(job, model, progress=progress, **options))
        return made[-1].data

    def decode(data: bytes) -> list[np.ndarray]:
        decoded = codec.decompress(data, model)
        if not all(map(np.array_equal, decoded, made[-1].images)):
            raise AssertionError("a file does not decode to what its encoder said")
        return decoded

    rung = options["rung"]
    beta = model.rungs[rung].beta
    point = measure_point(images, f"rung {rung}", encode, decode, payload_bits=payload_bits, beta=beta)
    return replace(point, rung=rung, split=split_of([one.report for one in made], len(images.images)))


def split_of(reports: Sequence[LatentReport], num_images: int) -> BitsSplit:
    """Of all files together, bits an image."""

    def mean(name: str) -> float:
        return float(sum(getattr(report, name) for report in reports)) / num_images

    divergence = mean("divergence_bits")
    return BitsSplit(
        divergence_bits=divergence,
        search_bits=mean("dimension_bits") - divergence,
        class_bits=mean("class_bits"),
        framing_bits=mean("framing_bits"),
    )
