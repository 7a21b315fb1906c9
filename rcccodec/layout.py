"""How images fall into groups, tiles and blocks. NumPy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Block = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Layout:
    """A group of ``count`` images of one size and mode, each padded to whole tiles.

    A tile is the smallest rectangle that all stages' blocks divide. Stacked on each other, the padded
    images form one tall picture of ``count * tile_rows`` rows of tiles; the blocks of a stage are numbered
    row by row down that picture.
    """

    count: int
    height: int
    width: int
    colour: bool
    tile: Block

    @property
    def tile_rows(self) -> int:
        """Rows of tiles in one image."""
        return -(-self.height // self.tile[0])

    @property
    def tile_columns(self) -> int:
        """Columns of tiles."""
        return -(-self.width // self.tile[1])

    def num_blocks(self, block: Block, tile_rows: int | None = None) -> int:
        """Blocks of one stage in the whole group, or in ``tile_rows`` rows of tiles."""
        rows = self.count * self.tile_rows if tile_rows is None else tile_rows
        return rows * self.tile_columns * (self.tile[0] // block[0]) * (self.tile[1] // block[1])


def tile_size(blocks: Sequence[Block]) -> Block:
    """Smallest (height, width) that every block divides."""
    return math.lcm(*(h for h, _ in blocks)), math.lcm(*(w for _, w in blocks))


def group_images(images: Sequence[np.ndarray], tile: Block, *, apart: bool = False) -> list[Layout]:
    """Groups for images (h, w) or (h, w, 3), in order.

    Neighbours of equal size and mode that are one tile each share a group, unless all are to be ``apart``;
    every larger image is alone.
    """
    layouts: list[Layout] = []
    for x in images:
        new = Layout(1, x.shape[0], x.shape[1], x.ndim == 3, tile)
        small = new.tile_rows * new.tile_columns == 1 and not apart
        if small and layouts and replace(layouts[-1], count=1) == new:
            layouts[-1] = replace(new, count=layouts[-1].count + 1)
        else:
            layouts.append(new)
    return layouts
