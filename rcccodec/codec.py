"""Images to ``.rcc`` bytes and back; the only module that joins the rooms.

    image -> tiles -> blocks -> stage 0: best candidate y0 -> index             \
                      residual x - y0 -> stage 1: best candidate y1 -> index     > index code -> container
                                         ...                                    /

Where N allows it several blocks share an index (`rcccodec.joint`).

A decoder reads the indices with integer arithmetic alone and makes the winning candidates only, in float64 on
the CPU. Its work does not depend on the number of candidates, nor do its pixels on the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from rcccodec import container
from rcccodec.bundle import AnyModel, Model, find_model, load_model
from rcccodec.container import MAX_SIDE, MODES, Group, Header
from rcccodec.errors import FormatError, InputError, LimitError, ModelError
from rcccodec.images import from_float, to_channels
from rcccodec.index_code import IndexCode, decode_segments, encode_segments
from rcccodec.joint import split_count, to_addresses, to_indices
from rcccodec.latent import file as latent_file
from rcccodec.latent.file import Prefix, Region
from rcccodec.latent.model import LatentModel
from rcccodec.latent.report import LatentReport
from rcccodec.latent.samples import draw_tiles
from rcccodec.layout import Layout, group_images
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.report import Report, measure
from rcccodec.settings import Settings, choose_settings, read_settings
from rcccodec.stages import NO_INDICES, Progress, Search, blocks_at, choose
from rcccodec.tiles import from_blocks

MAX_PIXELS = 1 << 28  # of all images of a file, unless the caller allows more
_BAND_PIXELS = 1 << 20  # decoded at a time


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
            device=device, progress=progress, encode_pictures=encode_pictures,
        )  # fmt: skip
    if effort is not None:
        raise LimitError(f"effort: model {model.name} has none; say how many candidates")
    coder = coder or "mincost"
    settings = choose_settings(
        model, rung=rung, coder=coder, index_code=index_code, num_candidates=num_candidates, seed=seed,
        joint=joint,
    )  # fmt: skip
    sources, notes = _sources(images, model.channels)
    notes += _small(sources, settings.tile)
    start_s = time.perf_counter()
    layouts, stages = group_images(sources, settings.tile), settings.step.stages
    counts = [[layout.num_blocks(stage.block) for stage in stages] for layout in layouts]
    if not settings.shares_indices(counts):
        settings = replace(settings, joint=False)  # a file of version 1
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
        decoded += _reconstruct(layout, settings, proposals, parts)
        first = last
    data = container.pack(settings.header(), groups)
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
        model, slope=rung, coder=coder, effort=effort, num_candidates=num_candidates, seed=seed
    )
    sources, notes = _sources(images, model.channels)
    how: dict[str, Any] = {"device": device, "progress": progress, "encode": encode_pictures}
    if target_bits is not None:
        made = latent_file.compress_to_bits(sources, settings, target_bits, **how)
    elif target_psnr_db is not None:
        made = latent_file.compress_to_psnr(sources, settings, target_psnr_db, **how)
    else:
        made = latent_file.compress(sources, settings, **how)
    return Encoded(made.data, made.images, made.report, notes)


def decompress(
    data: bytes,
    model: str | AnyModel | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    region: Region | None = None,
) -> list[np.ndarray]:
    """Give back the images of a file, in order.

    Args:
        data: the whole file.
        model: the model it was made with; None looks for it by the hash in the file.
        max_pixels: that all images together may have; padded to whole tiles, this or 2^28, if that is more.
        region: (top, left, height, width) in pixels, of the only image; None is all. Of latents
            no more is made than it needs.

    Returns:
        uint8 (h, w) or (h, w, 3) each.

    Raises:
        FormatError: damaged, truncated or foreign data. LimitError: more pixels than ``max_pixels``, said
        before anything is allocated for them; a region outside the image. ModelError: the model is missing
        or another one.

    Invariants: once the model is loaded, the work does not depend on N; no memory is taken for a size that
    the payload cannot back.
    """
    header, groups = container.unpack(data)
    pixels = sum(group.count * group.width * group.height for group in groups)
    if pixels > max_pixels:
        raise LimitError(f"{pixels} pixels, more than the {max_pixels} that max-pixels allows")
    if model is None:
        model = load_model(find_model(header.model_id))
    model = load_model(model) if isinstance(model, str) else model
    if region is not None:
        latent_file.check_region(region, groups)
    if isinstance(model, LatentModel):
        if not header.latent:
            raise ModelError(f"made with another model ({header.model_id.hex()}) than {model.name}")
        return latent_file.decompress(header, groups, model, region)
    if header.latent:
        raise ModelError(f"made with another model ({header.model_id.hex()}) than {model.name}")
    images = _decompress_one_shot(header, groups, model, max_pixels)
    if region is not None:
        top, left, height, width = region
        images = [x[top : top + height, left : left + width] for x in images]
    return images


def decompress_prefix(
    data: bytes,
    model: str | AnyModel | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    region: Region | None = None,
) -> Prefix:
    """Give back what the start of a file still holds: of one image, through a model of latents.

    No checksum is verified: of a damaged file, the tiles up to the first that cannot be read, right or wrong.

    Args:
        as in `decompress`; ``data`` may be cut short anywhere.

    Raises:
        FormatError: not one tile is whole, or not such a file. LimitError: several images, a file without
        tiles, more pixels than ``max_pixels``, a region outside. ModelError: as `decompress`.
    """
    header, group = container.unpack_prefix(data)
    if not header.latent:
        raise LimitError("a part of a file of shared candidates: only models of latents write tiles")
    if (pixels := group.width * group.height) > max_pixels:
        raise LimitError(f"{pixels} pixels, more than the {max_pixels} that max-pixels allows")
    if model is None:
        model = load_model(find_model(header.model_id))
    model = load_model(model) if isinstance(model, str) else model
    if not isinstance(model, LatentModel):
        raise ModelError(f"made with another model ({header.model_id.hex()}) than {model.name}")
    return latent_file.decompress_prefix(header, group, model, region)


def _decompress_one_shot(
    header: Header, groups: Sequence[Group], model: Model, max_pixels: int
) -> list[np.ndarray]:
    settings = read_settings(header, model)
    stages, sizes = settings.step.stages, settings.joint_sizes()
    proposals = [stage.proposal() for stage in stages]
    layouts = []
    for group in groups:
        colour = MODES[group.mode] == "rgb"
        if colour and settings.model.channels == 1:
            raise FormatError(f"a colour image, but model {settings.model.name} is grey")
        layouts.append(Layout(group.count, group.height, group.width, colour, settings.tile))
    padded = sum(layout.num_blocks(settings.tile) for layout in layouts) * math.prod(settings.tile)
    limit = max(max_pixels, MAX_PIXELS)  # a tiny image takes a whole tile of work
    if padded > limit:
        raise LimitError(f"{padded} pixels with padding, more than the {limit} that max-pixels allows")
    blocks = [[layout.num_blocks(stage.block) for stage in stages] for layout in layouts]
    if settings.joint and not settings.shares_indices(blocks):
        raise FormatError("version 2 of the format, but no two blocks share an index")
    images: list[np.ndarray] = []
    for group, layout, counts in zip(groups, layouts, blocks, strict=True):
        indices = iter(decode_segments(group.payload, settings.segments(counts), num_blocks=sum(counts)))
        parts = [to_addresses(next(indices) if g > 1 else NO_INDICES, next(indices), g) for g in sizes]
        images += _reconstruct(layout, settings, proposals, parts)
    return images


def draw_samples(model: AnyModel, rung: int | None, count: int, seed: int | None) -> list[np.ndarray]:
    """Draw tiles from Q_Y (NERD-RCC fig. 4): the first candidates of every stage, added up; of latents see
    `rcccodec.latent.samples`.

    Returns:
        ``count`` uint8 images (h, w) or (h, w, 3) of one tile of the rung each.

    Raises:
        LimitError: no such rung or seed.
    """
    if isinstance(model, LatentModel):
        latent = latent_file.choose_settings(model, slope=rung, seed=seed)
        return draw_tiles(model, latent.slope, count, latent.channel.seed)
    settings = choose_settings(model, rung=rung, seed=seed)
    layout = Layout(count, *settings.tile, model.channels == 3, settings.tile)
    stages = settings.step.stages
    parts = [to_addresses(NO_INDICES, np.arange(layout.num_blocks(stage.block)), 1) for stage in stages]
    return _reconstruct(layout, settings, [stage.proposal() for stage in stages], parts)


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


def _reconstruct(
    layout: Layout, settings: Settings, proposals: list[GeneratorProposal], parts: list[np.ndarray]
) -> list[np.ndarray]:
    """Add up the stages of one group, a band of tiles at a time, and round; one uint8 image each."""
    channels, stages = settings.model.channels, settings.step.stages
    (tile_height, tile_width), rows = layout.tile, layout.tile_rows
    images = np.empty((layout.count, layout.height, layout.width) + (3,) * layout.colour, np.uint8)
    band_rows = max(1, _BAND_PIXELS // (tile_height * tile_width * layout.tile_columns))
    at_once = max(1, band_rows // rows)  # whole images, or one in bands
    for image, top in product(range(0, layout.count, at_once), range(0, rows, min(band_rows, rows))):
        count = min(at_once, layout.count - image)
        bottom = min(top + band_rows, rows)
        ends = image * rows + top, image * rows + count * bottom  # rows of tiles, counted through the images
        size = (ends[1] - ends[0]) * tile_height, layout.tile_columns * tile_width
        total = np.zeros((*size, channels))
        for s, stage in enumerate(stages):
            first, last = (layout.num_blocks(stage.block, row) for row in ends)
            y = blocks_at(proposals[s], parts[s][first:last], settings.seed, s)
            total += from_blocks(y, stage.block, size, channels)
        band = from_float(total, grey=not layout.colour)
        wanted = images[image : image + count, top * tile_height : bottom * tile_height]
        wanted[:] = band.reshape(count, -1, *band.shape[1:])[:, : wanted.shape[1], : layout.width]
    return list(images)


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
