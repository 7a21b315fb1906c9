"""A random trellis: 2^bits candidates for a whole tile, the best of them found exactly.

    bits      b_1 b_2 b_3 ...            a register holds the last L of them, at first zeros
    n_i       bits that have come in when dimension i is read, from the expected rates alone (``schedule``)
    z_i       = s_i (-1)^b  label(state >> 1, slot)   with state the register, b its lowest bit,
              slot the place of i among the dimensions read at the same time, s_i a random sign

Every path is a candidate of nearly normal dimensions, and paths that part share nothing L bits on. So this
is a search for the candidate that minimises sum_i (quadratic_i z_i^2 + linear_i z_i), as the search of one
chunk is, over 2^(thousands of bits) of them in 2^L steps a bit: Viterbi's algorithm (1967) on a shift
register, of which random trellis codes (Jelinek 1969) and bitshift trellises (QTIP, arXiv 2406.11235) are
made. All paths cost the same bits, there is no index code and nothing is lost at a chunk's end; like
min-cost it picks the best candidate and is not an exact channel simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.container import MAX_LOG2_STATES
from rcccodec.randomness import normal_table, philox4x32
from rcccodec.threads import Tell, each_alone

GAIN_ONE = 64  # of ``schedule``: the expected rates as they are
MILLIBITS = 1000
FEW_SLOTS = 4
SLOTS = 64  # normals of a state; further dimensions read at the same time take them again, with other signs
LABEL_STREAM, SIGN_STREAM = 1 << 17, (1 << 17) + 1  # beside those of rcccodec.randomness
SIGNS_A_COUNTER = 128
SHARE_OF_BITS = 0.92  # that is worth as much as bits of an ideal channel, about
TAIL = 1 / 16  # of what a normal z becomes, z (1 + z^2 / 16) less its scale: latents have outliers
_WINDOW = 40  # times L: bits after which all survivors have merged, for certain enough
_SCORES_BYTES, _DECISIONS_BYTES = 1 << 22, 1 << 29
_STATES_AT_ONCE, _STATES_CUDA = 1 << 14, 1 << 18  # of the tiles that are searched together
_NEVER = 1e30


@dataclass(frozen=True)
class Schedule:
    """When each dimension of a tile is read.

    ``places``: int64 (n,), bits that have come in, 1..num_bits, not falling. ``slots``: int64 (n,), 0..63.
    """

    places: NDArray[np.int64]
    slots: NDArray[np.int64]
    num_bits: int


def schedule(rates_millibits: NDArray[np.int64], gain: int = GAIN_ONE) -> Schedule:
    """When to read dimensions of these expected rates, all times gain / 64; integers alone.

    With C_i the cumulated rate through dimension i, in bits: n_i = floor((C_{i-1} + C_i) / 2) + 1, at most
    the whole, ceil(C_n).

    Args:
        rates_millibits: int64 (n,), >= 0.
    """
    unit = 2 * MILLIBITS * GAIN_ONE
    twice = 2 * np.cumsum(rates_millibits * gain)
    num_bits = int(-(-twice[-1] // unit)) if len(twice) else 0
    places = np.minimum((twice - rates_millibits * gain) // unit + 1, num_bits)
    first = np.searchsorted(places, places, side="left")
    return Schedule(places, (np.arange(len(places)) - first) % SLOTS, num_bits)


def shrinkage(rates_millibits: NDArray[np.int64], measure: int) -> NDArray[np.float32]:
    """What z (n,) is multiplied with where fewer bits are sent than the expected rate.

    The best reproductions of a Gaussian at e bits have 1 - 4^-e of its variance, and a prior's scale is meant
    for r bits: sqrt((1 - 4^-e) / (1 - 4^-r)), e = 0.92 r measure / 64, at most r.
    """
    r = rates_millibits / MILLIBITS
    e = np.minimum(r, SHARE_OF_BITS * r * measure / GAIN_ONE)
    return np.sqrt(np.expm1(-math.log(4) * e) / np.expm1(-math.log(4) * r)).astype(np.float32)


def values(bits: NDArray[np.uint8], when: Schedule, *, log2_states: int, seed: int) -> NDArray[np.float32]:
    """The labels (n,), mean 0 and variance 1, that ``bits`` (num_bits,) stand for; L adds no work."""
    padded = np.concatenate([np.zeros(log2_states, np.int64), bits])
    states = np.zeros(len(when.places), np.int64)
    for age in range(log2_states):  # the youngest bit is the lowest
        states |= padded[when.places + log2_states - 1 - age] << age
    z = _labels_at(torch.from_numpy(states >> 1), torch.from_numpy(when.slots), log2_states, seed).numpy()
    return z * (1 - 2 * (states & 1)).astype(np.float32) * _signs(len(states), seed)


def search(
    linear: Sequence[NDArray[np.float32]],
    quadratic: Sequence[NDArray[np.float32]],
    schedules: Sequence[Schedule],
    *,
    log2_states: int,
    seed: int,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """The best path of every tile: bits (num_bits,) each.

    Args:
        linear, quadratic: float32 (n,) of each tile; quadratic >= 0.
        log2_states: L, 2 to 20; time and scores grow with 2^L, memory is bounded.
        progress: told how many bits more are done, in the calling thread.

    Invariant: a tile's bits do not depend on the other tiles, nor on the number of threads.
    """
    if not 2 <= log2_states <= MAX_LOG2_STATES:
        raise ValueError(f"a register of {log2_states} bits")
    found: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * len(schedules)
    window = _WINDOW * log2_states
    labels = _labels(log2_states, seed, max((int(s.slots.max(initial=0)) + 1 for s in schedules), default=1))
    labels = labels.to(device)
    order = sorted(range(len(schedules)), key=lambda t: schedules[t].num_bits)
    order = [t for t in order if schedules[t].num_bits]
    size = max(1, (_STATES_AT_ONCE if labels.device.type == "cpu" else _STATES_CUDA) >> log2_states)
    groups = [order[first : first + size] for first in range(0, len(order), size)]

    def work(tiles: list[int], tell: Tell) -> None:
        inputs = [_Steps.of(linear[t], quadratic[t], schedules[t], len(labels) // 2, seed) for t in tiles]
        for t, bits in zip(tiles, _viterbi(inputs, labels, log2_states, window, tell), strict=True):
            found[t] = bits

    decisions_bytes = (2 * window * size) << (log2_states - 1)
    at_once = _DECISIONS_BYTES // decisions_bytes if labels.device.type == "cpu" else 1
    each_alone(work, groups[::-1], progress, at_once=at_once)  # the longest first: the last ones wait less
    return found


@dataclass(frozen=True)
class _Steps:
    """A tile's coefficients by step: float32 (num_bits, 2 slots), linear ones first."""

    coefficients: Tensor

    @staticmethod
    def of(
        linear: NDArray[np.float32], quadratic: NDArray[np.float32], when: Schedule, slots: int, seed: int
    ) -> _Steps:
        table = np.zeros((when.num_bits, 2 * slots), np.float32)
        step = when.places - 1
        np.add.at(table, (step, when.slots), linear * _signs(len(linear), seed))
        np.add.at(table, (step, slots + when.slots), quadratic)
        return _Steps(torch.from_numpy(table))


