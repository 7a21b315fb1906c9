"""Edits of ``.rcc`` files that keep what surrounds them whole: fields changed, checksums right again.

Written from FORMAT.md and without the package's own writer, which refuses what a mutation is after.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from fuzz.mutate import mutate, number, varint
from rcccodec import container
from rcccodec.errors import FormatError


@dataclass(frozen=True)
class Fields:
    """A file of version 1 to 3, its fields as they would be written, whether allowed or not.

    ``groups``: [mode byte without bits 6 and 7, count, width, height, payload].
    """

    version: int
    model_id: bytes
    method: int
    log2_candidates: int
    candidates: int | None
    seed: int
    groups: tuple[tuple[int, int, int, int, bytes], ...] = field(default=())

    def write(self) -> bytes:
        """The bytes, with right checksums."""
        head = b"RCC" + bytes([self.version & 0xFF]) + self.model_id
        head += bytes([self.method & 0xFF, self.log2_candidates & 0xFF])
        head += b"" if self.candidates is None else varint(self.candidates)
        data = head + varint(self.seed)
        checksum = zlib.crc32(data)
        for place, (mode, count, width, height, payload) in enumerate(self.groups):
            last = place == len(self.groups) - 1
            body = bytes([mode | 0x40 * (count == 1) | 0x80 * last]) + (varint(count) if count != 1 else b"")
            body += varint(width) + varint(height) + (b"" if last else varint(len(payload))) + payload
            checksum = zlib.crc32(body, checksum)
            data += body + checksum.to_bytes(4, "little")
        return data


def read(data: bytes) -> Fields | None:
    """The fields of a sound file of version 1 to 3, or None."""
    try:
        header, groups = container.unpack(data)
    except FormatError:
        return None
    if data[3] > container.LATENT_VERSION:
        return None
    n = header.num_candidates
    short = n & (n - 1) == 0
    return Fields(
        data[3], header.model_id, data[10], n.bit_length() - 1 if short else 0xFF, None if short else n,
        header.seed, tuple((g.mode, g.count, g.width, g.height, g.payload) for g in groups),
    )  # fmt: skip


def edit(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three fields of a sound file changed, payloads most often; else a mutation with a last checksum."""
    fields = read(data)
    if fields is None or random.randrange(8) == 0:
        return mend(mutate(random, data, seeds))
    for _ in range(random.choice((1, 1, 2, 3))):
        fields = _edited(random, fields, [f for f in map(read, seeds[:8]) if f is not None])
    return fields.write()


def mend(data: bytes) -> bytes:
    """The last four bytes made the checksum of all before them: right for a file of one group."""
    body = data[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def _edited(random: Random, fields: Fields, others: Sequence[Fields]) -> Fields:
    kind = random.randrange(16)
    if kind == 0:
        return replace(fields, method=fields.method ^ 1 << random.randrange(8))
    if kind == 1:
        return replace(fields, log2_candidates=random.randrange(42), candidates=None)
    if kind == 2:
        return replace(fields, log2_candidates=0xFF, candidates=number(random, fields.candidates or 256, 42))
    if kind == 3:
        return replace(fields, seed=number(random, fields.seed, 65))
    if kind == 4:
        return replace(fields, version=random.choice((1, 2, 3, 3, 0, 4, 255)))
    groups = list(fields.groups)
    at = random.randrange(len(groups))
    mode, count, width, height, payload = groups[at]
    if kind == 5:
        groups.insert(at, random.choice(random.choice(others).groups if others else groups))
    elif kind == 6 and len(groups) > 1:
        del groups[at]
    elif kind == 7:
        groups[at] = (random.choice((mode ^ 1, mode | 2, mode | 4)), count, width, height, payload)
    elif kind == 8:
        groups[at] = (mode, number(random, count, 26), width, height, payload)
    elif kind == 9:
        groups[at] = (mode, count, number(random, width, 17), height, payload)
    elif kind == 10:
        groups[at] = (mode, count, width, number(random, height, 17), payload)
    else:
        groups[at] = (mode, count, width, height, mutate(random, payload, [o.groups[0][4] for o in others]))
    return replace(fields, groups=tuple(groups))
