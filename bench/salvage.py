"""Archives with damage of every kind: are the intact images given back, bit for bit, and no others?"""

import random
import time
from typing import Any

import numpy as np

from rcccodec import codec, container
from rcccodec.demo import SAMPLES
from rcccodec.errors import FormatError
from rcccodec.images import read_image

DECODED_EVERY = (
    40  # damaged archives of which one is decoded to pixels too; of the others payloads are compared
)


def measure_salvage(archives: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Damage archives of two shipped models in one place each, take what is left and compare.

    An image is untouched where the bytes of its record are still in the file, one after the other.

    Returns:
        ``archives`` damaged and ``images`` in them; ``untouched`` images and ``returned`` ones; and what must
        be 0: ``untouched_lost``, ``wrong`` (payload, size, number or pixels not those of the image) and
        ``unnoticed`` (damage without a fault named).
    """
    began = time.perf_counter()
    rng = random.Random(seed)
    names = ("archives", "images", "untouched", "returned", "untouched_lost", "wrong", "unnoticed")
    counts = dict.fromkeys((*names, "decoded_images"), 0)
    for data in (_photos(), _digits()):
        truth, groups = codec.decompress(data), container.unpack(data)[1]
        records = _records(data, groups)
        for trial in range(archives // 2):
            damaged = damage(data, rng)
            if damaged == data:
                continue
            untouched = {number for number, record in enumerate(records) if record in damaged}
            counts["archives"] += 1
            counts["images"] += len(truth)
            counts["untouched"] += len(untouched)
            try:
                found = container.salvage(damaged)
            except FormatError:
                counts["untouched_lost"] += len(untouched)
                continue
            taken = dict(found.groups)
            counts["unnoticed"] += not found.faults
            counts["returned"] += len(taken)
            counts["untouched_lost"] += len(untouched - taken.keys())
            counts["wrong"] += sum(group != groups[number] for number, group in taken.items())
            if trial % DECODED_EVERY == 0 and taken:
                made = codec.decompress_intact(damaged).images
                counts["decoded_images"] += len(made)
                counts["wrong"] += sum(not np.array_equal(x, truth[number]) for number, x in made.items())
    return {**counts, "seconds_of_trials": round(time.perf_counter() - began, 1)}


def damage(data: bytes, rng: random.Random) -> bytes:
    """The file with one place flipped, overwritten, zeroed or removed, bytes put in, or cut off there."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 1, 4, 30, 512, 4096]))
    kind = rng.choice(["flip", "overwrite", "zero", "remove", "insert", "cut"])
    if kind == "flip":
        end = start + 1
        new = bytes([data[start] ^ 1 << rng.randrange(8)])
    elif kind == "overwrite":
        new = rng.randbytes(end - start)
    elif kind == "zero":
        new = bytes(end - start)
    elif kind == "insert":
        new, end = rng.randbytes(end - start), start
    else:
        new = b""
        end = len(data) if kind == "cut" else end
    return data[:start] + new + data[end:]


def _records(data: bytes, groups: list[container.Group]) -> list[bytes]:
    """The bytes of every record."""
    header = container.unpack(data)[0]
    one = container.pack(header, groups[:1])  # head, record, head, checksum
    at = (len(one) - _record_bytes(groups[0], 0) - 4) // 2
    records = []
    for number, group in enumerate(groups):
        records.append(data[at : at + _record_bytes(group, number)])
        at += len(records[-1])
    return records


def _record_bytes(group: container.Group, number: int) -> int:
    fields = (number, group.width, group.height, len(group.payload))
    return 1 + sum(len(container.varint(value)) for value in fields) + 2 + len(group.payload) + 4


def _photos() -> bytes:
    picture, _ = read_image(SAMPLES / "coffee.png")
    crops = [picture[y : y + 96, x : x + 120 + 8 * (x % 3)] for y in (0, 80, 160) for x in (0, 90, 180, 230)]
    return codec.compress(crops, "photo", effort=1).data


def _digits() -> bytes:
    sheet, _ = read_image(SAMPLES / "digits.png")
    digits = [sheet[y : y + 32, x : x + 32] for y in range(0, 256, 32) for x in range(0, 256, 32)]
    return codec.compress(digits, "mnist", apart=True).data
