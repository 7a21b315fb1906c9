"""Common randomness in NumPy alone: Philox4x32-10, the normal map, labels and signs of a trellis (FORMAT.md).

It shares no code with the package, so that each can be held against the other.
"""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, floor, pi, sqrt

import numpy as np
from numpy.typing import NDArray

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
LABEL_STREAM, SIGN_STREAM = 1 << 17, (1 << 17) + 1
SLOTS = 64
LABEL_SCALE = sqrt(1 + 6 / 16 + 15 / 256)


def philox4x32(counters: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Four words (n, 4) of counters (n, 4), under a 64-bit key whose low half comes first."""
    c = [np.asarray(counters, np.uint64)[:, word] for word in range(4)]
    key = [seed % 2**32, seed >> 32]
    for _ in range(10):
        first, second = MULTIPLIERS[0] * c[0], MULTIPLIERS[1] * c[2]
        c = [
            (second >> HALF) ^ c[1] ^ np.uint64(key[0]),
            second & LOW,
            (first >> HALF) ^ c[3] ^ np.uint64(key[1]),
            first & LOW,
        ]
        key = [(k + step) % 2**32 for k, step in zip(key, KEY_STEPS, strict=True)]
    return np.stack(c, axis=1)


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.float64]:
    """All 65,536 quantiles, by Newton's method on the error function."""
    lower = np.empty(1 << 15)
    x = -4.5
    for place in range(1 << 15):
        p = (place + 0.5) / 65536
        for _ in range(60):
            step = (0.5 * erfc(-x / sqrt(2)) - p) * sqrt(2 * pi) * exp(x * x / 2)
            x -= max(-0.5, min(0.5, step))
            if abs(step) < 1e-14:
                break
        lower[place] = floor(65536 * x + 0.5) / 65536
    return np.concatenate([lower, -lower[::-1]])


def normals(
    seed: int, candidates: NDArray[np.int64], first: int, count: int, stream: int
) -> NDArray[np.float64]:
    """Dimensions ``first`` to ``first + count - 1`` of candidates (n,): (n, count)."""
    k = np.asarray(candidates, np.uint64)
    blocks = np.arange(first // 8, -(-(first + count) // 8), dtype=np.uint64)
    counters = np.zeros((len(k), len(blocks), 4), np.uint64)
    counters[..., 0], counters[..., 1] = (k & LOW)[:, None], (k >> HALF)[:, None]
    counters[..., 2], counters[..., 3] = blocks, np.uint64(stream)
    words = philox4x32(counters.reshape(-1, 4), seed).reshape(len(k), len(blocks), 4)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=-1).reshape(len(k), -1)
    return normal_table()[halves.astype(np.int64)][:, first % 8 : first % 8 + count]


def trellis_labels(
    half_states: NDArray[np.int64], slots: NDArray[np.int64], log2_states: int, seed: int
) -> NDArray[np.float64]:
    """g of half-states k (n,) in slots j (n,), each 0..63."""
    width = log2_states - 1
    counters = np.zeros((SLOTS, 4), np.uint64)
    counters[:, 0], counters[:, 3] = np.arange(SLOTS), LABEL_STREAM
    words = [[int(word) for word in row] for row in philox4x32(counters, seed)]
    labels = np.empty(len(half_states))
    for i, (k, j) in enumerate(zip(half_states.tolist(), slots.tolist(), strict=True)):
        x = k
        for a in words[j]:
            x = (x * (a | 1) + (a >> 16)) % (1 << width)
            x ^= x >> ((width + 1) // 2)
        place = (2 * x + 1) << (15 - width) if width <= 15 else x >> (width - 16)
        q = normal_table()[place]
        labels[i] = q * (1 + q * q / 16) / LABEL_SCALE
    return labels


def trellis_signs(count: int, seed: int) -> NDArray[np.int64]:
    """s of a tile's first dimensions, each 1 or -1."""
    counters = np.zeros((-(-count // 128), 4), np.uint64)
    counters[:, 0], counters[:, 3] = np.arange(len(counters)), SIGN_STREAM
    words = philox4x32(counters, seed).reshape(-1, 1)
    bits = (words >> np.arange(32, dtype=np.uint64)) & np.uint64(1)
    return 1 - 2 * bits.reshape(-1)[:count].astype(np.int64)


def trellis_values(
    bits: NDArray[np.uint8], rates_millibits: NDArray[np.int64], measure: int, log2_states: int, seed: int
) -> NDArray[np.float64]:
    """z of a tile's dimensions of these rates, from its path, before they are shrunk."""
    upto, previous, places, slots = 0, None, [], []
    for rate in rates_millibits.tolist():
        before, upto = upto, upto + measure * rate
        n = min(len(bits), (before + upto) // 128000 + 1)
        slots.append((slots[-1] + 1) % SLOTS if n == previous else 0)
        places.append(n)
        previous = n
    states = []
    for n in places:
        state = 0
        for bit in range(n - log2_states, n):
            state = 2 * state + (int(bits[bit]) if bit >= 0 else 0)
        states.append(state)
    found = np.array(states, np.int64)
    g = trellis_labels(found // 2, np.array(slots, np.int64), log2_states, seed)
    return trellis_signs(len(places), seed) * (1 - 2 * (found % 2)) * g


def trellis_shrinkage(rates_millibits: NDArray[np.int64], measure: int) -> NDArray[np.float64]:
    """What z is multiplied with."""
    r = rates_millibits / 1000
    e = np.minimum(r, 0.92 * r * measure / 64)
    return np.asarray(np.sqrt((1 - 4.0**-e) / (1 - 4.0**-r)))
