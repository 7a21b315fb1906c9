"""Channel simulation of Gaussian latents in chunks of dimensions: one search and one index a chunk.

    expected rates --cut--> chunks --choose--> index k of each    (the score of k is stated there)
    indices --values--> z of every dimension                      dimension d of a chunk is dimension d of z_k

All chunks of a call share one codebook, so the scores of a block of candidates are one matrix product: a row
(quadratic, linear) a chunk against a row (z^2, z) a candidate. As for the blocks of a picture, the law holds
for each chunk over a random seed; chunks of one call are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rcccodec.arithmetic import full_float32
from rcccodec.channel.distances import default_chunk, score_tiles
from rcccodec.channel.target import CostOfRange
from rcccodec.channel.weights import LogWeights
from rcccodec.randomness import normal_table, standard_normals

MAX_CHUNK_DIMS = 512
# log2 N less the budget. More brings PFR and ORC nearer to their law; min-cost prefers a larger budget.
MARGIN_BITS = {"pfr": 4, "orc": 4, "mincost": 2}
_WIDTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, MAX_CHUNK_DIMS)
_TILE_SCORES_CPU, _TILE_SCORES_CUDA = 1 << 19, 1 << 26
_TERMS_AT_ONCE = 1 << 19  # of scores made again in float64

Progress = Callable[[int, int], None]  # (candidates done, candidates in all)


def cut(rates_millibits: NDArray[np.int64], budget_millibits: int) -> NDArray[np.int64]:
    """Where chunks start, and n at the end: int64 (chunks + 1,). Integers only, so all machines agree.

    Greedy and in order: a chunk ends before the dimension that would take its sum above the budget, or after
    ``MAX_CHUNK_DIMS``; a dimension above the budget is a chunk of its own.

    Args:
        rates_millibits: integers (n,) >= 0, expected divergence of each dimension.
        budget_millibits: of a chunk, >= 0.

    Raises:
        ValueError: a negative rate or budget, or rates whose sum does not fit 63 bits.
    """
    rates = np.asarray(rates_millibits, dtype=np.int64)
    n = len(rates)
    if budget_millibits < 0 or (n and int(rates.min()) < 0):
        raise ValueError("rates and the budget of a chunk must not be negative")
    if n and (int(rates.max()) * n).bit_length() > 62:
        raise ValueError(f"a rate of {rates.max()} millibits in {n} dimensions is too much")
    upto = np.cumsum(rates)
    starts, start, spent = [0], 0, 0
    while start < n:
        fits = int(np.searchsorted(upto, spent + min(budget_millibits, 1 << 62), side="right"))
        start = min(max(fits, start + 1), start + MAX_CHUNK_DIMS)
        starts.append(start)
        spent = int(upto[start - 1])
    return np.array(starts, dtype=np.int64)


def choose(
    linear: ArrayLike | Tensor,
    quadratic: ArrayLike | Tensor,
    starts: NDArray[np.int64],
    *,
    coder: str,
    num_candidates: int,
    seed: int,
    stream: int,
    cost_nats: CostOfRange | Sequence[CostOfRange] | None = None,
    kinds: NDArray[np.int64] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """The candidate of every chunk, ``argmin_k sum_d quadratic_d z_kd^2 + linear_d z_kd + offset_k``.

    ``offset_k`` is ln W_k of PFR or ORC (NERD-RCC eq. 28, 30, 36), or for min-cost what k costs in nats.
    Decided in float64; the lowest index wins ties. Memory does not grow with N. PFR and ORC follow the law
    exactly as N grows; a chunk whose own divergence comes near log2 N bits takes the best there is, which is
    further off than a sample.

    Args:
        linear, quadratic: float32 (n,), nats; for N(mean, noise^2) under N(centre, scale^2) these are
            -scale (mean - centre) / noise^2 and (scale^2 / noise^2 - 1) / 2 >= 0.
        starts: int64 (chunks + 1,) of :func:`cut`.
        coder: "pfr", "orc" or "mincost".
        num_candidates: N.
        seed, stream: common randomness; ``stream`` < 2^16, arrival times come from another one.
        cost_nats: of a range of indices, for "mincost" only: (start, stop) -> nats, +inf excludes one;
            or several such.
        kinds: int (chunks,), which of several ``cost_nats`` each chunk pays.
        progress: called after every block of candidates.

    Returns:
        int64 (chunks,), 0-based.

    Raises:
        ValueError: terms that are not finite or do not match ``starts``, a cost missing or out of place.

    Invariants: independent of how candidates and chunks are grouped.
    """
    if (coder == "mincost") != (cost_nats is not None):
        raise ValueError("min-cost needs the cost of an index, and no other coder does")
    if cost_nats is None:
        offsets: list[CostOfRange] = [LogWeights(coder, num_candidates, seed=seed, stage=stream)]  # type: ignore[arg-type]
    else:
        offsets = [cost_nats] if callable(cost_nats) else list(cost_nats)
    indices, _ = best_in_ranges(
        linear, quadratic, starts, ranges=[0, num_candidates], offsets=offsets, kinds=kinds,
        seed=seed, stream=stream, device=device, progress=progress,
    )  # fmt: skip
    return indices[:, 0].numpy()


def values(
    indices: NDArray[np.int64], starts: NDArray[np.int64], *, seed: int, stream: int
) -> NDArray[np.float32]:
    """z of the chosen candidates, float32 (n,): what a decoder makes, whatever N was.

    Args: indices int64 (chunks,) >= 0; starts int64 (chunks + 1,) of :func:`cut`.
    """
    z = np.zeros(int(starts[-1]), np.float32)
    for width, which in _by_width(starts):
        made = standard_normals(seed, torch.from_numpy(np.asarray(indices, np.int64)[which]), width, stream)
        place, inside = _places(starts, which, width)
        z[place[inside]] = made.numpy()[inside]
    return z


@full_float32()
def best_in_ranges(
    linear: ArrayLike | Tensor,
    quadratic: ArrayLike | Tensor,
    starts: NDArray[np.int64],
    *,
    ranges: Sequence[int],
    offsets: Sequence[CostOfRange] = (),
    kinds: NDArray[np.int64] | None = None,
    seed: int,
    stream: int,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """The best candidate of every chunk in each of several ranges of candidates, from one pass.

    Args:
        ranges: where ranges start, rising, and the end of the last.
        offsets: one a kind of chunk; none: nothing is added to the scores.
        others: as in :func:`choose`.

    Returns:
        indices int64 and scores float64, (chunks, ranges) each, on the CPU.
    """
    place = torch.device(device)
    groups = _groups(linear, quadratic, starts, kinds, max(1, len(offsets)), place)
    shape = (len(starts) - 1, len(ranges) - 1)
    indices = torch.zeros(shape, dtype=torch.int64)
    scores = torch.full(shape, torch.inf, dtype=torch.float64)
    widest = max((group.width for group in groups), default=0)
    size = _TILE_SCORES_CPU if place.type == "cpu" else 0
    buffer = torch.empty(size, dtype=torch.float32, device=place)
    for column, (low, high) in enumerate(pairwise(ranges)):
        best = [_Best.none(group) for group in groups]
        for first in range(low, high, default_chunk(place)):
            last = min(first + default_chunk(place), high)
            z = standard_normals(seed, torch.arange(first, last, device=place), widest, stream)
            y = torch.stack((z.square(), z), dim=2).view(last - first, 2 * widest)
            rows = [torch.as_tensor(offset(first, last), dtype=torch.float64).to(place) for offset in offsets]
            rows = rows or [torch.zeros(last - first, dtype=torch.float64, device=place)]
            for group, so_far in zip(groups, best, strict=True):
                _look(group, so_far, first, y, rows[group.kind], buffer)
            if progress is not None:
                progress(last - ranges[0], ranges[-1] - ranges[0])
        for group, found in zip(groups, best, strict=True):
            indices[group.chunks, column] = found.indices.cpu()
            scores[group.chunks, column] = found.scores.cpu()
    return indices, scores


@dataclass(frozen=True)
class _Group:
    """Chunks that are scored together, padded with zeros to one width.

    chunks: int64 (g,). terms: float32 (g, 2 width), quadratic and linear in turn. size: float64 (g,), nats,
    no smaller than the summed magnitude of what is added up in a score.
    """

    chunks: Tensor
    kind: int
    width: int
    terms: Tensor
    size: Tensor


@dataclass(frozen=True)
class _Best:
    """Of every chunk of a group so far: float64 scores, int64 indices; updated in place."""

    scores: Tensor
    indices: Tensor

    @staticmethod
    def none(group: _Group) -> _Best:
        return _Best(torch.full_like(group.size, torch.inf), torch.zeros_like(group.size, dtype=torch.int64))


def _look(group: _Group, best: _Best, first: int, y: Tensor, offset: Tensor, buffer: Tensor) -> None:
    """Update the best of a group with the candidates from ``first`` on, whose (z^2, z) are the rows of y.

    Float32 scores nominate: whatever their rounding error could hide is made again in float64.
    """
    width = 2 * group.width
    finite = offset[offset.isfinite()]
    if not finite.numel():
        return
    # a sum of `width` rounded products and an offset: standard bound on the error, in any order of summation
    slack = (width + 4) * 2.0**-24 * (group.size + finite.abs().max())
    limit = _TILE_SCORES_CPU if y.device.type == "cpu" else _TILE_SCORES_CUDA
    y = y[:, :width]
    for rows, scores in score_tiles(group.terms, y, offset.float(), 1.0, buffer, limit):
        least = scores.amin(1).double()
        near = (least <= best.scores[rows] + slack[rows]).nonzero()[:, 0]
        if not near.numel():
            continue
        chunk = near + rows.start
        ceiling = torch.minimum(best.scores[chunk] + slack[chunk], least[near] + 2 * slack[chunk])
        ceiling = torch.nextafter(ceiling.float(), torch.full_like(ceiling, torch.inf, dtype=torch.float32))
        row, candidate = (scores[near] <= ceiling[:, None]).nonzero().unbind(1)
        exact = _exact(group.terms, chunk[row], y, candidate) + offset[candidate]
        lowest = torch.full_like(ceiling, torch.inf, dtype=torch.float64).scatter_reduce_(
            0, row, exact, "amin"
        )
        candidate = candidate.where(exact == lowest[row], len(y))
        where = torch.full_like(chunk, len(y)).scatter_reduce_(0, row, candidate, "amin")
        better = lowest < best.scores[chunk]
        best.scores[chunk[better]] = lowest[better]
        best.indices[chunk[better]] = where[better] + first


def _exact(terms: Tensor, chunks: Tensor, y: Tensor, candidates: Tensor) -> Tensor:
    """Scores of pairs in float64: z is exact in float32, and its square in float64."""
    step = max(1, _TERMS_AT_ONCE // terms.shape[1])
    parts = []
    for some, z in zip(chunks.split(step), candidates.split(step), strict=True):
        values = y[z, 1::2].double()
        pair = terms[some].double()
        parts.append(((pair[:, ::2] * values + pair[:, 1::2]) * values).sum(1))
    return torch.cat(parts)


def _groups(
    linear: ArrayLike | Tensor,
    quadratic: ArrayLike | Tensor,
    starts: NDArray[np.int64],
    kinds: NDArray[np.int64] | None,
    num_kinds: int,
    place: torch.device,
) -> list[_Group]:
    both = [np.asarray(torch.as_tensor(part).cpu(), dtype=np.float32) for part in (quadratic, linear)]
    if any(part.shape != (int(starts[-1]),) or not np.isfinite(part).all() for part in both):
        raise ValueError(f"terms must be finite, ({starts[-1]},)")
    kinds = np.zeros(len(starts) - 1, np.int64) if kinds is None else np.asarray(kinds)
    if kinds.shape != (len(starts) - 1,) or (kinds.size and not 0 <= kinds.min() <= kinds.max() < num_kinds):
        raise ValueError("kinds must name one of the costs for every chunk")
    most = float(normal_table()[-1])
    made = []
    for width, of_width in _by_width(starts):
        for kind in np.unique(kinds[of_width]):
            which = of_width[kinds[of_width] == kind]
            at, inside = _places(starts, which, width)
            terms = np.stack([np.where(inside, part[at], 0) for part in both], axis=2)
            size = np.abs(terms).sum(1, dtype=np.float64) @ np.array([most * most, most])
            made.append(
                _Group(
                    torch.from_numpy(which),
                    int(kind),
                    width,
                    torch.from_numpy(terms.reshape(len(which), 2 * width)).to(place),
                    torch.from_numpy(size).to(place),
                )
            )
    return made


def _by_width(starts: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(width, chunks that are padded to it), int64 each; widths rise."""
    dims = np.diff(starts)
    if dims.size and not 0 < dims.min() <= dims.max() <= MAX_CHUNK_DIMS:
        raise ValueError(f"a chunk must have 1 to {MAX_CHUNK_DIMS} dimensions")
    place = np.searchsorted(_WIDTHS, dims)
    for i in np.unique(place):
        yield _WIDTHS[i], np.flatnonzero(place == i)


def _places(
    starts: NDArray[np.int64], which: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Dimension that each place of the padded chunks holds, clipped, and which places are not padding."""
    at = starts[which][:, None] + np.arange(width)
    return np.minimum(at, starts[-1] - 1), at < starts[which + 1][:, None]
