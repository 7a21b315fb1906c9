"""``.rcc`` bytes to images, whole, in part, or whatever damage has left.

    container -> index code -> indices -> winning candidates -> blocks, stages added up -> images

A decoder reads the indices with integer arithmetic alone and makes the winning candidates only, in float64 on
the CPU. Its work does not depend on the number of candidates, nor do its pixels on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from rcccodec import container
from rcccodec.bundle import AnyModel, Model, load_model, load_model_of
from rcccodec.container import MODES, Group, Header, Salvaged
from rcccodec.errors import FormatError, LimitError
from rcccodec.images import from_float
from rcccodec.index_code import decode_segments
from rcccodec.joint import to_addresses
from rcccodec.latent import file as latent_file
from rcccodec.latent.file import Prefix, Region
from rcccodec.latent.model import LatentModel
from rcccodec.latent.samples import draw_tiles
from rcccodec.layout import Layout
from rcccodec.model_search import wrong_model
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.settings import Settings, choose_settings, read_settings
from rcccodec.stages import NO_INDICES, blocks_at
from rcccodec.tiles import from_blocks

MAX_PIXELS = 1 << 28  # of all images of a file, unless the caller allows more
_BAND_PIXELS = 1 << 20  # decoded at a time
LEAST_WORK_PIXELS = 1 << 12  # that a picture of latents, or a group of others, takes the work of at the least


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
        max_pixels: that all images together may have; padded to whole tiles, this or 2^28, if that is more;
            an image of latents, or a group of others, counts as 4096 there at the least.
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
    _check_pixels(header, groups, max_pixels)
    model = _model_of(header, model)
    if region is not None:
        latent_file.check_region(region, groups)
    if isinstance(model, LatentModel):
        return latent_file.decompress(header, groups, model, region)
    images = [x for make in _group_decoders(header, groups, model, max_pixels) for x in make()]
    if region is not None:
        top, left, height, width = region
        images = [x[top : top + height, left : left + width] for x in images]
    return images


@dataclass(frozen=True)
class Intact:
    """What a damaged archive still shows.

    images: those that are intact, by their numbers from 0.
    num_images: that the file had; None where that is not known.
    faults: a line for each thing that is wrong with the file; none if it is whole.
    """

    images: dict[int, np.ndarray]
    num_images: int | None
    faults: list[str]

    @property
    def lost(self) -> list[tuple[int, int]]:
        """Runs of images that are missing, each as its first and its last."""
        return container.lost_runs([(i, i + 1) for i in sorted(self.images)], self.num_images)


def decompress_intact(
    data: bytes | Salvaged, model: str | AnyModel | None = None, *, max_pixels: int = MAX_PIXELS
) -> Intact:
    """Give back every image of a file that is intact, wherever the file is damaged.

    Args:
        data: the file, or what `rcccodec.container.salvage` made of it.
        others: as in `decompress`.

    Raises:
        FormatError: the header is lost, or the data is no such file. LimitError, ModelError: as `decompress`.
    """
    found = data if isinstance(data, Salvaged) else container.salvage(data)
    header, groups = found.header, [group for _, group in found.groups]
    _check_pixels(header, groups, max_pixels)
    model = _model_of(header, model)
    if isinstance(model, LatentModel):
        makers = [partial(latent_file.decompress, header, [group], model) for group in groups]
    else:
        makers = _group_decoders(header, groups, model, max_pixels, whole=not found.faults)
    images: dict[int, np.ndarray] = {}
    faults = list(found.faults)
    for (first, group), make in zip(found.groups, makers, strict=True):
        try:
            images |= dict(enumerate(make(), first))
        except FormatError as error:
            last = first + group.count - 1
            faults.append(
                f"image {first}: {error}" if last == first else f"images {first} to {last}: {error}"
            )
    return Intact(images, found.num_images, faults)


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
    _check_pixels(header, [group], max_pixels)
    model = _model_of(header, model)
    assert isinstance(model, LatentModel)
    return latent_file.decompress_prefix(header, group, model, region)


def _check_pixels(header: Header, groups: Sequence[Group], max_pixels: int) -> None:
    pixels = sum(group.count * group.width * group.height for group in groups)
    if pixels > max_pixels:
        raise LimitError(f"{pixels} pixels, more than the {max_pixels} that max-pixels allows")
    if header.latent:
        work = sum(group.count * max(LEAST_WORK_PIXELS, group.width * group.height) for group in groups)
        _check_work(work, max_pixels)


def _check_work(pixels: int, max_pixels: int) -> None:
    """Refuse many tiny images: each of them takes the work of a larger one."""
    limit = max(max_pixels, MAX_PIXELS)
    if pixels > limit:
        raise LimitError(f"{pixels} pixels with padding, more than the {limit} that max-pixels allows")


def _model_of(header: Header, model: str | AnyModel | None) -> AnyModel:
    """The model of the kind that the file needs; whether it is the very one is seen later."""
    if model is None:
        model = load_model_of(header.model_id)
    model = load_model(model) if isinstance(model, str) else model
    if isinstance(model, LatentModel) != header.latent:
        raise wrong_model(header.model_id, model.name, model.sha256)
    return model


def _group_decoders(
    header: Header, groups: Sequence[Group], model: Model, max_pixels: int, *, whole: bool = True
) -> list[Callable[[], list[np.ndarray]]]:
    """A function for each group that makes its images; all that can be refused without them is.

    whole: these are all the groups of a file.
    """
    settings = read_settings(header, model)
    stages, sizes = settings.step.stages, settings.joint_sizes()
    proposals = [stage.proposal() for stage in stages]
    layouts = []
    for group in groups:
        colour = MODES[group.mode] == "rgb"
        if colour and settings.model.channels == 1:
            raise FormatError(f"a colour image, but model {settings.model.name} is grey")
        layouts.append(Layout(group.count, group.height, group.width, colour, settings.tile))
    padded = [layout.num_blocks(settings.tile) * math.prod(settings.tile) for layout in layouts]
    _check_work(sum(max(LEAST_WORK_PIXELS, pixels) for pixels in padded), max_pixels)
    blocks = [[layout.num_blocks(stage.block) for stage in stages] for layout in layouts]
    if whole and settings.joint and not settings.shares_indices(blocks):
        raise FormatError(f"version {header.version} of the format, but no two blocks share an index")

    def make(group: Group, layout: Layout, counts: list[int]) -> list[np.ndarray]:
        indices = iter(decode_segments(group.payload, settings.segments(counts), num_blocks=sum(counts)))
        parts = [to_addresses(next(indices) if g > 1 else NO_INDICES, next(indices), g) for g in sizes]
        return reconstruct(layout, settings, proposals, parts)

    return [partial(make, *group) for group in zip(groups, layouts, blocks, strict=True)]


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
    return reconstruct(layout, settings, [stage.proposal() for stage in stages], parts)


def reconstruct(
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
