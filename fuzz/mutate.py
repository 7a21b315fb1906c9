"""Mutations of byte strings, seeded: the same random generator gives the same bytes.

Numbers of the container's kind (LEB128) are edited as numbers, so that a count or a size becomes another
whole one rather than a broken one. Nothing here knows a format; what mends checksums is in the other modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 1 << 16  # of what a mutation makes: it may double, many times over
_EXPONENTS = (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 20, 24, 31, 32, 40, 62, 63, 64)
NUMBERS = sorted({(1 << e) + d for e in _EXPONENTS for d in (-1, 0, 1)} | {3, 100, 1000})

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]


def mutate(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to eight edits of ``data``; fewer are likelier.

    Args:
        seeds: what a splice takes its other part from.

    Invariant: at most MAX_BYTES, or as many as ``data`` has.
    """
    most = max(MAX_BYTES, len(data))
    for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3, 8))):
        data = random.choice(_MUTATIONS)(random, data, seeds)[:most]
    return data


def varint(value: int) -> bytes:
    """LEB128 of any number >= 0, also of those that no 64 bits hold."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(random: Random, value: int, most_bits: int = 64) -> int:
    """Another number >= 0: near ``value``, at an edge, or any of so many bits."""
    kind = random.randrange(4)
    if kind == 0:
        return max(0, value + random.choice((-2, -1, 1, 2)))
    if kind == 1:
        return random.getrandbits(random.randint(1, most_bits))
    if kind == 2:
        return value * random.choice((2, 3, 16)) >> random.choice((0, 0, 1, 4))
    return random.choice([n for n in NUMBERS if n.bit_length() <= most_bits])


def _flip_bit(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _set_byte(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    value = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return data[:at] + bytes([value]) + data[at + 1 :]


def _set_run(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _part(random, data)
    return (
        data[:begin] + bytes([random.choice((0, 0xFF, random.randrange(256)))]) * (end - begin) + data[end:]
    )


def _set_word(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    size = random.choice((2, 4, 8))
    at = random.randrange(max(1, len(data) - size + 1))
    word = number(random, 0, 8 * size).to_bytes(size, random.choice(("little", "big")))
    return data[:at] + word + data[at + size :]


def _truncate(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _delete(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _part(random, data)
    return data[:begin] + data[end:]


def _insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 1, 2, 4, 16, 100))) + data[at:]


def _repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _part(random, data)
    return data[:end] + data[begin:end] * random.choice((1, 1, 2, 30)) + data[end:]


def _swap(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _part(random, data)
    middle = random.randint(begin, end)
    return data[:begin] + data[middle:end] + data[begin:middle] + data[end:]


def _splice(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds) if seeds else data
    begin, end = _part(random, other)
    at = random.randrange(len(data) + 1)
    kind = random.randrange(3)
    if kind == 0:
        return data[:at] + other[min(at, len(other)) :]
    return data[:at] + other[begin:end] + data[at if kind == 1 else at + end - begin :]


def _edit_varint(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    begin = end = random.randrange(len(data))
    while end < len(data) - 1 and data[end] & 0x80 and end < begin + 9:
        end += 1
    value = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[begin : end + 1]))
    written = varint(number(random, value))
    if random.randrange(8) == 0:  # a longer form of the same
        written = written[:-1] + bytes([written[-1] | 0x80, 0])
    return data[:begin] + written + data[end + 1 :]


def _noise(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if random.randrange(8):
        begin, end = _part(random, data)
        return data[:begin] + random.randbytes(end - begin) + data[end:]
    return random.randbytes(random.choice((0, 1, 3, 20, 200)))


def _part(random: Random, data: bytes) -> tuple[int, int]:
    """A part of ``data``, usually a short one."""
    begin = random.randrange(len(data) + 1)
    most = len(data) - begin
    return begin, begin + random.choice((min(most, 1), min(most, 4), min(most, 20), random.randint(0, most)))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_run, _set_word, _truncate, _delete, _insert, _repeat,
    _swap, _splice, _edit_varint, _edit_varint, _noise,
)  # fmt: skip
