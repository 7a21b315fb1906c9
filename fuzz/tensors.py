"""Edits of safetensors files, and of bundles: a JSON description and weights as one string of bytes.

    bundle = bytes of the description (4, big-endian) | description | weights

The description pins the weights by their SHA-256, which an edit makes right again, so that mutations reach
what lies behind it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from random import Random

from fuzz.json_values import mutate_text, mutate_value
from fuzz.mutate import mutate, number

_HASH = re.compile(rb'("weights_sha256"\s*:\s*")[^"]*(")')
_DTYPES = (
    "F16", "F32", "F64", "BF16", "I8", "U8", "I16", "I32", "I64", "U16", "U32", "U64", "BOOL", "F8_E5M2",
    "F8_E4M3", "F4", "C64", "X",
)  # fmt: skip


def join(description: bytes, weights: bytes) -> bytes:
    """A bundle as one string."""
    return len(description).to_bytes(4, "big") + description + weights


def split(data: bytes) -> tuple[bytes, bytes]:
    """Description and weights of any bytes."""
    end = 4 + int.from_bytes(data[:4], "big")
    return data[4:end], data[end:]


def edit_bundle(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The description or the weights changed, the hash of the weights right."""
    description, weights = split(data)
    if random.randrange(2):
        description = mutate_text(random, description)
    else:
        weights = edit_tensors(random, weights, [split(seed)[1] for seed in seeds])
    return join(
        _HASH.sub(rb"\g<1>" + hashlib.sha256(weights).hexdigest().encode() + rb"\g<2>", description), weights
    )


def edit_tensors(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A safetensors file with its header or its data changed."""
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    kind = random.randrange(8)
    if kind == 0:
        return mutate(random, data, seeds)
    if kind == 1:
        return number(random, size).to_bytes(9, "little")[:8] + data[8:]
    if kind == 2:
        header = mutate_text(random, header)
    elif kind < 6:
        header = _edited(random, header)
    else:
        rest = mutate(random, rest, seeds)
    return len(header).to_bytes(8, "little") + header + rest


def _edited(random: Random, header: bytes) -> bytes:
    """One tensor renamed, retyped, reshaped, moved, or gone."""
    try:
        tensors = json.loads(header)
        name = random.choice([key for key in tensors if key != "__metadata__"])
        entry = dict(tensors[name])
        shape = list(entry["shape"])
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        return header
    kind = random.randrange(7)
    if kind == 0:
        entry["dtype"] = random.choice(_DTYPES)
    elif kind == 1:
        entry["shape"] = random.choice(([], [1, *shape], [*shape, 1], shape[::-1], [0], [*shape, 0]))
    elif kind == 2:
        entry["shape"] = mutate_value(random, shape)
    elif kind == 3:
        entry["data_offsets"] = mutate_value(random, entry["data_offsets"])
    elif kind == 4:
        tensors[random.choice(("", "x", "priors.x", "generators.0.x", "../x"))] = tensors.pop(name)
        return json.dumps(tensors).encode()
    elif kind == 5:
        del tensors[name]
        return json.dumps(tensors).encode()
    else:
        tensors["__metadata__"] = random.choice((None, [], {"values": "{"}, {"values": "[" * 9999}, {"a": 1}))
    return json.dumps({**tensors, name: entry}).encode()
