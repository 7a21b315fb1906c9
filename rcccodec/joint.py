"""Joint coding: how many neighbouring blocks share an index, and which draw of a candidate a block is.

A search over N candidates can carry log2 N - 3 bits before it strays from the channel, and every index costs
some bits beyond its rate, however low the rate R of a block is. So g blocks are chosen together, from
candidates of g draws (`rcccodec.proposals.joint`), where g R still fits: one overhead instead of g. Which
blocks share an index follows from integers alone.

A block's *address* is ``index * MAX_JOINT_BLOCKS + draw``; a block with an index of its own is draw 0.
"""

import numpy as np
from numpy.typing import NDArray

MAX_JOINT_BLOCKS = 16
MARGIN_MILLIBITS = 3000


def joint_size(num_candidates: int, rate_millibits: int) -> int:
    """g = floor((log2 N - 3) / R), from 1 to MAX_JOINT_BLOCKS, in exact integer arithmetic.

    Args:
        num_candidates: N >= 1.
        rate_millibits: the model's R of one block, >= 0.
    """
    spare = (num_candidates**1000).bit_length() - 1 - MARGIN_MILLIBITS  # floor(1000 log2 N) - 3000
    return min(max(1, spare // max(1, rate_millibits)), MAX_JOINT_BLOCKS)


def split_count(count: int, size: int) -> tuple[int, int]:
    """Indices that ``count`` blocks take: shared by ``size`` of them each, and the last blocks' own."""
    return (count // size, count % size) if size > 1 else (0, count)


def to_addresses(shared: NDArray[np.int64], own: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The addresses of the blocks, in order, from the indices that they share and those of the last ones."""
    draws = shared[:, None] * MAX_JOINT_BLOCKS + np.arange(size)
    return np.concatenate([draws.reshape(-1), own * MAX_JOINT_BLOCKS])


def to_indices(addresses: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inverse of ``to_addresses``: the shared indices and the last blocks' own."""
    shared, _ = split_count(len(addresses), size)
    indices = addresses // MAX_JOINT_BLOCKS
    return indices[: shared * size : size], indices[shared * size :]
