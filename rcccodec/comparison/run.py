"""One comparison from start to end: this codec, the references that were asked for, theory."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from rcccodec.bundle import AnyModel, Model, list_models, load_model, read_card
from rcccodec.codec import Progress
from rcccodec.comparison import ecsq, pillow_codecs, table
from rcccodec.comparison.ba_curves import ba_curves
from rcccodec.comparison.codec_curve import codec_curve
from rcccodec.comparison.ideal_channel import ideal_curve
from rcccodec.comparison.image_set import EMBEDDED, ImageSet
from rcccodec.comparison.latent_curve import empty_curve, latent_curve
from rcccodec.comparison.learned import LEARNED, Learned, is_baseline, learned_curve, load_learned
from rcccodec.comparison.measured import Curve, Point, measure_point
from rcccodec.comparison.provenance import describe_run, image_hashes
from rcccodec.comparison.summary import Comparison
from rcccodec.comparison.theory import Limit, model_limits
from rcccodec.errors import InputError, LimitError, ModelError
from rcccodec.latent.file import DEFAULT_CODER, DEFAULT_EFFORT
from rcccodec.latent.model import LatentModel

CODERS = ("mincost", "pfr", "orc")
LATENT_CODERS = (DEFAULT_CODER, *CODERS)
PHOTO = "photo"  # the shipped model of latents
REFERENCES = (*LEARNED, "jpeg", "webp", "ecsq", "ba")
ECSQ_SLOPES, ECSQ_TRAINING_IMAGES, ECSQ_PHOTOGRAPHS = 10, 5000, 40
ECSQ_REACH = {True: (1.5, 3.0), False: (0.3, 0.7)}  # of the ladder's ends, small images and photographs
ECSQ_BLOCK = (8, 8)  # of photographs

Say = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class Plan:
    """What to run: checked and loaded before any long work.

    against: names of REFERENCES that fit the images. baselines: learned ones, loaded. coders: none for
    those that `coders_of` takes. efforts: of models of latents.
    """

    images: ImageSet
    models: tuple[AnyModel, ...]
    against: tuple[str, ...]
    baselines: tuple[Learned, ...]
    coders: tuple[str, ...]
    efforts: tuple[int, ...]
    index_code: str | None
    num_candidates: int | None
    num_seeds: int
    device: str

    def coders_of(self, model: AnyModel) -> tuple[str, ...]:
        """Those asked for that the model has; else its default, or all of CODERS for small images."""
        if isinstance(model, LatentModel):
            return self.coders or (DEFAULT_CODER,)
        if self.coders:
            return tuple(coder for coder in self.coders if coder in CODERS)
        return CODERS[: 1 if not self.images.archive else 2 if self.images.name == EMBEDDED else 3]

    def seeds(self, model: AnyModel) -> list[int]:
        """Codebooks to average over, the model's own first."""
        return [model.default_seed + i for i in range(self.num_seeds)]


def make_plan(
    images: ImageSet,
    models: Sequence[str],
    against: Sequence[str],
    *,
    coders: Sequence[str] = (),
    efforts: Sequence[int] = (),
    index_code: str | None,
    num_candidates: int | None,
    num_seeds: int,
    device: str,
    remark: Say,
) -> Plan:
    """Load models and baselines; references that do not fit the images are left out with a remark.

    Raises:
        ModelError: an unknown or damaged model or baseline, a coder that a model does not have. InputError:
        an extra is missing. LimitError: an option that no model has, or out of range.
    """
    wanted = list(dict.fromkeys(against or (("ecsq",) if images.archive else ("jpeg", "webp"))))
    for name in wanted:
        if name not in REFERENCES and not is_baseline(name):
            known = ", ".join(REFERENCES)
            raise ModelError(
                f"{name}: no such reference; choose from {known}, or name the folder of a trained baseline"
            )
    fitting, references = [], []
    for name in wanted:
        if reason := _unfit(name, images):
            remark(f"left out: {reason}")
        elif name in LEARNED or name not in REFERENCES:
            references.append(name)
        else:
            fitting.append(name)
    baselines = load_learned(references, images) if references else []
    for learned in baselines:  # one that does not code such images says so now
        learned.baseline.compress(images.images[:1], learned.baseline.betas[0])
    loaded = [load_model(name) for name in dict.fromkeys(models or _default_models(images))]
    for model in loaded:
        if model.channels == 1 and images.colour:
            raise InputError(f"{images.name}: colour images, but model {model.name} is grey; name others")
    if efforts and num_candidates and any(isinstance(model, LatentModel) for model in loaded):
        raise LimitError("efforts and a number of candidates: say one of them")
    plan = Plan(
        images, tuple(loaded), tuple(fitting), tuple(baselines), tuple(dict.fromkeys(coders)),
        tuple(sorted(set(efforts))) or (DEFAULT_EFFORT,), index_code, num_candidates, num_seeds, device,
    )  # fmt: skip
    for model in loaded:
        _check(plan, model, bool(efforts))
    return plan


