"""The index codes of chunks: fitted for a few budgets, shifted to the bits that each chunk should take.

The index of a chunk that takes a bit more is about twice as large, which is two of the fitted code's
half-octave classes. All chunks of as many whole bits share a code; one range-coded stream holds them, codes
in rising order of bits, chunks of a code in their own order. Decoding uses integers alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rcccodec.channel.classes import MinCostChoice, select_mincost
from rcccodec.channel.target import CostOfRange
from rcccodec.errors import ModelError
from rcccodec.index_code import FittedCode, decode_segments, encode_segments
from rcccodec.index_code.fitted import FREQUENCY_TOTAL, class_sizes, class_starts, fit
from rcccodec.latent.chunks import best_in_ranges, choose

MAX_CHUNK_BITS = 40  # log2 of the largest N of any index code
Fitted = Mapping[int, Sequence[int]]  # budget in bits -> 80 class frequencies


def chunk_bits(rates_millibits: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expected bits of each chunk, rounded to whole ones and at most ``MAX_CHUNK_BITS``: int64 (chunks,)."""
    upto = np.concatenate(([0], np.cumsum(np.asarray(rates_millibits, np.int64))))
    return np.minimum((np.diff(upto[starts]) + 500) // 1000, MAX_CHUNK_BITS)


def code_for(bits: int, fitted: Fitted, num_candidates: int) -> FittedCode:
    """The code of chunks of ``bits``: the one fitted for the next lower budget (or the lowest), shifted.

    Raises:
        ModelError: no code was fitted, or one is malformed.
    """
    if not fitted:
        raise ModelError("the model has no index code for chunks")
    nearest = max((budget for budget in fitted if budget <= bits), default=min(fitted))
    frequencies = list(FittedCode(fitted[nearest], num_candidates).frequencies)
    for _ in range(abs(bits - nearest)):
        frequencies = _doubled(frequencies) if bits > nearest else _halved(frequencies)
    return FittedCode(frequencies, num_candidates)


def costs_nats(
    bits: NDArray[np.int64], fitted: Fitted, num_candidates: int
) -> tuple[list[CostOfRange], NDArray[np.int64]]:
    """What indices cost in min-cost: ``cost_nats`` and ``kinds`` of :func:`rcccodec.latent.chunks.choose`."""
    kept, kinds = np.unique(bits, return_inverse=True)
    codes = [code_for(int(b), fitted, num_candidates) for b in kept]
    return [partial(_cost_nats, code) for code in codes], kinds.reshape(-1).astype(np.int64)


def encode_indices(
    indices: NDArray[np.int64], bits: NDArray[np.int64], fitted: Fitted, num_candidates: int
) -> bytes:
    """Indices (chunks,) of chunks of ``bits`` (chunks,), int64 both, as one range-coded payload.

    Raises:
        ValueError: an index out of [0, N), or as many bits as indices are not given.
        ModelError: as :func:`code_for`.
    """
    if np.shape(indices) != np.shape(bits):
        raise ValueError(f"{np.shape(indices)} indices of chunks, bits of {np.shape(bits)}")
    kept = [(code_for(int(b), fitted, num_candidates), bits == b) for b in np.unique(bits)]
    return encode_segments([(code, indices[which]) for code, which in kept])


def decode_indices(
    payload: bytes, bits: NDArray[np.int64], fitted: Fitted, num_candidates: int
) -> NDArray[np.int64]:
    """Inverse of :func:`encode_indices`, int64 (chunks,).

    Raises:
        FormatError: bytes that the encoder does not write for any indices.
        ModelError: as :func:`code_for`.
    """
    kept = np.unique(bits)
    counts = [(code_for(int(b), fitted, num_candidates), int((bits == b).sum())) for b in kept]
    indices = np.empty(len(bits), np.int64)
    for b, part in zip(kept, decode_segments(payload, counts), strict=True):
        indices[bits == b] = part
    return indices


def fit_frequencies(
    linear: ArrayLike | Tensor,
    quadratic: ArrayLike | Tensor,
    starts: NDArray[np.int64],
    *,
    coder: str,
    num_candidates: int,
    seeds: Sequence[int],
    stream: int = 0,
    device: str | torch.device = "cpu",
) -> list[int]:
    """Frequencies of the index classes of one coder and budget, from chunks of about that many bits.

    Chunks are split over the seeds, so that no one codebook's luck is learnt. For min-cost, choice and code
    are refitted to each other until neither changes, from several beginnings; the cheapest is kept.

    Args:
        seeds: one codebook each; as many as there are chunks at most are used.
        others: as in :func:`rcccodec.latent.chunks.choose`.

    Returns:
        80 integers as FittedCode takes them.

    Raises:
        ValueError: no chunks, or no seeds.
    """
    seeds = list(seeds)[: len(starts) - 1]
    if not seeds:
        raise ValueError("no chunks to fit an index code to")
    linear, quadratic = (torch.as_tensor(part) for part in (linear, quadratic))
    at = np.linspace(0, len(starts) - 1, len(seeds) + 1).astype(np.int64)
    classes = class_starts(num_candidates)
    parts = []
    for seed, first, last in zip(seeds, at[:-1], at[1:], strict=True):
        inside = slice(int(starts[first]), int(starts[last]))
        terms = linear[inside], quadratic[inside], starts[first : last + 1] - starts[first]
        common = {"seed": seed, "stream": stream, "device": device}
        if coder == "mincost":
            parts.append(best_in_ranges(*terms, ranges=[*classes.tolist(), num_candidates], **common))
        else:
            parts.append((choose(*terms, coder=coder, num_candidates=num_candidates, **common),))
    if coder == "mincost":
        choice = _settled(*(torch.cat(one) for one in zip(*parts, strict=True)), num_candidates)
        return fit(choice.indices.numpy(), num_candidates=num_candidates)
    return fit(np.concatenate([part[0] for part in parts]), num_candidates=num_candidates)


def _settled(indices: Tensor, scores: Tensor, num_candidates: int) -> MinCostChoice:
    """The cheapest of several min-cost iterations on the best candidate of every class (chunks, classes)."""
    starts, sizes = class_starts(num_candidates), class_sizes(num_candidates)
    octaves = np.log2(starts + 1)
    choices = [
        select_mincost(indices, scores, lengths, beta=1.0, class_sizes=sizes)
        for plateau in range(2, 1 + int(octaves[-1]))  # the first 2^plateau indices alike, dearer beyond
        for lengths in [np.where(starts < 1 << plateau, float(plateau), 1.5 * octaves - 0.5 * plateau + 1)]
    ]
    choices = choices or [select_mincost(indices, scores, np.log2(sizes), beta=1.0, class_sizes=sizes)]
    return min(choices, key=lambda one: _mean_nats(one))


def _mean_nats(choice: MinCostChoice) -> float:
    return float(
        (choice.distortion + math.log(2) * torch.from_numpy(choice.lengths_bits)[choice.classes]).mean()
    )


def _cost_nats(code: FittedCode, start: int, stop: int) -> NDArray[np.float64]:
    return math.log(2) * code.lengths_bits(np.arange(start, stop))


def _doubled(frequencies: list[int]) -> list[int]:
    """Of indices about twice as large: 0 becomes 0 or 1, 1 becomes 2 or 3, 2 becomes 4 or 5, ..."""
    split = [half for one in frequencies[:2] for half in (one - one // 2, one // 2)]
    return _whole([*split, *frequencies[2:-2]])


def _halved(frequencies: list[int]) -> list[int]:
    """Of indices about half as large."""
    return _whole([sum(frequencies[:2]), sum(frequencies[2:4]), *frequencies[4:], 1, 1])


def _whole(frequencies: list[int]) -> list[int]:
    """At least one each, and the sum of a fitted code at the expense of the most frequent."""
    kept = [max(1, one) for one in frequencies]
    kept[kept.index(max(kept))] += FREQUENCY_TOTAL - sum(kept)
    return kept
