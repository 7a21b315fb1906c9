"""Groups of blocks that share an index, to fit its codes to: many of them from few blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rcccodec.channel.distances import CentredBlocks

_TILE_SCORES = 1 << 22


@dataclass(frozen=True)
class Groups:
    """Blocks laid end to end. ``blocks``: (n, dim). ``members``: int64 (groups, size), which of them."""

    blocks: Tensor
    members: Tensor

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some groups as the rows that a search over draws of as many takes, (groups, size * dim)."""
        return self.blocks[self.members[rows]].flatten(1)


def random_groups(blocks: Tensor, size: int, count: int) -> Groups:
    """``count`` groups of ``size`` blocks each, each block in as many as any other; always the same."""
    generator = torch.Generator().manual_seed(0)
    turns = range(-(-count // len(blocks)))
    columns = [
        torch.cat([torch.randperm(len(blocks), generator=generator) for _ in turns]) for _ in range(size)
    ]
    return Groups(blocks, torch.stack(columns, dim=1)[:count])


class CentredGroups:
    """What `CentredBlocks` is of the groups' rows, in less time where blocks are in many groups.

    The squared error of a group is the sum of its blocks', so each block meets each draw of a candidate once.
    """

    def __init__(self, groups: Groups, device: torch.device) -> None:
        self._one, self._members = CentredBlocks(groups.blocks, device), groups.members.to(device)
        self.square_norms = self._one.square_norms[self._members].sum(1)  # float64 (groups,)
        self._buffers: dict[str, Tensor] = {}  # fresh memory for every chunk would cost more than the sums

    def centre(self, y: Tensor) -> Tensor:
        """Candidates (n, size * dim) in the frame of the blocks."""
        return (y.view(len(y), self._members.shape[1], -1) - self._one.mean).flatten(1)

    def tiles(self, y_centred: Tensor, row: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
        """Yield (groups, ``row + scale x y^T`` float32 (groups, n)); the next tile overwrites it."""
        size, n = self._members.shape[1], len(y_centred)
        products = self._buffer("products", (size, len(self._one.x), n))
        for product, y in zip(products, y_centred.view(n, size, -1).unbind(1), strict=True):
            torch.mm(self._one.x, y.T, out=product).mul_(scale)
        height = max(1, _TILE_SCORES // n)
        for first in range(0, len(self._members), height):
            members = self._members[first : first + height]
            scores = self._buffer("scores", (len(members), n)).copy_(row.expand(len(members), n))
            for product, which in zip(products, members.T, strict=True):
                part = self._buffer("part", (len(members), n))
                scores.add_(torch.index_select(product, 0, which, out=part))
            yield slice(first, first + len(members)), scores

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, device=self._members.device)
        return self._buffers[name][:size].view(shape)
