"""What is inside a ``.rcc`` file: payload bits, indices, and the same indices in another index code."""

import numpy as np

from rcccodec import container
from rcccodec.bundle import Model
from rcccodec.index_code import decode_segments, encode_segments
from rcccodec.layout import Layout
from rcccodec.settings import Settings, choose_settings, read_settings


def payload_bits(data: bytes) -> int:
    """Bits of all payloads of a file, headers and checksums left out."""
    return 8 * sum(len(group.payload) for group in container.unpack(data)[1])


def read_indices(data: bytes, model: Model) -> list[list[np.ndarray]]:
    """The int64 indices of every group and segment: one segment a stage, two where blocks share indices."""
    header, groups = container.unpack(data)
    settings = read_settings(header, model)
    counts = [_block_counts(group, settings) for group in groups]
    return [
        decode_segments(group.payload, settings.segments(row), num_blocks=sum(row))
        for group, row in zip(groups, counts, strict=True)
    ]


def blocks_per_index(data: bytes, model: Model) -> list[int]:
    """How many blocks of each stage share an index (the last few of a group do not)."""
    return read_settings(container.unpack(data)[0], model).joint_sizes()


def block_bits(data: bytes, model: Model) -> list[list[np.ndarray]]:
    """Ideal code lengths of the blocks of every group and stage, float64 (blocks,) each.

    An index that several blocks share is divided among them in equal parts.
    """
    header, groups = container.unpack(data)
    settings, groups_bits = read_settings(header, model), []
    for group, indices in zip(groups, read_indices(data, model), strict=True):
        segments = settings.segments(_block_counts(group, settings))
        lengths = iter([code.lengths_bits(k) for (code, _), k in zip(segments, indices, strict=True)])
        groups_bits.append(
            [
                np.concatenate([*([np.repeat(next(lengths) / g, g)] if g > 1 else []), next(lengths)])
                for g in settings.joint_sizes()
            ]
        )
    return groups_bits


def image_bits(data: bytes, model: Model) -> np.ndarray:
    """Ideal code lengths of the images of a file, in order: float64 (images,), all stages together."""
    groups = zip(container.unpack(data)[1], block_bits(data, model), strict=True)
    return np.concatenate(
        [sum(b.reshape(group.count, -1).sum(1) for b in stages) for group, stages in groups]
    )


def with_index_code(data: bytes, model: Model, index_code: str, *, codes_of: Model | None = None) -> bytes:
    """The file that the encoder would have written for the same choices under another index code.

    ``codes_of``: the model with other index codes, whose file it then is; None: ``model``.

    For PFR and ORC, whose choices do not look at code lengths, that is the file of another call; min-cost
    would have chosen otherwise.
    """
    header, groups = container.unpack(data)
    old = read_settings(header, model)
    new = choose_settings(
        codes_of or model,
        rung=old.rung,
        coder=old.coder,
        index_code=index_code,
        num_candidates=old.num_candidates,
        seed=old.seed,
        joint=old.joint,
    )
    packed = []
    for group, indices in zip(groups, read_indices(data, model), strict=True):
        counts = _block_counts(group, new)
        codes = [code for code, _ in new.segments(counts)]
        payload = encode_segments(list(zip(codes, indices, strict=True)), num_blocks=sum(counts))
        packed.append(container.Group(group.mode, group.count, group.width, group.height, payload))
    return container.pack(new.header(records=header.records), packed)


def _block_counts(group: container.Group, settings: Settings) -> list[int]:
    colour = container.MODES[group.mode] == "rgb"
    layout = Layout(group.count, group.height, group.width, colour, settings.tile)
    return [layout.num_blocks(stage.block) for stage in settings.step.stages]
