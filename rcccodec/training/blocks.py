"""What a stage is trained on: blocks of a source, and the residuals that earlier stages leave of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rcccodec.channel.distances import exact_candidates
from rcccodec.errors import InputError
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.sources import Source, random_blocks
from rcccodec.training.trainer import to_unit

PHOTO_BLOCKS = 60_000


def source_blocks(
    source: Source, block: tuple[int, int], *, channels: int, count: int = PHOTO_BLOCKS, seed: int = 0
) -> tuple[Tensor, tuple[int, ...]]:
    """Flattened blocks (n, h*w*c) of a source and the shape of one.

    Images of the block's size are taken as they are; photographs, and their mirror images, are cut at random
    places; vectors are their own blocks. Pixels stay uint8.

    Args:
        block: (h, w), ignored for vectors. channels: 1 or 3.
        count, seed: how many blocks are cut from photographs, and where.

    Raises:
        InputError: images of one size that is not the block's.
    """
    if isinstance(source.x, list):
        images = [*source.x, *(image[:, ::-1] for image in source.x)]
        cut = random_blocks(images, block, count, channels=channels, seed=seed)
        return torch.from_numpy(cut).flatten(1), cut.shape[1:]
    x = np.ascontiguousarray(source.x)
    if source.shape is None:
        return torch.from_numpy(x).float(), (x.shape[1],)
    if source.shape != (*block, channels):
        size = "x".join(str(n) for n in source.shape)
        raise InputError(
            f"{source.name}: images are {size}, the stage wants {block[0]}x{block[1]}x{channels}"
        )
    return torch.from_numpy(x).flatten(1), source.shape


def residuals(
    x: Tensor,
    shape: tuple[int, ...],
    proposal: GeneratorProposal,
    select: Callable[[Tensor, int], Tensor],
    *,
    seeds: Sequence[int],
    stage: int,
    sub_block: tuple[int, int],
    device: str = "cpu",
) -> Tensor:
    """What is left of blocks x (n, dim) when a stage has coded them, cut into smaller blocks.

    Args:
        select: (coordinates, seed) to the chosen indices, (n, dim) to int64 (n,).
        seeds: the blocks are split evenly over these codebooks. Training takes several, lest the next stage
            learns one codebook's errors; the index codes of a shipped codebook take that one.

    Returns:
        float32 (n * number of sub-blocks, sub-block dim).
    """
    height, width, channels = shape
    h, w = sub_block
    pieces = []
    seeds = seeds[: len(x)]
    for seed, rows in zip(seeds, x.tensor_split(len(seeds)), strict=True):
        pixels = to_unit(rows)
        unique, inverse = torch.unique(select(proposal.analyse(pixels), seed), return_inverse=True)
        made = exact_candidates(proposal, unique, seed, stage, torch.device(device))
        left = pixels - proposal.synthesise(made.float())[inverse]
        grid = left.view(-1, height // h, h, width // w, w, channels)
        pieces.append(grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, h * w * channels))
    return torch.cat(pieces)
