"""Images to ``.rcc`` bytes and back; the only module that joins the rooms.

    image -> tiles -> blocks -> stage 0: best candidate y0 -> index             \
                      residual x - y0 -> stage 1: best candidate y1 -> index     > index code -> container
                                         ...                                    /

A decoder reads the indices with integer arithmetic alone and makes the winning candidates only, in float64 on
the CPU. Its work does not depend on the number of candidates, nor do its pixels on the number of threads.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch

from rcccodec import container
from rcccodec.bundle import Model, find_model, load_model
from rcccodec.channel import candidates_at, select_channel, select_with_cost
from rcccodec.container import MAX_SIDE, MODES, Group
from rcccodec.errors import FormatError, InputError, LimitError
from rcccodec.images import from_float, to_channels
from rcccodec.index_code import IndexCode, decode_segments, encode_segments
from rcccodec.layout import Layout, group_images
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.report import Report, measure
from rcccodec.settings import Settings, choose_settings, read_settings
from rcccodec.tiles import from_blocks, pad_to_multiple, to_blocks

Progress = Callable[[int, int], None]  # (candidates scored, candidates to score)

MAX_PIXELS = 1 << 28  # of all images of a file, unless the caller allows more
_BAND_PIXELS = 1 << 20  # decoded at a time


@dataclass(frozen=True)
class Encoded:
    """A compressed file, the images it decodes to, its report, and notes on what was not kept."""

    data: bytes
    images: list[np.ndarray]
    report: Report
    notes: list[str]


def compress(
    images: np.ndarray | Sequence[np.ndarray],
    model: str | Model = "photo",
    *,
    rung: int | None = None,
    coder: str = "mincost",
    index_code: str | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Encoded:
    """Compress one image or several into one file.

    Args:
        images: uint8 (h, w) or (h, w, 3), or a sequence of them; sides 1 to 65535.
        model: name, path or loaded model.
        rung: step of the model's ladder; None is its default.
        coder: "pfr", "orc" (exact channel simulation) or "mincost" (fewest bits at the same slope, inexact).
        index_code: "zipf", "fitted" or "prior"; None: the prior if there is one, else "fitted".
        num_candidates: N, 1 to 2^24; None is the model's default.
        seed: common randomness, unsigned 64-bit; None is the model's default.
        device: where candidates are made and scored.
        progress: told (done, total) candidates.

    Returns:
        Encoded.

    Raises:
        InputError: not such an image. LimitError: no image, an impossible size, N, seed or rung.
        ModelError: the model is missing or damaged, or has no such code for this coder, seed and N.
    """
    model = load_model(model) if isinstance(model, str) else model
    settings = choose_settings(
        model, rung=rung, coder=coder, index_code=index_code, num_candidates=num_candidates, seed=seed
    )
    sources, notes = _sources(images, model.channels)
    start_s = time.perf_counter()
    stages, codes = settings.step.stages, settings.codes()
    proposals = [stage.proposal() for stage in stages]  # as every decoder has them
    indices, certified = _search(sources, settings, codes, proposals, device, progress)

    groups, decoded = [], []
    first = [0] * len(stages)
    for layout in group_images(sources, settings.tile):
        last = [a + layout.num_blocks(stage.block) for a, stage in zip(first, stages, strict=True)]
        parts = [k[a:b] for k, a, b in zip(indices, first, last, strict=True)]
        payload = encode_segments(list(zip(codes, parts, strict=True)))
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
        blocks_per_stage=first,
        rates_bits=[stage.rate_bits for stage in stages],
        num_candidates=settings.num_candidates,
        certified_fraction=certified if coder == "pfr" else None,
        encode_s=time.perf_counter() - start_s,
        model=settings.model.name,
        rung=settings.rung,
        beta=settings.step.beta,
    )
    return Encoded(data, decoded, report, notes)


def decompress(
    data: bytes, model: str | Model | None = None, *, max_pixels: int = MAX_PIXELS
) -> list[np.ndarray]:
    """Give back the images of a file, in order.

    Args:
        data: the whole file.
        model: the model it was made with; None looks for it by the hash in the file.
        max_pixels: that all images together may have.

    Returns:
        uint8 (h, w) or (h, w, 3) each.

    Raises:
        FormatError: damaged, truncated or foreign data. LimitError: more pixels than ``max_pixels``, said
        before anything is allocated for them. ModelError: the model is missing or another one.

    Invariants: once the model is loaded, the work does not depend on N; no memory is taken for a size that
    the payload cannot back.
    """
    header, groups = container.unpack(data)
    pixels = sum(group.count * group.width * group.height for group in groups)
    if pixels > max_pixels:
        raise LimitError(f"{pixels} pixels, more than the {max_pixels} that max-pixels allows")
    if model is None:
        model = load_model(find_model(header.model_id))
    settings = read_settings(header, load_model(model) if isinstance(model, str) else model)
    stages, codes = settings.step.stages, settings.codes()
    proposals = [stage.proposal() for stage in stages]
    images: list[np.ndarray] = []
    for group in groups:
        colour = MODES[group.mode] == "rgb"
        if colour and settings.model.channels == 1:
            raise FormatError(f"a colour image, but model {settings.model.name} is grey")
        layout = Layout(group.count, group.height, group.width, colour, settings.tile)
        counts = [layout.num_blocks(stage.block) for stage in stages]
        parts = decode_segments(group.payload, list(zip(codes, counts, strict=True)))
        images += _reconstruct(layout, settings, proposals, parts)
    return images


def draw_samples(model: Model, rung: int | None, count: int, seed: int | None) -> list[np.ndarray]:
    """Draw tiles from Q_Y (NERD-RCC fig. 4): the first candidates of every stage, added up.

    Returns:
        ``count`` uint8 images (h, w) or (h, w, 3) of one tile of the rung each.
    """
    settings = choose_settings(model, rung=rung, seed=seed)
    layout = Layout(count, *settings.tile, model.channels == 3, settings.tile)
    stages = settings.step.stages
    parts = [np.arange(layout.num_blocks(stage.block)) for stage in stages]
    return _reconstruct(layout, settings, [stage.proposal() for stage in stages], parts)


def _search(
    sources: list[np.ndarray],
    settings: Settings,
    codes: list[IndexCode],
    decoders: list[GeneratorProposal],
    device: str,
    progress: Progress | None,
) -> tuple[list[np.ndarray], float]:
    """Choose a candidate for every block: int64 indices per stage, all images; and the certified share."""
    channels, stages, n = settings.model.channels, settings.step.stages, settings.num_candidates
    rests = [
        pad_to_multiple(to_channels(x, channels)[0].astype(np.float32) / 255, *settings.tile) for x in sources
    ]
    indices, certified = [], []
    for s, stage in enumerate(stages):
        x = torch.from_numpy(np.concatenate([to_blocks(rest, stage.block) for rest in rests]))
        proposal = decoders[s] if device == "cpu" else stage.proposal(device)
        x = proposal.analyse(x.to(device)).cpu()
        told = _shifted(progress, s * n, len(stages) * n)
        common = {"beta": stage.beta, "seed": settings.seed, "stage": s, "device": device, "progress": told}
        if settings.coder == "mincost":
            cost = partial(_cost_nats, codes[s])  # of a range at a time: memory must not grow with N
            chosen = select_with_cost(x, proposal, cost_nats=cost, num_candidates=n, **common)
        else:
            chosen = select_channel(x, proposal, coder=settings.coder, num_candidates=n, **common)
        indices.append(chosen.indices.numpy())
        certified.append(chosen.certified.numpy())
        if s + 1 < len(stages):
            rests = _subtract(rests, decoders[s], indices[s], stage.block, settings.seed, s)
    return indices, float(np.concatenate(certified).mean())


def _cost_nats(code: IndexCode, start: int, stop: int) -> np.ndarray:
    return math.log(2) * code.lengths_bits(np.arange(start, stop))


def _subtract(
    rests: list[np.ndarray],
    proposal: GeneratorProposal,
    indices: np.ndarray,
    block: tuple[int, int],
    seed: int,
    stage: int,
) -> list[np.ndarray]:
    """What is left of padded float images (h, w, c) after the candidates that a decoder will make."""
    left, first = [], 0
    for rest in rests:
        height, width, channels = rest.shape
        last = first + height // block[0] * (width // block[1])
        y = _candidates(proposal, indices[first:last], seed, stage)
        left.append(rest - from_blocks(y, block, (height, width), channels).astype(np.float32))
        first = last
    return left


def _candidates(proposal: GeneratorProposal, indices: np.ndarray, seed: int, stage: int) -> np.ndarray:
    """The candidate blocks of ``indices`` as every decoder makes them: float64 on the CPU, (n, block_dim)."""
    unique, inverse = np.unique(indices, return_inverse=True)
    with torch.inference_mode():
        parts = torch.from_numpy(unique).split(1024)
        made = [proposal.synthesise(candidates_at(proposal, k, seed=seed, stage=stage)) for k in parts]
    return torch.cat(made).numpy()[inverse.reshape(-1)]


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
            y = _candidates(proposals[s], parts[s][first:last], settings.seed, s)
            total += from_blocks(y, stage.block, size, channels)
        band = from_float(total, grey=not layout.colour)
        wanted = images[image : image + count, top * tile_height : bottom * tile_height]
        wanted[:] = band.reshape(count, -1, *band.shape[1:])[:, : wanted.shape[1], : layout.width]
    return list(images)


def _sources(images: np.ndarray | Sequence[np.ndarray], channels: int) -> tuple[list[np.ndarray], list[str]]:
    """Checked images as the model sees them (colour reduced for a grey model), and notes on what was lost."""
    pictures = [images] if isinstance(images, np.ndarray) else list(images)
    if not pictures:
        raise LimitError("no image to compress")
    sources, notes = [], []
    for x in pictures:
        if (
            not isinstance(x, np.ndarray)
            or x.dtype != np.uint8
            or x.ndim < 2
            or x.shape[2:] not in ((), (3,))
        ):
            raise InputError("an image must be a uint8 array (h, w) or (h, w, 3)")
        if not (1 <= x.shape[0] <= MAX_SIDE and 1 <= x.shape[1] <= MAX_SIDE):
            raise LimitError(f"an image of {x.shape[1]}x{x.shape[0]}: sides must be 1 to {MAX_SIDE}")
        if x.ndim == 3 and channels == 1:
            reduced, lost = to_channels(x, 1)
            x = reduced[:, :, 0]
            notes += [note for note in lost if note not in notes]
        sources.append(x)
    return sources, notes


def _shifted(progress: Progress | None, offset: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(offset + done, total)
