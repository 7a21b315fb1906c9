"""Learned transform coding on the images: a baseline of `rcccodec.baselines` at each of its slopes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point, measure_point
from rcccodec.errors import InputError

if TYPE_CHECKING:
    from rcccodec.baselines import Baseline

PARTS = 20  # of an archive, coded alone too, for the spread of rates over images
_TOGETHER = 4  # images that a block code takes at once; a part holds whole blocks
_SHIPPED = {  # (what --against says, archive) -> baselines
    ("ntc", True): ("mnist-ntc",),
    ("ntc-block", True): ("mnist-ntc-block",),
    ("ntc", False): ("photo-ntc-factorized", "photo-ntc-hyperprior"),
}
PLAIN = "-plain"  # ending of a reference: the same baseline without the search of its encoder
LEARNED = ("ntc", "ntc-block", "ntc-plain", "ntc-block-plain")


@dataclass(frozen=True)
class Learned:
    """A baseline and how its encoder searches: passes over the latents, 0 for rounding alone."""

    baseline: "Baseline"
    search_passes: int

    @property
    def name(self) -> str:
        """Name for a table, which says what the encoder does."""
        return f"{self.baseline.name}, {'searching' if self.search_passes else 'rounding'} encoder"

    @property
    def description(self) -> str:
        """One line."""
        encoder = (
            "encoder tries each rounded latent's two neighbours, in turn"
            if self.search_passes
            else "encoder rounds its latents and searches nothing"
        )
        return (
            f"learned transform coding ({self.baseline.kind}), CompressAI's entropy model and range coder; "
            f"{encoder}"
        )


def baseline_names(against: str, images: ImageSet) -> tuple[str, ...]:
    """The baselines that one of LEARNED means for these images; a folder or a name is itself.

    Raises:
        InputError: none is shipped for such images.
    """
    if against not in LEARNED:
        return (against,)
    if images.archive and images.colour:
        raise InputError(f"{against}: none is shipped for small colour images; name the folder of one")
    if against.removesuffix(PLAIN) == "ntc-block" and not images.archive:
        raise InputError(f"{against}: only for small images of one size")
    names = tuple(name for name in _SHIPPED[against.removesuffix(PLAIN), images.archive] if is_baseline(name))
    if not names:
        what = "small images" if images.archive else "photographs"
        raise InputError(f"{against}: none is shipped for {what}; name the folder of one")
    return names


def is_baseline(name: str) -> bool:
    """Whether a folder of this path, or of this name among the models, holds a baseline."""
    from rcccodec.model_search import model_folders

    places = [Path(name), *(folder / name for folder in model_folders())]
    return any(os.path.isfile(place / "baseline.json") for place in places)


def load_learned(references: Sequence[str], images: ImageSet) -> list[Learned]:
    """The baselines that these references mean, loaded, none twice.

    Raises:
        ModelError: missing or damaged. InputError: none for such images, or CompressAI is not installed.
    """
    from rcccodec.baselines import load_baseline

    loaded: dict[str, Baseline] = {}
    chosen: dict[tuple[str, int], Learned] = {}
    for reference in references:
        for name in baseline_names(reference, images):
            if name not in loaded:
                loaded[name] = load_baseline(name)
            plain = reference in LEARNED and reference.endswith(PLAIN)
            passes = 0 if plain else loaded[name].default_search_passes
            chosen[name, passes] = Learned(loaded[name], passes)
    return list(chosen.values())


def learned_curve(
    images: ImageSet,
    learned: Learned,
    done: Callable[[Curve, Point], None] = lambda _curve, _point: None,
) -> Curve:
    """Measure a baseline at all its slopes.

    An archive is one stream of all images, as this codec's is. Its rate is shared out by also coding parts of
    the images alone, equally within a part.
    """
    baseline = learned.baseline
    key = baseline.name + ("" if learned.search_passes == baseline.default_search_passes else PLAIN)
    curve = Curve(key, learned.name, learned.description, (), sha256=baseline.sha256)
    points = []
    for beta in baseline.betas:

        def encode(job: list[np.ndarray], beta: float = beta) -> bytes:
            return baseline.compress(job, beta, search_passes=learned.search_passes)

        share = None
        if images.archive and len(images.images) >= 2 * PARTS:
            share = _part_shares(images, encode, baseline.payload_bits)
        points.append(
            measure_point(
                images,
                f"beta {beta:g}",
                encode,
                baseline.decompress,
                payload_bits=baseline.payload_bits,
                share_bits=None if share is None else lambda _data, share=share: share,
                beta=beta,
            )
        )
        done(curve, points[-1])
    return replace(curve, points=tuple(points))


def _part_shares(
    images: ImageSet, encode: Callable[[list[np.ndarray]], bytes], payload_bits: Callable[[bytes], int]
) -> np.ndarray:
    """Bits of every image as its part's mean, (n,); the caller moves their sum to the whole stream's."""
    shares = []
    pictures = images.images
    blocks = [pictures[i : i + _TOGETHER] for i in range(0, len(pictures), _TOGETHER)]
    for numbers in np.array_split(np.arange(len(blocks)), min(PARTS, len(blocks))):
        part = [x for i in numbers for x in blocks[i]]
        shares.append(np.full(len(part), payload_bits(encode(part)) / len(part)))
    return np.concatenate(shares)