def _check(plan: Plan, model: AnyModel, efforts_asked: bool) -> None:
    if not plan.coders_of(model):
        raise ModelError(f"model {model.name} has no coder {plan.coders[0]}")
    if isinstance(model, LatentModel):
        if plan.index_code is not None:
            raise LimitError(f"index code: nothing to choose for model {model.name}")
        for coder in plan.coders_of(model):
            for effort in plan.efforts:
                empty_curve(model, coder, effort, plan.num_candidates)
    elif efforts_asked and not any(isinstance(other, LatentModel) for other in plan.models):
        raise LimitError(f"effort: model {model.name} has none; say how many candidates")


def compare(plan: Plan, say: Say, bar: Bar) -> Comparison:
    """Measure everything; each line of the table is said as soon as it is known.

    Args:
        bar: a progress bar for one search, by its caption.
    """
    began = time.perf_counter()
    images = plan.images
    say(table.header(images))

    def done(curve: Curve, point: Point) -> None:
        say(table.point_line(curve, point, images))

    curves = [
        curve for model in plan.models for coder in plan.coders_of(model)
        for curve in _own_curves(plan, model, coder, bar, done)
    ]  # fmt: skip
    curves += [learned_curve(images, learned, done) for learned in plan.baselines]
    betas = [rung.beta for model in plan.models for rung in model.rungs]
    for name in plan.against:
        if name in pillow_codecs.QUALITIES:
            curves.append(pillow_codecs.pillow_curve(images, name, done))
        elif name == "ecsq":
            curves.append(_ecsq_curve(images, betas, done))
        else:
            curves += ba_curves(images, sorted(set(betas)), done)
    curves += [ideal_curve(images, model, done) for model in plan.models if isinstance(model, LatentModel)]
    limits: dict[str, list[Limit]] = {}
    for model in (m for m in plan.models if isinstance(m, Model)):  # of latents each file says its divergence
        limits[model.sha256] = model_limits(
            images, model, seeds=plan.seeds(model), num_candidates=plan.num_candidates, device=plan.device,
            done=lambda limit, name=model.name: say(table.limit_line(name, limit)),
        )  # fmt: skip
    return Comparison(images, tuple(with_own_keys(curves)), limits, _run(plan, began))


def _own_curves(
    plan: Plan, model: AnyModel, coder: str, bar: Bar, done: Callable[[Curve, Point], None]
) -> list[Curve]:
    """One curve, or one an effort."""
    common: dict[str, Any] = {
        "seeds": plan.seeds(model), "num_candidates": plan.num_candidates, "device": plan.device, "bar": bar,
        "done": done,
    }  # fmt: skip
    if isinstance(model, LatentModel):
        efforts = plan.efforts if plan.num_candidates is None else plan.efforts[:1]
        return [latent_curve(plan.images, model, coder, effort=effort, **common) for effort in efforts]
    return [codec_curve(plan.images, model, coder, index_code=plan.index_code, **common)]


