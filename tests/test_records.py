"""Archives of records: what damage leaves of them, and that it is never taken for what was there."""

import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec import records
from rcccodec.container import Group, Header, pack, salvage, unpack
from rcccodec.errors import FormatError

HEADER = Header(bytes.fromhex("0badcafe2025"), 2, 2, 0, 1 << 16, 0, records=True)
IMAGES = [Group(i % 2, 1, 30 + i, 200, bytes((i * j) % 251 for j in range(20 + 30 * i))) for i in range(9)]
SHARED = [Group(0, 1, 8, 8, b"abc"), Group(0, 300, 8, 8, bytes(range(200))), Group(1, 1, 500, 300, b"xyz")]


def head_bytes(data: bytes) -> int:
    """Of the archives of this module: signature to check."""
    return 10 + 1 + 1 + 1 + (2 if data[13] >= 0x80 else 1) + 4


def numbered(groups: list[Group]) -> list[tuple[int, Group]]:
    firsts = [sum(g.count for g in groups[:i]) for i in range(len(groups))]
    return list(zip(firsts, groups, strict=True))


@pytest.mark.parametrize("groups", [IMAGES, SHARED, IMAGES[:1]])
@pytest.mark.parametrize(
    ("joint", "latent", "version"), [(False, False, 4), (True, False, 5), (False, True, 6)]
)
def test_archives_come_back(groups: list[Group], joint: bool, latent: bool, version: int) -> None:
    header = replace(HEADER, joint=joint, latent=latent)
    data = pack(header, groups)
    assert data[3] == version
    assert unpack(data) == (header, groups)
    found = salvage(data)
    assert (found.header, found.groups, found.faults) == (header, numbered(groups), [])


def test_a_record_costs_fourteen_bytes() -> None:
    one, two = (len(pack(HEADER, [Group(1, 1, 768, 512, bytes(5000))] * n)) for n in (9, 10))
    assert two - one - 5000 == 14


@pytest.mark.parametrize("groups", [IMAGES[:4], SHARED])
def test_every_flipped_bit_is_seen_and_loses_one_record_at_most(groups: list[Group]) -> None:
    data = pack(HEADER, groups)
    whole = numbered(groups)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            unpack(bytes(damaged))
        found = salvage(bytes(damaged))
        assert found.faults
        assert found.header == HEADER
        assert found.num_images == sum(g.count for g in groups)
        assert set(found.groups) <= set(whole)
        assert len(found.groups) >= len(whole) - 1


def test_a_flip_in_a_head_loses_nothing() -> None:
    data = pack(HEADER, IMAGES)
    for bit in [*range(8 * head_bytes(data)), *range(8 * (len(data) - head_bytes(data) - 4), 8 * len(data))]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = salvage(bytes(damaged))
        assert found.groups == numbered(IMAGES)
        assert len(found.faults) == 1


def test_bytes_lost_put_in_or_overwritten_lose_only_what_they_touch() -> None:
    data = pack(HEADER, IMAGES)
    places = {first: data.index(group.payload) for first, group in numbered(IMAGES)}
    rng = random.Random(5)
    for _ in range(300):
        start = rng.randrange(head_bytes(data), len(data) - head_bytes(data) - 4)
        end = min(start + rng.randrange(1, 200), len(data) - head_bytes(data) - 4)
        new = rng.randbytes(rng.choice([0, end - start, rng.randrange(300)]))
        found = salvage(data[:start] + new + data[end:])
        assert set(found.groups) <= set(numbered(IMAGES))
        for first, group in numbered(IMAGES):
            first_byte, last_byte = places[first] - 10, places[first] + len(group.payload) + 4
            if last_byte <= start or first_byte >= end:
                assert (first, group) in found.groups


def test_records_that_overlap_by_a_byte_are_both_there() -> None:
    """The last byte of one is the first of the next, and one of the two is gone: each is still whole."""
    for filling in range(2000):
        groups = [replace(IMAGES[0], payload=filling.to_bytes(2, "little")), IMAGES[2]]
        data = pack(HEADER, groups)
        end = data.index(IMAGES[2].payload) - 8
        if data[end - 1] == data[end]:
            assert salvage(data[:end] + data[end + 1 :]).groups == numbered(groups)
            return
    pytest.fail("no such pair")


