"""What is inside a ``.rcc`` file: payload bits, indices, and the same indices in another index code."""

import numpy as np

from rcccodec import container
from rcccodec.bundle import Model
from rcccodec.index_code import IndexCode, decode_segments, encode_segments
from rcccodec.layout import Layout
from rcccodec.settings import Settings, choose_settings, read_settings


def payload_bits(data: bytes) -> int:
    """Bits of all payloads of a file, headers and checksums left out."""
    return 8 * sum(len(group.payload) for group in container.unpack(data)[1])


def read_indices(data: bytes, model: Model) -> list[list[np.ndarray]]:
    """The int64 indices of every group and stage."""
    header, groups = container.unpack(data)
    settings = read_settings(header, model)
    codes = settings.codes()
    return [
        decode_segments(group.payload, list(zip(codes, _block_counts(group, settings), strict=True)))
        for group in groups
    ]


def image_bits(data: bytes, model: Model) -> np.ndarray:
    """Ideal code lengths of the images of a file, in order: float64 (images,), all stages together."""
    codes, parts = index_codes(data, model), []
    for group, stages in zip(container.unpack(data)[1], read_indices(data, model), strict=True):
        lengths = [code.lengths_bits(k) for code, k in zip(codes, stages, strict=True)]
        parts.append(sum(bits.reshape(group.count, -1).sum(1) for bits in lengths))
    return np.concatenate(parts)


def index_codes(data: bytes, model: Model) -> list[IndexCode]:
    """The index code of every stage, as the file's header names it."""
    return read_settings(container.unpack(data)[0], model).codes()


def with_index_code(data: bytes, model: Model, index_code: str) -> bytes:
    """The file that the encoder would have written for the same choices under another index code.

    For PFR and ORC, whose choices do not look at code lengths, that is the file of another call; min-cost
    would have chosen otherwise.
    """
    header, groups = container.unpack(data)
    old = read_settings(header, model)
    new = choose_settings(
        model,
        rung=old.rung,
        coder=old.coder,
        index_code=index_code,
        num_candidates=old.num_candidates,
        seed=old.seed,
    )
    codes, packed = new.codes(), []
    for group, indices in zip(groups, read_indices(data, model), strict=True):
        payload = encode_segments(list(zip(codes, indices, strict=True)))
        packed.append(container.Group(group.mode, group.count, group.width, group.height, payload))
    return container.pack(new.header(), packed)


def _block_counts(group: container.Group, settings: Settings) -> list[int]:
    colour = container.MODES[group.mode] == "rgb"
    layout = Layout(group.count, group.height, group.width, colour, settings.tile)
    return [layout.num_blocks(stage.block) for stage in settings.step.stages]
