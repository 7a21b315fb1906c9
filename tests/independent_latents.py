"""Latents and their normals (rcccodec/FORMAT.md, sections 10 and 12), from that document alone."""

import math
from functools import cache, lru_cache
from itertools import accumulate
from statistics import NormalDist

import numpy as np
from independent_codes import Bytes, Range, fitted_index, need

PHILOX = (0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85)


@lru_cache(maxsize=2**14)
def philox(seed, *counter):
    """Philox4x32-10: four 32-bit words of four (section 10)."""
    key, (a, b, c, d) = [seed & 0xFFFFFFFF, seed >> 32], counter
    for _ in range(10):
        one, two = PHILOX[0] * a, PHILOX[1] * c
        a, b, c, d = two >> 32 ^ b ^ key[0], two & 0xFFFFFFFF, one >> 32 ^ d ^ key[1], one & 0xFFFFFFFF
        key = [(key[i] + PHILOX[2 + i]) & 0xFFFFFFFF for i in (0, 1)]
    return a, b, c, d


@cache
def quantile(u):
    if u >= 2**15:
        return -quantile(2**16 - 1 - u)
    return math.floor(2**16 * NormalDist().inv_cdf((u + 0.5) / 2**16) + 0.5) / 2**16


def normals(seed, k, count, stream=0):
    """The first `count` normals of candidate k (section 10)."""
    words = [w for b in range(-(-count // 8)) for w in philox(seed, k % 2**32, k // 2**32, b, stream)]
    return [quantile(u) for word in words for u in (word & 0xFFFF, word >> 16)][:count]


def label(seed, w, k, j):
    x, half = k, (w + 1) // 2
    for a in philox(seed, j, 0, 0, 2**17):
        x = (x * (a | 1) + (a >> 16)) % 2**w
        x ^= x >> half
    q = quantile((2 * x + 1) << (15 - w) if w <= 15 else x >> (w - 16))
    return q * (1 + q * q / 16) / math.sqrt(1 + 6 / 16 + 15 / 256)


def read_path(file, source, rates, m):
    """The trellis of section 12: (path as text of bits, z of each dimension)."""
    sums = [0, *accumulate(m * rate for rate in rates)]
    length = -(-sums[-1] // 64000)
    bits = "".join(f"{byte:08b}" for byte in source.take(-(-length // 8)))
    need("1" not in bits[length:], "bits after a path")
    z, seen, memory = [], {}, file.n.bit_length() - 1
    for i in range(len(rates)):
        read = min(length, (sums[i] + sums[i + 1]) // 128000 + 1)
        state = int(bits[max(0, read - memory) : read], 2)
        slot = seen[read] = seen.get(read, -1) + 1
        word = philox(file.seed, i // 128, 0, 0, 2**17 + 1)[i // 32 % 4]
        sign = -1 if (word >> i % 32 & 1) ^ (state & 1) else 1
        z.append(sign * label(file.seed, memory - 1, state // 2, slot % 64))
    return bits[:length], z


@lru_cache(maxsize=256)
def moved(frequencies, steps):
    f = list(frequencies)
    for _ in range(abs(steps)):
        if steps > 0:
            f = [-(-f[0] // 2), f[0] // 2, -(-f[1] // 2), f[1] // 2, *f[2:78]]
        else:
            f = [f[0] + f[1], f[2] + f[3], *f[4:], 1, 1]
        f = [max(1, x) for x in f]
        f[f.index(max(f))] += 2**16 - sum(f)
    return tuple(f)


def read_chunks(file, model, data, rates, m):
    """The chunks of section 12: (index of each, z of each dimension)."""
    chunks = []
    for rate in rates:
        if chunks and len(chunks[-1]) < 512 and sum(chunks[-1]) + rate <= 250 * m:
            chunks[-1].append(rate)
        else:
            chunks.append([rate])
    codes = {int(budget): f for budget, f in model[0]["chunk_codes"][file.coder].items()}
    bits = [min(40, (sum(chunk) + 500) // 1000) for chunk in chunks]
    stream, indices = Range(data), [0] * len(chunks)
    for i in sorted(range(len(chunks)), key=lambda i: bits[i]):
        budget = max((b for b in codes if b <= bits[i]), default=min(codes))
        indices[i] = fitted_index(stream, moved(tuple(codes[budget]), bits[i] - budget), file.n)
    need(stream.canonical(len(chunks) // 32) == data, "not the code of its indices")
    z = [x for k, chunk in zip(indices, chunks, strict=True) for x in normals(file.seed, k, len(chunk))]
    return indices, z


def read_latents(file, model, part):
    """Section 12. A tile is a dict: `measure`, `classes` of its positions, `path` or `indices`, and `z`."""
    document, _, tensors = model
    need(document.get("kind") == "latent", "not a model of latents")
    need(file.rung < len(document["spec"]["betas"]), "too short a ladder")
    kinds = document["spec"]["classes"]
    left, up = (tensors[name][file.rung].astype(int) for name in ("left", "up"))
    rates = tensors["rates_millibits"][file.rung]
    rows, columns = -(-part.height // 16), -(-part.width // 16)
    corners = [(y, x) for y in range(0, rows, 16) for x in range(0, columns, 16)]
    need(2 * part.count * len(corners) <= len(part.payload), "too many tiles for the payload")
    source, power = Bytes(part.payload), [math.floor(2 ** (30 - d / 32)) for d in range(32)]
    for _ in range(part.count):
        part.tiles.append([])
        for y, x in corners:
            shape = min(16, rows - y), min(16, columns - x)
            (m,) = source.take(1)
            need(m, "measure of 0")
            field_bytes = source.take(source.varint(0, 2**21 - 1))
            stream, classes = Range(field_bytes), np.full((shape[0] + 1, shape[1] + 1), kinds)
            for r, c in np.ndindex(*shape):
                odds = left[classes[r + 1, c]] + up[classes[r, c + 1]]
                loss = [int(d) for d in odds.max() - odds]
                classes[r + 1, c + 1] = stream.symbol(
                    list(accumulate(max(1, power[d % 32] >> d // 32) for d in loss))
                )
            need(stream.canonical() == field_bytes, "not the code of its classes")
            sent = [int(r) for row in rates[classes[1:, 1:].ravel()] for r in row if r]
            if file.coder == "trellis":
                what, z = read_path(file, source, sent, m)
            else:
                what, z = read_chunks(file, model, source.take(source.varint(0, 2**21 - 1)), sent, m)
            name = "path" if file.coder == "trellis" else "indices"
            part.tiles[-1].append({"measure": m, "classes": classes[1:, 1:], name: what, "z": z})
    need(source.at == len(part.payload), "bytes after the last tile")
