"""Mutations of JSON: of its values, or of its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from fuzz.mutate import mutate, number

_ODD = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 1e-320, "", "x", "../x", "\x00\x1b[31m", "1", [], {},
    [[]], [0, 0], {"a": 1}, float("nan"), float("inf"), 1 << 31, 1 << 63, 1 << 64, -(1 << 70), 10**400,
)  # fmt: skip


def mutate_text(random: Random, text: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Another text: mostly JSON with one to three values changed, sometimes no JSON at all.

    ``text`` itself may be no JSON any more; then its bytes are mutated.
    """
    kind = random.randrange(12)
    if kind == 0:
        return mutate(random, text, others)
    if kind == 1:  # deeper than any parser goes, or a number too long for one
        at = random.randrange(len(text) + 1)
        odd = random.choice((b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"1e999", b"NaN", b"-Infinity"))
        return text[:at] + odd + text[at:]
    if kind == 2:  # a key twice
        return text.replace(
            b",", b"," + random.choice((b'"bundle_version": 9,', b'"spec": [],', b'"": 0,')), 1
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return mutate(random, text, others)
    for _ in range(random.choice((1, 1, 2, 3))):
        value = mutate_value(random, value)
    return json.dumps(value, indent=random.choice((None, 1))).encode()


def mutate_value(random: Random, value: Any) -> Any:
    """The value with one change somewhere inside: replaced, left out, doubled, or made another number."""
    if isinstance(value, dict) and value and random.randrange(10):
        key = random.choice(sorted(value))
        kind = random.randrange(12)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, random.choice(("", "x", key + "_")): value[key]}
        return {**value, key: mutate_value(random, value[key])}
    if isinstance(value, list) and value and random.randrange(10):
        at = random.randrange(len(value))
        kind = random.randrange(12)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] + value[at : at + 1] * random.choice((2, 2, 40)) + value[at:]
        return [*value[:at], mutate_value(random, value[at]), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.randrange(3):
        return number(random, abs(value)) * random.choice((1, 1, 1, -1))
    if isinstance(value, float) and random.randrange(3):
        return value * random.choice((-1, 0, 1e-9, 0.5, 2, 1e9, 1e300))
    return random.choice(_ODD)
