"""Images to ``.rcc`` bytes; with `rcccodec.decoder`, its way back, what joins the rooms.

    image -> tiles -> blocks -> stage 0: best candidate y0 -> index             \
                      residual x - y0 -> stage 1: best candidate y1 -> index     > index code -> container
                                         ...                                    /

Where N allows it several blocks share an index (`rcccodec.joint`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rcccodec import container
from rcccodec.bundle import AnyModel, load_model
from rcccodec.container import MAX_SIDE, MODES, Group
from rcccodec.decoder import (
    MAX_PIXELS,
    decompress,
    decompress_intact,
    decompress_prefix,
    draw_samples,
    reconstruct,
)
from rcccodec.errors import InputError, LimitError
from rcccodec.images import to_channels
from rcccodec.index_code import IndexCode, encode_segments
from rcccodec.joint import split_count, to_indices
from rcccodec.latent import file as latent_file
from rcccodec.latent.model import LatentModel
from rcccodec.latent.report import LatentReport
from rcccodec.layout import group_images
from rcccodec.report import Report, measure
from rcccodec.settings import Settings, choose_settings
from rcccodec.stages import Progress, Search, choose

__all__ = [
    "MAX_PIXELS", "Encoded", "check_images", "compress", "compress_latents", "decompress",
    "decompress_intact", "decompress_prefix", "draw_samples",
]  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A compressed file, the images it decodes to, its report, and notes on what was not kept."""

    data: bytes
    images: list[np.ndarray]
    report: Report | LatentReport
    notes: list[str]


def compress(
    images: np.ndarray | Sequence[np.ndarray],
    model: str | AnyModel = "photo",
    *,
    rung: int | None = None,
    coder: str | None = None,
    effort: int | None = None,
    index_code: str | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
    joint: bool | None = None,
    apart: bool | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    search: Search | None = None,
    encode_pictures: latent_file.Encode | None = None,
) -> Encoded:
    """Compress one image or several into one file.

    Args:
        images: uint8 (h, w) or (h, w, 3), or a sequence of them; sides 1 to 65535.
        model: name, path or loaded model.
        rung: step of the model's ladder; None is its default.
        coder: "pfr", "orc" (exact channel simulation) or "mincost" (fewest bits at the same slope,
        inexact); of
            models of latents also "trellis", likewise the best of all candidates, over whole tiles. None:
            "trellis" if the model has it, else "mincost".
        effort: 1 to 9, of models of latents only: how many candidates, unless ``num_candidates`` says it.
        index_code, joint: not of models of latents. index_code: "zipf", "fitted" or "prior"; None: the
        prior if there is one, else "fitted". What blocks
            share has codes of its own in models that were fitted with them (`rcccodec.settings`).
        num_candidates: N, 1 to 2^24; None is the model's default. Of latents a power of two: of a chunk,
        2^6 to
            2^24, or states of a trellis, to 2^20.
        seed: common randomness, unsigned 64-bit; None is the model's default.
        joint: let neighbouring blocks share indices where N is large enough for their rate; None: unless
            "mincost" has a prior, but none for shared indices: then that prior is the better of the two.
        apart: give every image a payload and a checksum of its own, so that damage to one loses no other;
            None: of models of latents only. Images of more than one tile have them always.
        device: where candidates are made and scored.
        progress: told (done, total) candidates.
        search: what chooses the addresses; None: `rcccodec.stages.choose`.
        encode_pictures: what codes pictures through a model of latents; None:
            `rcccodec.latent.file.encode_pictures`.

    Returns:
        Encoded.

    Raises:
        InputError: not such an image. LimitError: no image, an impossible size, N, seed or rung.
        ModelError: the model is missing or damaged, or has no such code for this coder, seed and N.
    """
    model = load_model(model) if isinstance(model, str) else model
    if isinstance(model, LatentModel):
        if index_code is not None or joint is not None:
            raise LimitError(f"index code and joint: nothing to choose for model {model.name}")
        return compress_latents(
            images, model, rung=rung, coder=coder, effort=effort, num_candidates=num_candidates, seed=seed,
            apart=apart, device=device, progress=progress, encode_pictures=encode_pictures,
        )  # fmt: skip
    if effort is not None:
        raise LimitError(f"effort: model {model.name} has none; say how many candidates")
    coder = coder or "mincost"
    settings = choose_settings(
        model, rung=rung, coder=coder, index_code=index_code, num_candidates=num_candidates, seed=seed,
        joint=joint, apart=bool(apart),
    )  # fmt: skip
    sources, notes = _sources(images, model.channels)
    notes += _small(sources, settings.tile)
    start_s = time.perf_counter()
    layouts, stages = group_images(sources, settings.tile, apart=settings.apart), settings.step.stages
    counts = [[layout.num_blocks(stage.block) for stage in stages] for layout in layouts]
    if not settings.shares_indices(counts):
        settings = replace(settings, joint=False)  # a file of version 1 or 4
    proposals = [stage.proposal() for stage in stages]  # as every decoder has them
    addresses, certified = (search or choose)(sources, counts, settings, proposals, device, progress)

    groups, decoded = [], []
    first = [0] * len(stages)
    for layout, row in zip(layouts, counts, strict=True):
        last = [a + n for a, n in zip(first, row, strict=True)]
        parts = [k[a:b] for k, a, b in zip(addresses, first, last, strict=True)]
        payload = encode_segments(_coded(settings, row, parts), num_blocks=sum(row))
        mode = MODES.index("rgb" if layout.colour else "grey")
        groups.append(Group(mode, layout.count, layout.width, layout.height, payload))
        decoded += reconstruct(layout, settings, proposals, parts)
        first = last
    data = container.pack(settings.header(records=len(groups) > 1), groups)
    report = measure(
        file_bytes=len(data),
        payload_bytes=sum(len(group.payload) for group in groups),
        sources=sources,
        decoded=decoded,
        indices=[part for row in counts for part in _index_rates(settings, row)],
        num_candidates=settings.num_candidates,
        certified_fraction=certified if coder == "pfr" else None,
        encode_s=time.perf_counter() - start_s,
        model=settings.model.name,
        rung=settings.rung,
        beta=settings.step.beta,
    )
    return Encoded(data, decoded, report, notes)


