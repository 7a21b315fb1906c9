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
    """A file, its fields as they would be written, whether allowed or not; records from version 4 on.

    ``groups``: (mode byte without bits 6 and 7, count, width, height, payload). ``more_images``: that the
    head of records says than there are.
    """

    version: int
    model_id: bytes
    method: int
    log2_candidates: int
    candidates: int | None
    seed: int
    groups: tuple[tuple[int, int, int, int, bytes], ...] = field(default=())
    more_images: int = 0

    def write(self) -> bytes:
        """The bytes, with right checksums."""
        head = b"RCC" + bytes([self.version & 0xFF]) + self.model_id
        head += bytes([self.method & 0xFF, self.log2_candidates & 0xFF])
        head += b"" if self.candidates is None else varint(self.candidates)
        data = head + varint(self.seed)
        if 4 <= self.version <= 6:
            return self._records(data)
        checksum = zlib.crc32(data)
        for place, (mode, count, width, height, payload) in enumerate(self.groups):
            last = place == len(self.groups) - 1
            body = bytes([mode | 0x40 * (count == 1) | 0x80 * last]) + (varint(count) if count != 1 else b"")
            body += varint(width) + varint(height) + (b"" if last else varint(len(payload))) + payload
            checksum = zlib.crc32(body, checksum)
            data += body + checksum.to_bytes(4, "little")
        return data

    def _records(self, head: bytes) -> bytes:
        head += varint(max(0, sum(group[1] for group in self.groups) + self.more_images))
        check = zlib.crc32(head)
        head += check.to_bytes(4, "little")
        data, first, sums = head, 0, check
        for mode, count, width, height, payload in self.groups:
            fields = (
                bytes([mode | 0x40 * (count == 1)]) + varint(first) + (varint(count) if count != 1 else b"")
            )
            fields += varint(width) + varint(height) + varint(len(payload))
            fields += (zlib.crc32(fields, check) & 0xFFFF).to_bytes(2, "little")
            checksum = zlib.crc32(payload, zlib.crc32(fields, check)).to_bytes(4, "little")
            sums = zlib.crc32(checksum, sums)
            data += fields + payload + checksum
            first += count
        return data + head + sums.to_bytes(4, "little")


def read(data: bytes) -> Fields | None:
    """The fields of a sound file, or None."""
    try:
        header, groups = container.unpack(data)
    except FormatError:
        return None
    n = header.num_candidates
    short = n & (n - 1) == 0
    return Fields(
        data[3], header.model_id, data[10], n.bit_length() - 1 if short else 0xFF, None if short else n,
        header.seed, tuple((g.mode, g.count, g.width, g.height, g.payload) for g in groups),
    )  # fmt: skip


def edit(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three fields of a sound file changed, payloads most often; else a mutation, its end right."""
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
        return replace(fields, version=random.choice((1, 2, 3, 4, 5, 6, 0, 7, 255)))
    groups = list(fields.groups)
    at = random.randrange(len(groups))
    mode, count, width, height, payload = groups[at]
    if kind == 5 and random.randrange(3) == 0:
        return replace(fields, more_images=random.choice((-1, 1, 1 << 20)))
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
