"""Common randomness: what a seed means, to the bit, on every device.

Philox4x32-10 (Salmon et al. 2011) is a keyed bijection on 128-bit counters, so any candidate can be made
alone:

    key     = (seed low 32, seed high 32)
    counter = (k low 32, k high 32, dimension block, stream)         # the order of Triton's ``tl.philox``
    4 words = 8 sixteen-bit uniforms, low half of word 0 first  ->  dimensions 8b .. 8b + 7 of candidate k

Everything is integer arithmetic up to one look-up in a table of exact float32 values; no library's normal
distribution is used, because their streams change between versions and devices.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from rcccodec import kernels

WORD_MASK = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
DIMS_PER_BLOCK = 8
NORMAL_SCALE = 1 << 16
ARRIVAL_STREAM = 1 << 16  # stage s: latents on stream s, arrival times on stream ARRIVAL_STREAM + s
_COUNTERS_PER_PASS = 1 << 15  # keeps the int64 scratch of one pass inside the second-level cache


def philox4x32(counter: Tensor, seed: int) -> Tensor:
    """Ten rounds of Philox4x32 under the key ``seed``.

    Args:
        counter: int64 (..., 4), every word in [0, 2^32).
        seed: unsigned 64-bit key; its low half is key word 0.

    Returns:
        int64 (..., 4), words in [0, 2^32), on the device of ``counter``.

    Raises:
        ValueError: the seed does not fit 64 bits, or ``counter`` is not int64 with a last axis of 4.

    Invariants: known answers of Random123; a bijection for every key; same words on every device.
    """
    if counter.dtype != torch.int64 or counter.shape[-1:] != (4,):
        raise ValueError(f"counter must be int64 (..., 4), got {counter.dtype} {tuple(counter.shape)}")
    words = [counter[..., i].clone() for i in range(4)]
    return torch.stack(_rounds(words, seed), dim=-1)


def standard_normals(seed: int, indices: Tensor, dim: int, stream: int) -> Tensor:
    """Latents of the candidates ``indices``: independent normals on a grid of 2^-16.

    ``z = round(2^16 Phi^-1((u + 1/2) / 2^16)) / 2^16`` with u one 16-bit half of a Philox word.

    Args:
        seed: unsigned 64-bit.
        indices: int64 (n,), candidate numbers k >= 0, in any order.
        dim: latent length; dimension i never depends on ``dim``.
        stream: in [0, 2^32); streams of one seed are disjoint.

    Returns:
        float32 (n, dim) on the device of ``indices``.

    Invariants: row j depends on ``indices[j]`` alone; bit-identical on every device.
    """
    _check_stream(stream)
    if indices.dtype != torch.int64 or indices.dim() != 1:
        raise ValueError(f"indices must be int64 (n,), got {indices.dtype} {tuple(indices.shape)}")
    n = indices.shape[0]
    if n == 0 or dim == 0:
        return torch.empty(n, dim, dtype=torch.float32, device=indices.device)
    if kernels.usable(indices.device):
        from rcccodec.kernels.latents import normals

        return normals(seed, indices, dim, stream)
    return plain_normals(seed, indices, dim, stream)


def plain_normals(seed: int, indices: Tensor, dim: int, stream: int) -> Tensor:
    """:func:`standard_normals` in plain torch, of arguments that it has checked and that are not empty."""
    n, num_blocks = indices.shape[0], -(-dim // DIMS_PER_BLOCK)
    table = normal_table(str(indices.device))
    blocks = torch.arange(num_blocks, device=indices.device)
    out = torch.empty(n, num_blocks * DIMS_PER_BLOCK, dtype=torch.float32, device=indices.device)
    rows_per_pass = max(1, _COUNTERS_PER_PASS // num_blocks) if indices.device.type == "cpu" else n
    for first in range(0, n, rows_per_pass):
        k = indices[first : first + rows_per_pass, None]
        shape = (k.shape[0], num_blocks)
        words = _rounds(
            [
                (k & WORD_MASK).expand(shape).contiguous(),
                (k >> 32).bitwise_and_(WORD_MASK).expand(shape).contiguous(),
                blocks.expand(shape).contiguous(),
                torch.full(shape, stream, dtype=torch.int64, device=indices.device),
            ],
            seed,
        )
        halves = torch.empty(*shape, DIMS_PER_BLOCK, dtype=torch.int64, device=indices.device)
        for i, word in enumerate(words):
            torch.bitwise_and(word, 0xFFFF, out=halves[..., 2 * i])
            torch.bitwise_right_shift(word, 16, out=halves[..., 2 * i + 1])
        chunk = out[first : first + rows_per_pass].view(-1)
        torch.index_select(table, 0, halves.view(-1), out=chunk)
    return out[:, :dim].contiguous()


def exponentials(seed: int, start: int, count: int, stream: int) -> Tensor:
    """Unit exponentials X_j, j = start .. start + count - 1, for the encoder's arrival times.

    ``X = -ln u`` with u an odd multiple of 2^-53 in (0, 1), from the first two words of counter (j, 0,
    stream). Only an encoder needs them, so the last bit of ``log`` may differ between machines.

    Returns:
        float64 (count,), on the CPU, all finite and > 0.
    """
    _check_stream(stream)
    j = torch.arange(start, start + count, dtype=torch.int64)
    zeros = torch.zeros_like(j)
    words = _rounds([j & WORD_MASK, (j >> 32) & WORD_MASK, zeros, zeros + stream], seed)
    mantissa = ((words[1] & 0x1FFFFF) << 32 | words[0]) | 1  # 53 bits, odd: u is never 0 nor 1
    return -torch.log(mantissa.to(torch.float64) * 2.0**-53)


@lru_cache(maxsize=8)
def normal_table(device: str = "cpu") -> Tensor:
    """The 65,536 normal quantiles as float32, exact multiples of 2^-16, odd-symmetric by construction."""
    if device != "cpu":
        return normal_table("cpu").to(device)
    inv_cdf = NormalDist().inv_cdf
    lower = [math.floor(NORMAL_SCALE * inv_cdf((u + 0.5) / 65536) + 0.5) for u in range(32768)]
    scaled = lower + [-value for value in reversed(lower)]
    return torch.tensor(scaled, dtype=torch.float32) / NORMAL_SCALE


def _rounds(words: list[Tensor], seed: int) -> list[Tensor]:
    """The ten rounds, in place on four int64 tensors the caller gives up; returns masked words."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be an unsigned 64-bit integer, got {seed}")
    c0, c1, c2, c3 = words
    key0, key1 = seed & WORD_MASK, seed >> 32
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2^64, which keeps all 64 bits; c1, c3 carry junk above bit 31 till masked
        low0, low1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        torch.bitwise_right_shift(low1, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(key0).bitwise_and_(
            WORD_MASK
        )
        torch.bitwise_right_shift(low0, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(key1).bitwise_and_(
            WORD_MASK
        )
        c1, c3 = low1, low0
        key0, key1 = (key0 + KEY_STEPS[0]) & WORD_MASK, (key1 + KEY_STEPS[1]) & WORD_MASK
    return [c0, c1.bitwise_and_(WORD_MASK), c2, c3.bitwise_and_(WORD_MASK)]


def _check_stream(stream: int) -> None:
    if not 0 <= stream <= WORD_MASK:
        raise ValueError(f"stream must be in [0, 2^32), got {stream}")