@pytest.mark.parametrize("size", [0, 1, 17, 18, 19, 60, 300, -5, -1])
def test_a_file_cut_short_keeps_the_records_before_the_cut(size: int) -> None:
    data = pack(HEADER, IMAGES)
    with pytest.raises(FormatError):
        unpack(data[:size])
    if 0 <= size < head_bytes(data):
        with pytest.raises(FormatError):
            salvage(data[:size])
        return
    found = salvage(data[:size])
    assert found.groups == numbered(IMAGES)[: len(found.groups)]
    assert found.faults
    assert (len(found.groups) == len(IMAGES)) == (size < 0)


def test_records_moved_or_doubled_are_found_and_named_rightly() -> None:
    data = pack(HEADER, IMAGES[:3])
    head = data[: head_bytes(data)]
    tail = data[-len(head) - 4 :]
    body = data[len(head) : -len(tail)]
    parts, at = [], 0
    for group in IMAGES[:3]:
        end = body.index(group.payload, at) + len(group.payload) + 4
        parts.append(body[at:end])
        at = end
    a, b, c = parts
    for order in ([b, a, c], [a, b, b, c], [c, b, a], [a, b, c, a]):
        moved = head + b"".join(order) + tail
        with pytest.raises(FormatError):
            unpack(moved)
        assert salvage(moved).groups == numbered(IMAGES[:3])


def test_records_of_another_archive_are_refused() -> None:
    one, other = pack(HEADER, IMAGES[:3]), pack(replace(HEADER, seed=1), IMAGES[3:6])
    mixed = one[: head_bytes(one)] + other[head_bytes(other) :]
    assert salvage(mixed[: -head_bytes(other) - 4]).groups == []
    twin = pack(HEADER, [IMAGES[0], replace(IMAGES[1], payload=bytes(50)), IMAGES[2]])  # the same head
    assert len(twin) == len(one)
    at = one.index(IMAGES[2].payload) - 8
    with pytest.raises(FormatError, match="file checksum"):
        unpack(twin[:at] + one[at:])


def test_a_file_checksum_over_the_records_themselves_would_see_nothing() -> None:
    """Why it is one over their checksums: each record ends in its own, and the register forgets it there."""
    one = pack(HEADER, IMAGES[:2])
    twin = pack(HEADER, [IMAGES[0], replace(IMAGES[1], payload=bytes(50))])
    assert one != twin
    assert zlib.crc32(one[:-4]) == zlib.crc32(twin[:-4])
    assert one[-4:] != twin[-4:]


def test_damage_to_both_heads_is_refused() -> None:
    data = bytearray(pack(HEADER, IMAGES))
    data[5] ^= 1
    data[-10] ^= 1
    with pytest.raises(FormatError, match="head"):
        salvage(bytes(data))


def test_looking_for_records_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(records, "MOST_STARTS", 50)
    honest = zlib.crc32
    monkeypatch.setattr(records.zlib, "crc32", lambda *words: looked.append(1) or honest(*words))
    data = pack(HEADER, IMAGES)
    found = salvage(data[: head_bytes(data)] + b"\x40\x01\x01\x01" * 500 + data[head_bytes(data) :])
    assert len(looked) < 100
    assert "not all of it was searched" in found.faults[0]


def test_the_second_head_is_found_before_padding() -> None:
    data = bytearray(pack(HEADER, IMAGES))
    data[5] ^= 1
    assert salvage(bytes(data) + bytes(512)).groups == numbered(IMAGES)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_or_named(tail: bytes, ended: bool) -> None:
    data = pack(HEADER, IMAGES[:2])
    head = data[: head_bytes(data)]
    data = head + tail + (head if ended else b"")
    with pytest.raises(FormatError):
        unpack(data)
    assert salvage(data).groups == []
