"""Distances of all source blocks to a chunk of candidates, as one matrix product a tile.

Squared distances are ``||x||^2 - 2 x.y + ||y||^2`` with x and y centred on the mean source block, which keeps
the cancellation at the scale of the data's spread.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rcccodec.arithmetic import full_float32
from rcccodec.proposals import Proposal
from rcccodec.randomness import standard_normals

CHUNK_CPU = 4096
CHUNK_CUDA = 1 << 15
_CHUNK_VALUES_CPU, _CHUNK_VALUES_CUDA = 1 << 24, 1 << 29  # of all candidates of a chunk
_TILE_SCORES_CPU = 1 << 21  # scores of one tile: 8 MiB of float32
_TILE_SCORES_CUDA = 1 << 26


def candidates_at(
    proposal: Proposal, indices: Tensor, *, seed: int, stage: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Make the candidates ``indices`` (int64 (n,)) alone, as a decoder does: (n, dim) on their device."""
    return proposal.candidates(standard_normals(seed, indices, proposal.latent_dim, stage).to(dtype))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Row-by-row summed squared error of two (n, dim) tensors by differences, float64 (n,)."""
    return (x.to(torch.float64) - y.to(torch.float64)).square().sum(dim=1)


class CentredBlocks:
    """Source blocks on a device, centred on their mean, cut in tiles that meet a candidate chunk."""

    def __init__(self, x: Tensor, device: torch.device) -> None:
        exact = x.to(device, torch.float64)
        self.mean = exact.mean(dim=0) if x.shape[0] else exact.sum(dim=0)
        centred = exact - self.mean
        self.square_norms = centred.square().sum(dim=1)  # float64 (B,)
        self.x = centred.to(torch.float32)
        self.mean = self.mean.to(torch.float32)
        size = _TILE_SCORES_CPU if device.type == "cpu" else 0
        self.buffer = torch.empty(size, dtype=torch.float32, device=device)

    def keep(self, which: Tensor) -> None:
        """Only the rows ``which``; the centre stays."""
        self.x, self.square_norms = self.x[which], self.square_norms[which]

    def centre(self, y: Tensor) -> Tensor:
        """Candidates (n, dim) in the frame of the blocks."""
        return y - self.mean

    def tiles(self, y_centred: Tensor, row: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
        """Yield (block rows, ``row + scale x y^T`` float32 (rows, n)); the next tile overwrites it."""
        limit = _TILE_SCORES_CPU if y_centred.device.type == "cpu" else _TILE_SCORES_CUDA
        yield from score_tiles(self.x, y_centred, row, scale, self.buffer, limit)


def score_tiles(
    x: Tensor, y: Tensor, row: Tensor, scale: float, buffer: Tensor, limit: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of x, ``row + scale x y^T``) in tiles of about ``limit`` scores, in ``buffer`` if it is
    large enough."""
    n = y.shape[0]
    height = max(1, min(x.shape[0], limit // max(1, n)))
    if buffer.numel() < height * n:
        buffer = torch.empty(height * n, dtype=torch.float32, device=y.device)
    for first in range(0, x.shape[0], height):
        part = x[first : first + height]
        scores = buffer[: part.shape[0] * n].view(part.shape[0], n)
        torch.addmm(row, part, y.T, alpha=scale, out=scores)
        yield slice(first, first + part.shape[0]), scores


@full_float32()
def chunk_candidates(
    proposal: Proposal,
    start: int,
    count: int,
    seed: int,
    stage: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Candidates start .. start + count - 1 in ``dtype`` on ``device``, (count, dim)."""
    k = torch.arange(start, start + count, dtype=torch.int64, device=device)
    with torch.no_grad():
        return candidates_at(proposal, k, seed=seed, stage=stage, dtype=dtype)


def exact_candidates(
    proposal: Proposal, indices: Tensor, seed: int, stage: int, device: torch.device, batch: int = 1024
) -> Tensor:
    """Candidates of any indices in float64, made on ``device`` in batches, returned on the CPU, (n, dim)."""
    made = torch.empty(indices.numel(), proposal.dim, dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, indices.numel(), batch):
            part = indices[first : first + batch].to(device)
            made[first : first + batch] = candidates_at(proposal, part, seed=seed, stage=stage)
    return made


def default_chunk(device: str | torch.device, dim: int = 1) -> int:
    """Candidates of ``dim`` values to make and score at a time; changes speed and memory only."""
    on_cpu = torch.device(device).type == "cpu"
    most, values = (CHUNK_CPU, _CHUNK_VALUES_CPU) if on_cpu else (CHUNK_CUDA, _CHUNK_VALUES_CUDA)
    return min(most, max(1, values // dim))
