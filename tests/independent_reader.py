"""A reader of `.rcc` files written from rcccodec/FORMAT.md alone, to test that document and the package.

It shares no line with the package; with independent_codes.py and independent_latents.py it is whole. Section
numbers are the document's. It stops at the integers that a file stands for and their normals: pixels are the
model's matter.
"""

import hashlib
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from independent_codes import Bytes, Range, fitted_index, need, zipf_indices
from independent_latents import read_latents
from safetensors.numpy import load

MAX_PIXELS = 2**28  # that the default allows
CODERS = ("pfr", "orc", "mincost", "trellis")
PRIOR = (2147483648, 1969251188, 1805811301, 1655936265, 1518500250, 1392470869, 1276901417, 1170923762)


@dataclass
class Part:
    """A group or record. Blocks: `stages[s]` is (shared indices, own ones). Latents: `tiles[image][tile]`."""

    mode: int
    count: int
    width: int
    height: int
    payload: bytes
    stages: list = field(default_factory=list)
    tiles: list = field(default_factory=list)


@dataclass
class File:
    version: int
    model_id: bytes
    coder: str
    index_code: int
    rung: int
    n: int
    seed: int
    parts: list


def read_model(folder):
    """The bundle as section 14 describes it: (model.json, its id, tensors), both hashes checked."""
    text, weights = (Path(folder, name).read_bytes() for name in ("model.json", "weights.safetensors"))
    need(
        json.loads(text)["weights_sha256"] == hashlib.sha256(weights).hexdigest(),
        "weights are not the model's",
    )
    return json.loads(text), hashlib.sha256(text).digest()[:6], load(weights)


def parse(data):
    """Sections 2 and 13: everything but the payloads."""
    source = Bytes(data)
    need(source.take(3) == b"RCC", "signature")
    version, model_id, method, e = source.take(1)[0], source.take(6), source.take(1)[0], source.take(1)[0]
    need(1 <= version <= 6, "version")
    n = source.varint(1, 2**40) if e == 255 else 2**e if e <= 40 else 0
    need(n and (e != 255 or n & (n - 1)), "N")
    coder, index_code = method & 3, method >> 2 & 3
    if version in (3, 6):
        need(
            index_code == 0 and 2**6 <= n <= (2**20 if coder == 3 else 2**40) and n & (n - 1) == 0,
            "N of latents",
        )
    need(index_code < 3 and (coder < 3 or version in (3, 6)), "reserved method")
    file = File(version, model_id, CODERS[coder], index_code, method >> 4, n, source.varint(), [])
    images, pixels, records = 0, 0, version > 3
    if records:
        total = source.varint(1, 2**24)
        check = zlib.crc32(data[: source.at])
        head = data[: source.at + 4]
        need(int.from_bytes(source.take(4), "little") == check, "check of the head")
        end = len(data) - 4 - len(head)
        need(end > source.at and data[end:-4] == head, "heads differ")
        source.data, chained = data[:end], b""
    else:
        check = zlib.crc32(data[: source.at])
    last = False
    while source.at < len(source.data) and not last:
        begin, flags = source.at, source.take(1)[0]
        last = bool(flags & 128)
        need(flags & 3 < 2 and not flags & 60 and not (records and last), "mode")
        need(not records or source.varint() == images, "an image out of its place")
        count = 1 if flags & 64 else source.varint(2, 2**24)
        width, height = source.varint(1, 65535), source.varint(1, 65535)
        images, pixels = images + count, pixels + count * width * height
        need(images <= (total if records else 2**24), "number of images")
        need(pixels <= MAX_PIXELS, "too many pixels")
        length = len(data) - 4 - source.at if last else source.varint()
        if records:
            low = zlib.crc32(source.data[begin : source.at], check) & 0xFFFF
            need(int.from_bytes(source.take(2), "little") == low, "check of a record")
        need(length >= 0, "truncated")
        file.parts.append(Part(flags & 3, count, width, height, source.take(length)))
        crc = zlib.crc32(data[begin : source.at], check)
        stored = source.take(4)
        need(int.from_bytes(stored, "little") == crc, "checksum")
        if records:
            chained += stored
        else:
            check = crc
    if records:
        need(images == total, "number of images")
        need(int.from_bytes(data[-4:], "little") == zlib.crc32(chained, check), "file checksum")
    else:
        need(last and source.at == len(data), "no last group, or bytes after it")
    return file


