"""Philox words and latents inside Triton kernels; the same bits as `rcccodec.randomness`.

Import this only where Triton is installed; `rcccodec.kernels.usable` says where.
"""

import triton
import triton.language as tl


@triton.jit
def normal_tile(table, seed, k, first_block, stream, BLOCKS: tl.constexpr):
    """Latents of the candidates ``k``, dimensions 8 first_block .. 8 (first_block + BLOCKS) - 1.

    table: pointer to the 65,536 quantiles. seed, stream: scalars of any integer width, not negative.
    k: int64 (K,). Returns float32 (K, 8 BLOCKS); BLOCKS is a power of two.

    k stays 64 bits wide until it is split into counter words: k and k * dim pass 2^31 in practice.
    """
    zeros = tl.zeros((k.shape[0], BLOCKS), tl.uint32)
    low = zeros + (k & 0xFFFFFFFF).to(tl.uint32)[:, None]
    high = zeros + ((k >> 32) & 0xFFFFFFFF).to(tl.uint32)[:, None]
    block = zeros + (first_block + tl.arange(0, BLOCKS)).to(tl.uint32)[None, :]
    word_0, word_1, word_2, word_3 = tl.philox(
        seed, low, high, block, zeros + tl.to_tensor(stream).to(tl.uint32)
    )
    words = tl.interleave(tl.interleave(word_0, word_2), tl.interleave(word_1, word_3))  # 4 block + word
    halves = tl.interleave(words & 0xFFFF, words >> 16)  # 8 block + 2 word + half
    return tl.load(table + halves.to(tl.int32))