def with_own_keys(curves: Sequence[Curve]) -> list[Curve]:
    """The same curves, their keys fit for file names and no two alike."""
    kept: list[Curve] = []
    for curve in curves:
        plain = re.sub(r"[^\w-]+", "-", curve.key)
        taken = {other.key for other in kept}
        keys = (plain, *(f"{plain}-{i}" for i in range(2, len(curves) + 2)))
        kept.append(replace(curve, key=next(key for key in keys if key not in taken)))
    return kept


def _ecsq_curve(images: ImageSet, betas: Sequence[float], done: Callable[[Curve, Point], None]) -> Curve:
    count = ECSQ_TRAINING_IMAGES if images.archive else ECSQ_PHOTOGRAPHS
    training = images.training(count)
    block = images.images[0].shape[:2] if images.archive else ECSQ_BLOCK
    transform = ecsq.fit_transform(training, block, 3 if images.colour else 1)
    how = f"KLT of {block[1]}x{block[0]} blocks, entropy-constrained scalar quantiser, range coder"
    curve = Curve("ecsq", "KLT + ECSQ", f"{how}; fitted to {len(training)} images of {images.fitted_on}", ())
    points = []
    low, high = ECSQ_REACH[images.archive]
    for beta in np.geomspace(low * min(betas), high * max(betas), ECSQ_SLOPES):
        codec = ecsq.fit_ecsq(training, transform, float(beta))
        points.append(
            measure_point(
                images, f"beta {beta:.3g}", codec.compress, codec.decompress, payload_bits=ecsq.payload_bits,
                share_bits=codec.image_bits, beta=float(beta),
            )
        )  # fmt: skip
        done(curve, points[-1])
    return Curve(curve.key, curve.name, curve.description, tuple(points))


def _unfit(name: str, images: ImageSet) -> str | None:
    """Why a reference does not apply to such images."""
    if name in pillow_codecs.QUALITIES and images.shortest_side < pillow_codecs.LEAST_SIDE:
        return f"{name}: only for images of at least {pillow_codecs.LEAST_SIDE} pixels a side"
    if name in ("ba", "ntc-block", "ntc-block-plain") and not images.archive:
        return f"{name}: only for small images of one size"
    if name == "ntc-plain" and not images.archive:
        return f"{name}: ntc searches nothing for photographs as it is"
    if name in LEARNED and images.archive and images.colour:
        return f"{name}: none is shipped for small colour images; name the folder of one"
    return None


def _default_models(images: ImageSet) -> list[str]:
    """A model trained on this very source, else the shipped one; of photographs rather one of latents."""
    cards = {name: read_card(name) for name in list_models()}
    own = [name for name, card in cards.items() if card.get("source") == images.name]
    if not images.archive:
        own.sort(key=lambda name: cards[name].get("kind") != "latent")
    if own:
        return own[:1]
    if images.archive:
        return ["photo-pixels" if images.colour else "mnist"]
    return [PHOTO if cards.get(PHOTO, {}).get("kind") == "latent" else "photo-pixels"]


def _run(plan: Plan, began: float) -> dict[str, Any]:
    extra = {}
    for name in ("compressai", "scipy", "matplotlib"):
        try:
            extra[name] = version(name)
        except PackageNotFoundError:
            extra[name] = None
    made = describe_run(began, plan.device)
    return {
        **made,
        "versions": made["versions"] | extra,
        "models": {model.name: model.sha256 for model in plan.models},
        "baselines": {learned.baseline.name: learned.baseline.sha256 for learned in plan.baselines},
        "num_candidates": {
            model.name: plan.num_candidates
            or (model.default_num_candidates if isinstance(model, Model) else None)
            for model in plan.models
        },
        "codebook_seeds": {model.name: plan.seeds(model) for model in plan.models},
        "codebooks": "all images of a file share one codebook and its arrival times, so its luck is not in "
        "the intervals over images; index code prior has the one codebook that the model ships it for",
        **image_hashes(plan.images.images),
    }