def shared_blocks(rate, n):
    return min(16, max(1, ((n**1000).bit_length() - 1 - 3000) // max(1, rate)))  # section 5


def tables(file, model, stage, g):
    """What a segment is read with, g blocks an index: a rate, frequencies or sums of a prior (5, 7)."""
    document, _, tensors = model
    rate, joint = stage["zipf_rate_millibits"], stage.get("joint") or {}
    if file.index_code == 0:
        return g * rate
    own = stage.get("priors") or {"mincost": stage.get("prior")}
    name = ((joint.get("priors") or {}) if g > 1 else own).get(file.coder)
    if file.index_code == 2 and (name or g == 1):
        need(name, "the model has no such prior")
        levels = tensors[f"priors.{name}"].astype(np.int64)
        ends = np.cumsum(np.maximum(1, np.array(PRIOR)[levels % 8] >> levels // 8))
        need(len(ends) == file.n and ends[-1] <= 2**40, "a prior of another N")
        return ends
    if g == 1:
        return stage["fitted"][file.coder]
    if g == joint.get("blocks") and (joint.get("fitted") or {}).get(file.coder):
        return joint["fitted"][file.coder]
    every = [other for rung in document["rungs"] for other in rung["stages"]]
    every = [other for other in every if (other.get("fitted") or {}).get(file.coder)]
    return min(every, key=lambda other: abs(other["zipf_rate_millibits"] - g * rate))["fitted"][file.coder]


def read_blocks(file, model, part):
    """Sections 4 and 5: the indices of one payload. True if some index is shared."""
    need(file.rung < len(model[0]["rungs"]), "too short a ladder")
    stages = model[0]["rungs"][file.rung]["stages"]
    across = math.lcm(*(stage["block"][1] for stage in stages))
    down = math.lcm(*(stage["block"][0] for stage in stages))
    area = (-(-part.width // across) * across) * (-(-part.height // down) * down)
    need(part.count * area <= MAX_PIXELS, "too many pixels with padding")
    counts = [part.count * area // (stage["block"][0] * stage["block"][1]) for stage in stages]
    need(sum(counts) <= 32 * len(part.payload) + 31, "too many indices for the payload")
    segments, shared = [], False
    for stage, blocks in zip(stages, counts, strict=True):
        g = shared_blocks(stage["zipf_rate_millibits"], file.n) if file.version in (2, 5) else 1
        together = blocks // g if g > 1 else 0
        shared = shared or together > 0
        segments += [(stage, g, together), (stage, 1, blocks - g * together)]
    used = [(tables(file, model, stage, g) if count else None, count) for stage, g, count in segments]
    if file.index_code == 0:
        runs = zipf_indices(part.payload, [(rate or 0, count) for rate, count in used], file.n, sum(counts))
    else:
        stream, runs = Range(part.payload), []
        for table, count in used:
            read = (
                (lambda t=table: stream.symbol(t))
                if isinstance(table, np.ndarray)
                else (lambda t=table: fitted_index(stream, t, file.n))
            )
            runs.append([read() for _ in range(count)])
        need(stream.canonical(sum(counts) // 32) == part.payload, "not the code of its indices")
    part.stages = list(zip(runs[::2], runs[1::2], strict=True))
    return shared


def read(data, model):
    """A whole file: its header and every payload decoded to integers. `model` is of read_model."""
    file = parse(data)
    document, model_id, _ = model
    need(file.model_id == model_id, "another model")
    if file.version in (3, 6):
        for part in file.parts:
            read_latents(file, model, part)
        return file
    need("rungs" in document, "not a model of blocks")
    if file.index_code == 2:
        own = document["default_num_candidates"], document["default_seed"]
        need((file.n, file.seed) == own, "a prior of another codebook")
    for part in file.parts:
        need(part.mode <= (document["channels"] == 3), "a colour image of a grey model")
    shared = [read_blocks(file, model, part) for part in file.parts]
    need(file.version not in (2, 5) or any(shared), "a file of shared indices that shares none")
    return file
