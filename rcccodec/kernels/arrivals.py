"""The encoder's arrival times made on the device: gaps by a kernel, their running sum by torch.

j --> 53 bits of two Philox words --> X_j = -ln u --> running sum --> ln W_j, all float64
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rcccodec.kernels import launching_on

CANDIDATES_PER_PROGRAM = 512


def gaps(seed: int, start: int, count: int, stream: int, device: str | torch.device) -> Tensor:
    """`rcccodec.randomness.exponentials`, float64 (count,), count > 0, on ``device``.

    Invariant: of the same uniforms; the last bit of the logarithm may differ.
    """
    out = torch.empty(count, dtype=torch.float64, device=device)
    grid = (triton.cdiv(count, CANDIDATES_PER_PROGRAM),)
    with launching_on(device):
        _gaps[grid](out, seed, start, count, stream, CANDIDATES=CANDIDATES_PER_PROGRAM)
    return out


@triton.jit(do_not_specialize=["seed", "start", "count", "stream"])
def _gaps(out, seed, start, count, stream, CANDIDATES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * CANDIDATES + tl.arange(0, CANDIDATES)
    j = tl.to_tensor(start).to(tl.int64) + row
    zeros = tl.zeros((CANDIDATES,), tl.uint32)
    low, high = (j & 0xFFFFFFFF).to(tl.uint32), ((j >> 32) & 0xFFFFFFFF).to(tl.uint32)
    word_0, word_1, _, _ = tl.philox(seed, low, high, zeros, zeros + tl.to_tensor(stream).to(tl.uint32))
    bits = ((word_1 & 0x1FFFFF).to(tl.int64) << 32) | word_0.to(tl.int64) | 1
    gap = -tl.log(bits.to(tl.float64) * 1.1102230246251565e-16)  # 2^-53
    tl.store(out + row, gap, mask=row < count)
