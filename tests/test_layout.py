"""Layout: groups, tiles and block counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcccodec.layout import Layout, group_images, tile_size


def image(height: int, width: int, colour: bool = False) -> np.ndarray:
    return np.zeros((height, width, 3) if colour else (height, width), np.uint8)


def test_a_tile_is_the_smallest_rectangle_that_all_blocks_divide():
    assert tile_size([(8, 8)]) == (8, 8)
    assert tile_size([(16, 8), (8, 4), (4, 16)]) == (16, 16)
    assert tile_size([(6, 4), (4, 6)]) == (12, 12)


def test_equal_one_tile_neighbours_share_a_group_and_order_is_kept():
    images = [
        image(8, 8),
        image(8, 8),
        image(8, 8, True),
        image(8, 8),
        image(20, 8),
        image(20, 8),
        image(5, 5),
    ]
    layouts = group_images(images, (8, 8))
    assert [(g.count, g.height, g.colour) for g in layouts] == [
        (2, 8, False),
        (1, 8, True),
        (1, 8, False),
        (1, 20, False),
        (1, 20, False),
        (1, 5, False),
    ]


def test_larger_equal_images_stay_alone():
    assert [g.count for g in group_images([image(9, 8), image(9, 8)], (8, 8))] == [1, 1]


@given(
    count=st.integers(1, 5),
    height=st.integers(1, 100),
    width=st.integers(1, 100),
    block=st.sampled_from([(4, 4), (8, 4), (16, 16)]),
)
def test_blocks_cover_the_padded_images_exactly(count: int, height: int, width: int, block: tuple[int, int]):
    tile = (16, 16)
    layout = Layout(count, height, width, False, tile)
    padded = layout.tile_rows * 16, layout.tile_columns * 16
    assert 0 <= padded[0] - height < 16
    assert 0 <= padded[1] - width < 16
    assert layout.num_blocks(block) * block[0] * block[1] == count * padded[0] * padded[1]
    assert layout.num_blocks(block, 0) == 0
    rows = count * layout.tile_rows
    assert layout.num_blocks(block, rows) == layout.num_blocks(block)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_band_holds_its_share_of_the_blocks(rows: int):
    layout = Layout(1, 64, 40, True, (16, 16))
    assert layout.num_blocks((8, 8), rows) == rows * 3 * 4
