"""Golden files with something changed and every checksum set right again: only the other rules are left."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from rcccodec import container
from rcccodec.container import varint
from rcccodec.fields import header_bytes


@dataclass(frozen=True)
class Taken:
    """A file without its checksums.

    head: header, and of records the number of images. parts: fields and payload of each group or record.
    """

    head: bytes
    parts: list[tuple[bytes, bytes]]
    records: bool

    def sealed(self) -> bytes:
        """The file, with the checksums that these bytes want."""
        check = zlib.crc32(self.head)
        if not self.records:
            out = self.head
            for fields, payload in self.parts:
                check = zlib.crc32(fields + payload, check)
                out += fields + payload + check.to_bytes(4, "little")
            return out
        head = self.head + check.to_bytes(4, "little")
        out, sums = head, check
        for fields, payload in self.parts:
            record = fields + (zlib.crc32(fields, check) & 0xFFFF).to_bytes(2, "little") + payload
            checksum = zlib.crc32(record, check).to_bytes(4, "little")
            sums = zlib.crc32(checksum, sums)
            out += record + checksum
        return out + head + sums.to_bytes(4, "little")


def take_apart(data: bytes) -> Taken:
    """The parts of an intact file; ``sealed`` gives it back."""
    header, groups = container.unpack(data)
    parts, first = [], 0
    for place, group in enumerate(groups):
        last = not header.records and place == len(groups) - 1
        fields = bytes([group.mode | 0x40 * (group.count == 1) | 0x80 * last])
        fields += varint(first) if header.records else b""
        fields += varint(group.count) if group.count > 1 else b""
        fields += varint(group.width) + varint(group.height)
        fields += b"" if last else varint(len(group.payload))
        parts.append((fields, group.payload))
        first += group.count
    head = header_bytes(header) + (varint(first) if header.records else b"")
    return Taken(head, parts, header.records)


def mutants(taken: Taken, rng: random.Random) -> Iterator[bytes]:
    """Endlessly: one to three changes of head (but for signature and model), fields or payloads."""
    whole = taken.sealed()
    while True:
        head, parts = taken.head, list(taken.parts)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            place = rng.randrange(len(parts))
            fields, payload = parts[place]
            kind = rng.randrange(4)
            if kind == 0:
                head = _flipped(head, rng.choice([3, *range(10, len(head))]), rng)
            elif kind == 1:
                parts[place] = _flipped(fields, rng.randrange(len(fields)), rng), payload
            else:
                changed = _changed(payload, rng)
                if taken.records or place < len(parts) - 1:  # the length goes with it
                    fields = fields[: len(fields) - len(varint(len(payload)))] + varint(len(changed))
                parts[place] = fields, changed
        data = Taken(head, parts, taken.records).sealed()
        if data != whole:
            yield data


def _flipped(data: bytes, place: int, rng: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _changed(payload: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(10)
    place = rng.randrange(len(payload)) if payload else 0
    if kind < 6 and payload:
        return _flipped(payload, place, rng)
    if kind == 6:
        return payload + bytes(rng.choice([1, 1, 2, 5]))
    if kind == 7:
        return payload + rng.randbytes(rng.choice([1, 1, 2, 5]))
    return payload[:place] + payload[place + (kind == 8) :] if kind < 9 else payload[:place]
