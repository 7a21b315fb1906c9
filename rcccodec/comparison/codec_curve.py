"""This codec on the images: every rung, one coder, several codebooks."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from rcccodec import codec
from rcccodec.bundle import Model
from rcccodec.codec import Encoded, Progress
from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point, average_codebooks, measure_point
from rcccodec.comparison.rcc_files import blocks_per_index, image_bits, payload_bits
from rcccodec.settings import choose_settings


def codec_curve(
    images: ImageSet,
    model: Model,
    coder: str,
    *,
    seeds: Sequence[int],
    index_code: str | None = None,
    num_candidates: int | None = None,
    device: str = "cpu",
    bar: Callable[[str], AbstractContextManager[Progress | None]] = lambda _: nullcontext(),
    done: Callable[[Curve, Point], None] = lambda _curve, _point: None,
) -> Curve:
    """Measure one coder at every rung; each point is given to ``done`` as soon as it is there.

    Where the index code is "prior", only the codebook that the model ships it for is used.

    Args:
        seeds: codebooks to average over.
        bar: a progress bar for one search, by its caption.
        others: as in `rcccodec.codec.compress`.

    Raises:
        ModelError: the model has no such index code.
    """
    key = f"{model.name}-{coder}"
    curve = Curve(
        key, f"{model.name} {coder}", _description(coder), (), "rcc", coder != "mincost", model.sha256
    )
    settings: dict = {"coder": coder, "index_code": index_code, "num_candidates": num_candidates}
    points = []
    for rung in range(len(model.rungs)):
        chosen = choose_settings(model, rung=rung, seed=model.default_seed, **settings)
        chosen.codes()  # a missing code is said before the search
        used = [model.default_seed] if chosen.index_code == "prior" else list(seeds)
        options = {**settings, "rung": rung, "index_code": chosen.index_code, "device": device}
        each = []
        for seed in used:
            with bar(f"{key} rung {rung}") as progress:
                each.append(_one(images, model, {**options, "seed": seed}, progress))
        points.append(replace(average_codebooks(each, images), index_code=chosen.index_code))
        done(curve, points[-1])
    codes = "/".join(dict.fromkeys(str(point.index_code) for point in points))
    codes += ", shared" * any(size > 1 for point in points for size in point.blocks_per_index)
    return replace(curve, name=f"{curve.name} ({codes})", points=tuple(points))


def _one(images: ImageSet, model: Model, options: dict, progress: Progress | None) -> Point:
    made: list[Encoded] = []

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
    point = measure_point(
        images,
        f"rung {rung}",
        encode,
        decode,
        payload_bits=payload_bits,
        share_bits=lambda data: image_bits(data, model),
        beta=beta,
    )
    certified = [one.report.certified_fraction for one in made if one.report.certified_fraction is not None]
    return replace(
        point,
        rung=rung,
        certified=float(np.mean(certified)) if certified else None,
        blocks_per_index=tuple(blocks_per_index(made[-1].data, model)),
    )


def _description(coder: str) -> str:
    if coder == "mincost":
        return "this codec, cheapest candidate; not an exact channel simulation"
    return f"this codec, exact channel simulation ({coder.upper()}) as N grows"
