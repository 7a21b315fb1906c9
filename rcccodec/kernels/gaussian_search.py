"""Search over the exact Gaussian proposal in one kernel: from the seed to winners, no candidate in memory.

    program (range of candidates, tile of blocks):
        k --> Philox --> normals z --> beta ||S z||^2 - 2 beta x . S z + offset_k --> running minimum
    winners (ranges, blocks) --> join --> best, index and runner-up of every block

S scales the latents to candidates. ``beta ||x||^2``, the same for all candidates of a block, is left out of
the scores. They are float32 and nominate only: where the runner-up is within rounding error of the best, the
caller has to look again (`rcccodec.channel`).
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from rcccodec.kernels import launching_on
from rcccodec.kernels.philox import normal_tile
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import normal_table

MAX_BLOCKS_PER_PROGRAM = 64
CANDIDATES_PER_STEP = 64
MAX_DIMS_PER_STEP = 32  # with eight warps the whole step stays in registers
CANDIDATES_PER_PROGRAM = 2048


@dataclass(frozen=True)
class Winners:
    """Of every block, over the candidates that were looked at.

    scores: float32 (B,), beta d + offset - beta ||x||^2 of the best; +inf if all offsets are infinite.
    indices: int64 (B,), the lowest at ties, -1 where the score is infinite.
    runners_up: float32 (B,), the lowest score of the others.
    """

    scores: Tensor
    indices: Tensor
    runners_up: Tensor

    def joined(self, later: "Winners") -> "Winners":
        """Winners of both sets of candidates, those of ``later`` having the higher indices."""
        return _joined(*(torch.stack(pair) for pair in zip(self._parts(), later._parts(), strict=True)))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.scores, self.indices, self.runners_up


@dataclass(frozen=True)
class GaussianScores:
    """What the scores of blocks against Gaussian candidates are made of, on the device.

    cross: float32 (B, D), -2 beta x S. square: float32 (D,), beta S^2. D is ``latent_dim`` padded with zeros.
    """

    cross: Tensor
    square: Tensor

    @staticmethod
    def of(
        x: Tensor, proposal: GaussianProposal, beta: float, device: str | torch.device
    ) -> "GaussianScores":
        """For blocks x, float (B, dim)."""
        variances = proposal.variances
        active = np.flatnonzero(variances)
        step = _dims_per_step(len(active))
        padded = triton.cdiv(len(active), step) * step
        scale = torch.from_numpy(np.sqrt(variances[active])).to(device)
        cross = torch.zeros(len(x), padded, dtype=torch.float32, device=device)
        square = torch.zeros(padded, dtype=torch.float32, device=device)
        cross[:, : len(active)] = -2 * beta * x.to(device, torch.float64)[:, active] * scale
        square[: len(active)] = beta * scale.square()
        return GaussianScores(cross, square)


def search_range(
    of_blocks: GaussianScores,
    offsets: Tensor,
    *,
    start: int,
    seed: int,
    stream: int,
    precision: str = "ieee",
    per_program: int = CANDIDATES_PER_PROGRAM,
) -> Winners:
    """Winners among the candidates start .. start + n - 1 of ``seed`` and ``stream``.

    Args:
        of_blocks: the blocks, B > 0.
        offsets: float32 (n,) on their device, ln W_k or the cost of index k in nats, n > 0; +inf excludes.
        start: first candidate; any that 63 bits hold.
        precision: of the products, as Triton's ``dot`` names it: "ieee" is float32 throughout; "tf32x3"
            and "tf32" use tensor cores and need wider tolerances.
        per_program: candidates of one program, a multiple of 64; changes speed only.

    Returns:
        Winners, on the device.

    Invariants: the winners of a range are those of its parts joined; equal bits for equal tiles.
    """
    blocks, n = len(of_blocks.cross), len(offsets)
    ranges = triton.cdiv(n, per_program)
    device = offsets.device
    scores = torch.empty(ranges, blocks, dtype=torch.float32, device=device)
    runners_up = torch.empty_like(scores)
    indices = torch.empty(ranges, blocks, dtype=torch.int64, device=device)
    tile = min(MAX_BLOCKS_PER_PROGRAM, max(16, triton.next_power_of_2(blocks)))
    padded = of_blocks.cross.shape[1]
    with launching_on(device):
        _search[(ranges, triton.cdiv(blocks, tile))](
            of_blocks.cross, of_blocks.square, offsets.contiguous(), normal_table(str(device)),
            scores, indices, runners_up, seed, stream, start, n, blocks, padded,
            TILE=tile, STEP=CANDIDATES_PER_STEP, PER_PROGRAM=per_program,
            DIMS=_dims_per_step(padded), PRECISION=precision, num_warps=8,
        )  # fmt: skip
    return _joined(scores, indices, runners_up)


def _joined(scores: Tensor, indices: Tensor, runners_up: Tensor) -> Winners:
    """Join winners (parts, B), parts in the order of their candidates; no wait for the device."""
    best, part = scores.min(dim=0)
    others = scores.scatter(0, part[None], torch.inf).amin(dim=0)
    return Winners(best, indices.gather(0, part[None])[0], torch.minimum(others, runners_up.amin(dim=0)))


def _dims_per_step(dims: int) -> int:
    """Latents that one matrix product of the kernel takes in: a power of two, 16 at least as ``dot`` asks."""
    return min(MAX_DIMS_PER_STEP, max(16, triton.next_power_of_2(dims)))


@triton.jit(do_not_specialize=["seed", "stream", "start", "n", "blocks"])
def _search(
    cross, square, offsets, table, scores, indices, runners_up, seed, stream, start, n, blocks, padded,
    TILE: tl.constexpr, STEP: tl.constexpr, PER_PROGRAM: tl.constexpr, DIMS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * PER_PROGRAM  # of this program, counted from ``start``
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    in_tile = row < blocks
    row_start = row.to(tl.int64) * padded
    best = tl.full((TILE,), float("inf"), tl.float32)
    second = tl.full((TILE,), float("inf"), tl.float32)
    where = tl.full((TILE,), -1, tl.int32)  # counted from ``first``
    for step in range(0, tl.minimum(n - first, PER_PROGRAM).to(tl.int32), STEP):
        place = first + step + tl.arange(0, STEP)
        k = tl.to_tensor(start).to(tl.int64) + place
        total = tl.zeros((TILE, STEP), tl.float32)
        own = tl.load(offsets + place, mask=place < n, other=float("inf"))
        for dim in range(0, padded, DIMS):
            z = normal_tile(table, seed, k, dim // 8, stream, DIMS // 8)  # (STEP, DIMS)
            column = dim + tl.arange(0, DIMS)
            own += tl.sum(z * z * tl.load(square + column)[None, :], axis=1)
            at = cross + row_start[:, None] + column[None, :]
            total = tl.dot(
                tl.load(at, mask=in_tile[:, None], other=0.0), tl.trans(z), total, input_precision=PRECISION
            )
        total += own[None, :]
        low, lowest = tl.min(total, axis=1, return_indices=True, return_indices_tie_break_left=True)
        others = tl.where(tl.arange(0, STEP)[None, :] == lowest[:, None], float("inf"), total)
        second = tl.minimum(tl.minimum(second, tl.min(others, axis=1)), tl.maximum(best, low))
        where = tl.where(low < best, step + lowest, where)  # at ties the lower index stays
        best = tl.minimum(best, low)
    at = tl.program_id(0).to(tl.int64) * blocks + row
    index = tl.to_tensor(start).to(tl.int64) + first + where
    tl.store(scores + at, best, mask=in_tile)
    tl.store(runners_up + at, second, mask=in_tile)
    tl.store(indices + at, tl.where(where < 0, -1, index), mask=in_tile)