@torch.inference_mode()
def _viterbi(
    tiles: list[_Steps], labels: Tensor, log2_states: int, window: int, tell: Tell
) -> list[NDArray[np.uint8]]:
    """Bits of tiles that end together; those with fewer begin later, and each has its windows from there."""
    half, device = 1 << (log2_states - 1), labels.device
    lengths = [len(tile.coefficients) for tile in tiles]
    longest, count = max(lengths), len(tiles)
    begins = [longest - n for n in lengths]
    settled = begins.copy()  # bits before it are decided
    events: dict[int, list[int]] = {}  # tiles that begin, or settle a window, after so many steps
    for i, begin in enumerate(begins):
        for step in (begin, *range(begin + 2 * window, longest, window)):
            events.setdefault(step, []).append(i)
    bits = np.zeros((count, longest), np.uint8)
    # costs before and after a step in turn: all, of either half, and by the half-state before; views that are
    # made once, for a step is no more than three operations
    both = torch.full((2, count, 2 * half), _NEVER, dtype=torch.float32, device=device)
    views = [(x, *x.chunk(2, 1), x.view(count, half, 2)) for x in both]
    least = torch.empty((count, half), dtype=torch.float32, device=device)
    taken = torch.empty((2 * window, count, half), dtype=torch.bool, device=device)
    twice, choices = least[..., None], taken.unbind(0)
    scores_bytes = max(_SCORES_BYTES, 4 * labels.numel())  # labels are read anew for every block
    block = max(1, scores_bytes // (8 * half * count))
    slots = torch.arange(min(FEW_SLOTS, len(labels) // 2), device=device)
    few = torch.cat([slots, slots + len(labels) // 2])
    for start in range(0, longest, block):
        stop = min(start + block, longest)
        rows = torch.stack(
            [_padded(tile.coefficients, start - b, stop - b) for tile, b in zip(tiles, begins, strict=True)]
        )
        rows = rows.transpose(0, 1).reshape(-1, len(labels)).to(device)
        scores = _scores(rows, labels, few).view(stop - start, count, half, 2).unbind(0)
        for t in range(start, stop):
            cost, a, b, _ = views[t % 2]
            for i in events.get(t, ()):
                if t == begins[i]:
                    cost[i] = _NEVER
                    cost[i, 0] = 0
                else:
                    _trace(cost[i], taken[:, i], t, settled[i], settled[i] + window, bits[i])
                    settled[i] += window
                    cost[i] -= cost[i].amin()
            torch.lt(b, a, out=choices[t % (2 * window)])
            torch.minimum(a, b, out=least)
            torch.add(twice, scores[t - start], out=views[1 - t % 2][3])
        tell(sum(max(0, stop - max(start, b)) for b in begins))
    for i, row in enumerate(bits):
        _trace(both[longest % 2, i], taken[:, i], longest, settled[i], longest, row)
    return [row[b:] for row, b in zip(bits, begins, strict=True)]


def _scores(rows: Tensor, labels: Tensor, few: Tensor) -> Tensor:
    """rows (steps, 2 slots) times labels, (steps, 2^L); most steps fill but a ``few`` of the slots."""
    others = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    others[few] = False
    wide = rows[:, others].any(1)
    scores = rows[:, few] @ labels[few]
    if wide.any():
        scores[wide] = rows[wide] @ labels
    return scores


def _trace(cost: Tensor, taken: Tensor, end: int, first: int, last: int, bits: NDArray[np.uint8]) -> None:
    """Write bits [first, last) of a tile's cheapest path that ends at ``end``.

    Any bits are a path, so later windows need not agree with earlier ones.
    """
    decisions, half = taken.cpu().numpy(), taken.shape[1]
    state = int(cost.argmin())
    for t in range(end - 1, first - 1, -1):
        if t < last:
            bits[t] = state & 1
        above = state >> 1
        state = above + half if decisions[t % len(decisions), above] else above


def _padded(rows: Tensor, start: int, stop: int) -> Tensor:
    """Rows start to stop, zeros for those before the first."""
    kept = rows[max(0, start) : max(0, stop)]
    return torch.cat([rows.new_zeros(stop - start - len(kept), rows.shape[1]), kept])


def _labels(log2_states: int, seed: int, slots: int) -> Tensor:
    """What coefficients are multiplied with: float32 (2 slots, 2^L), z of every state above, z^2 below."""
    k = torch.arange(1 << (log2_states - 1))
    z = torch.stack([_labels_at(k, torch.full_like(k, slot), log2_states, seed) for slot in range(slots)])
    z = torch.stack([z, -z], 2).view(slots, -1)
    return torch.cat([z, z * z]).contiguous()


def _labels_at(k: Tensor, slots: Tensor, log2_states: int, seed: int) -> Tensor:
    """z of half-states k (n,) in ``slots`` (n,), float32, of variance 1.

    In each slot a permutation of the same quantiles, so that no codebook is luckier than another in its
    variance or in how far it reaches; and their tails are heavier than a normal's.
    """
    width = log2_states - 1
    mask, shift = (1 << width) - 1, (width + 1) // 2
    counters = torch.zeros(SLOTS, 4, dtype=torch.int64)
    counters[:, 0] = torch.arange(SLOTS)
    counters[:, 3] = LABEL_STREAM
    words = philox4x32(counters, seed)[slots]
    x = k
    for word in range(4):  # a product with an odd number and a shifted exclusive or are one-to-one
        x = (x * (words[:, word] | 1) + (words[:, word] >> 16)) & mask
        x = x ^ (x >> shift)
    place = (2 * x + 1) << (15 - width) if width <= 15 else x >> (width - 16)
    z = normal_table()[place]
    return z * (1 + TAIL * z * z) / (1 + 6 * TAIL + 15 * TAIL**2) ** 0.5


def _signs(count: int, seed: int) -> NDArray[np.int8]:
    """Random signs of the dimensions of a tile: bits of Philox words, the lowest of the first word first."""
    counters = torch.zeros(-(-count // SIGNS_A_COUNTER), 4, dtype=torch.int64)
    counters[:, 0] = torch.arange(len(counters))
    counters[:, 3] = SIGN_STREAM
    words = philox4x32(counters, seed).reshape(-1, 1) >> torch.arange(32)
    return (1 - 2 * (words & 1)).to(torch.int8).view(-1)[:count].numpy()