def compress_latents(
    images: np.ndarray | Sequence[np.ndarray],
    model: LatentModel,
    *,
    rung: int | None = None,
    coder: str | None = None,
    effort: int | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
    target_bits: int | None = None,
    target_psnr_db: float | None = None,
    apart: bool | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    encode_pictures: latent_file.Encode | None = None,
) -> Encoded:
    """Compress through a model of latents; ``progress`` is told (done, total) bits.

    Args:
        target_bits, target_psnr_db: at most one, and then no ``rung``: whole file at most; quality at least.
        others: as in `compress`.

    Raises:
        As `compress`; LimitError: a target is out of reach.
    """
    settings = latent_file.choose_settings(
        model, slope=rung, coder=coder, effort=effort, num_candidates=num_candidates, seed=seed,
        apart=apart is not False,
    )  # fmt: skip
    sources, notes = _sources(images, model.channels)
    how: dict[str, Any] = {"device": device, "progress": progress, "encode": encode_pictures}
    if target_bits is not None:
        made = latent_file.compress_to_bits(sources, settings, target_bits, **how)
    elif target_psnr_db is not None:
        made = latent_file.compress_to_psnr(sources, settings, target_psnr_db, **how)
    else:
        made = latent_file.compress(sources, settings, **how)
    return Encoded(made.data, made.images, made.report, notes)


def _coded(
    settings: Settings, counts: Sequence[int], parts: Sequence[np.ndarray]
) -> list[tuple[IndexCode, np.ndarray]]:
    """What the payload of one group codes, from the addresses (count,) of every stage's blocks."""
    indices = []
    for addresses, size in zip(parts, settings.joint_sizes(), strict=True):
        shared, own = to_indices(addresses, size)
        indices += [shared, own] if size > 1 else [own]
    codes = [code for code, _ in settings.segments(counts)]
    return list(zip(codes, indices, strict=True))


def _index_rates(settings: Settings, counts: Sequence[int]) -> Iterator[tuple[int, int, float]]:
    """(indices, blocks an index, R of such an index) of one group, shared ones and others, stage by stage."""
    for n, size, stage in zip(counts, settings.joint_sizes(), settings.step.stages, strict=True):
        shared, own = split_count(n, size)
        yield shared, size, size * stage.rate_bits
        yield own, 1, stage.rate_bits


def _small(sources: list[np.ndarray], tile: tuple[int, int]) -> list[str]:
    """A note where an image is smaller than a block: the rest of the block is made up, and costs as much."""
    sizes = dict.fromkeys(x.shape[:2] for x in sources)
    small = [s for s in sizes if s != tile and s[0] <= tile[0] and s[1] <= tile[1]]
    if not small:
        return []
    (height, width), (tile_height, tile_width) = small[0], tile
    return [
        f"{width}x{height} is less than the model's block of {tile_width}x{tile_height}: edges are repeated; "
        "an image resized to the block costs the same"
    ]


def _sources(images: np.ndarray | Sequence[np.ndarray], channels: int) -> tuple[list[np.ndarray], list[str]]:
    """Checked images as the model sees them (colour reduced for a grey model), and notes on what was lost."""
    pictures = [images] if isinstance(images, np.ndarray) else list(images)
    check_images(pictures)
    sources, notes = [], []
    for x in pictures:
        if x.ndim == 3 and channels == 1:
            reduced, lost = to_channels(x, 1)
            x = reduced[:, :, 0]
            notes += [note for note in lost if note not in notes]
        sources.append(x)
    return sources, notes


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raises: InputError: not images uint8 (h, w) or (h, w, 3). LimitError: none, or an impossible size."""
    if not images:
        raise LimitError("no image to compress")
    for x in images:
        if (
            not isinstance(x, np.ndarray)
            or x.dtype != np.uint8
            or x.ndim < 2
            or x.shape[2:] not in ((), (3,))
        ):
            raise InputError("an image must be a uint8 array (h, w) or (h, w, 3)")
        if not (1 <= x.shape[0] <= MAX_SIDE and 1 <= x.shape[1] <= MAX_SIDE):
            raise LimitError(f"an image of {x.shape[1]}x{x.shape[0]}: sides must be 1 to {MAX_SIDE}")
