"""Latents made on the device: Philox, the look-up and the store in one kernel, nothing else in memory.

    indices (n,) --> 4 words of (k, dimension block, stream) --> 8 normals each --> z (n, dim)

The plain torch form keeps every word as int64 and passes over them some sixty times. A generator's
first layer stays with the matrix library: latents are a few percent of what its activations move.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rcccodec.kernels import launching_on
from rcccodec.kernels.philox import normal_tile
from rcccodec.randomness import normal_table

CANDIDATES_PER_PROGRAM = 64
MAX_BLOCKS_PER_PROGRAM = 4  # of 8 dimensions


def normals(seed: int, indices: Tensor, dim: int, stream: int) -> Tensor:
    """The kernel's form of `rcccodec.randomness.standard_normals`, whose arguments it takes as checked.

    Args:
        seed: unsigned 64-bit.
        indices: int64 (n,), candidate numbers, n > 0.
        dim: latent length, > 0.
        stream: in [0, 2^32).

    Returns:
        float32 (n, dim) on the device of ``indices``.

    Invariant: bit-identical to the plain torch form.
    """
    n, num_blocks = len(indices), triton.cdiv(dim, 8)
    out = torch.empty(n, dim, dtype=torch.float32, device=indices.device)
    blocks = min(MAX_BLOCKS_PER_PROGRAM, triton.next_power_of_2(num_blocks))
    grid = (triton.cdiv(n, CANDIDATES_PER_PROGRAM), triton.cdiv(num_blocks, blocks))
    with launching_on(indices.device):
        _normals[grid](
            out, indices.contiguous(), normal_table(str(indices.device)), seed, stream, n, dim,
            CANDIDATES=CANDIDATES_PER_PROGRAM, BLOCKS=blocks,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["seed", "stream", "n"])
def _normals(out, indices, table, seed, stream, n, dim, CANDIDATES: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * CANDIDATES + tl.arange(0, CANDIDATES)
    first_block = tl.program_id(1) * BLOCKS
    k = tl.load(indices + row, mask=row < n, other=0)
    z = normal_tile(table, seed, k, first_block, stream, BLOCKS)
    column = first_block * 8 + tl.arange(0, 8 * BLOCKS)
    mask = (row < n)[:, None] & (column < dim)[None, :]
    tl.store(out + row[:, None] * dim + column[None, :], z, mask=mask)
