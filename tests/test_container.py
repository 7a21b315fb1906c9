"""The .rcc container: golden bytes, round trips, and every kind of damage refused with one line."""

import re
import subprocess
import sys
import zlib
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.container import CODERS, INDEX_CODES, MAX_IMAGES, Group, Header, pack, unpack
from rcccodec.errors import FormatError, LimitError

HEADER = Header(bytes.fromhex("0badcafe2025"), 2, 2, 0, 1 << 16, 0)
GROUPS = [Group(0, 1, 28, 28, b"\xd8\xc4"), Group(0, 2, 32, 32, b"\x13\x08")]

headers = st.builds(
    Header,
    model_id=st.binary(min_size=6, max_size=6),
    rung=st.integers(0, 15),
    coder=st.integers(0, 2),
    index_code=st.integers(0, 2),
    num_candidates=st.one_of(st.integers(1, 1 << 40), st.integers(0, 40).map(lambda e: 1 << e)),
    seed=st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1)),
)
groups = st.builds(
    Group,
    mode=st.integers(0, 1),
    count=st.one_of(st.just(1), st.integers(1, 1 << 20)),
    width=st.integers(1, 65535),
    height=st.integers(1, 65535),
    payload=st.binary(max_size=300),
)


def worked_example(name: str = "example") -> bytes:
    text = files("rcccodec").joinpath("FORMAT.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{name}\n(.*?)```", text, flags=re.DOTALL)
    return bytes.fromhex(" ".join(line.split("  ")[0] for line in block.splitlines()))


def with_checksum(body: bytes) -> bytes:
    """A file of one group, its checksum made right whatever nonsense it holds."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_the_worked_example_of_the_specification_is_what_pack_writes() -> None:
    assert pack(HEADER, GROUPS) == worked_example()
    assert unpack(worked_example()) == (HEADER, GROUPS)


def test_the_example_of_records_is_what_pack_writes() -> None:
    header = replace(HEADER, records=True)
    assert pack(header, GROUPS) == worked_example("records")
    assert unpack(worked_example("records")) == (header, GROUPS)


def test_wire_numbers_are_those_of_the_specification() -> None:
    assert CODERS == ("pfr", "orc", "mincost", "trellis")
    assert INDEX_CODES == ("zipf", "fitted", "prior")


@given(headers, st.lists(groups, min_size=1, max_size=6))
def test_unpack_gives_back_what_was_packed(header: Header, some: list[Group]) -> None:
    assert unpack(pack(header, some)) == (header, some)


@pytest.mark.parametrize("side", [1, 127, 128, 16384, 65535])
@pytest.mark.parametrize("payload_bytes", [0, 2, 128, 20000, 1 << 21])
def test_one_image_takes_at_most_24_bytes_beside_its_payload(side: int, payload_bytes: int) -> None:
    data = pack(Header(bytes(6), 15, 2, 2, 1 << 40, 127), [Group(1, 1, side, side, bytes(payload_bytes))])
    assert len(data) - payload_bytes == (20 if side < 128 else 22 if side < 16384 else 24)


@pytest.mark.parametrize("num_candidates", [1, 2, 3, 30000, 1 << 22, (1 << 40) - 1, 1 << 40])
def test_every_number_of_candidates_has_one_form(num_candidates: int) -> None:
    header = Header(bytes(6), 0, 0, 0, num_candidates, 5)
    data = pack(header, GROUPS[:1])
    assert unpack(data)[0] == header
    assert (data[11] == 0xFF) == bool(num_candidates & (num_candidates - 1))


@pytest.mark.parametrize(
    "data",
    [
        pack(HEADER, GROUPS),
        pack(Header(b"abcdef", 7, 0, 1, 30000, 2**63), [Group(1, 1, 768, 512, bytes(range(256)))]),
        pack(
            Header(b"abcdef", 0, 1, 2, 1, 0),
            [Group(0, 9, 32, 32, bytes(40)), *GROUPS, Group(1, 300, 1, 1, b"")],
        ),
    ],
)
def test_every_single_flipped_bit_is_detected(data: bytes) -> None:
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            unpack(bytes(damaged))


def test_every_truncation_is_detected() -> None:
    data = pack(HEADER, [*GROUPS, Group(1, 1, 300, 200, bytes(range(50)))])
    for size in range(len(data)):
        with pytest.raises(FormatError):
            unpack(data[:size])


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"garbage", pack(HEADER, GROUPS)])
def test_bytes_after_the_last_group_are_refused(tail: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(pack(HEADER, GROUPS) + tail)


def test_groups_that_are_moved_doubled_or_lost_are_detected() -> None:
    some = [Group(0, 1, 8, 8, bytes([i])) for i in range(4)]
    data = pack(HEADER, some)
    size = 1 + 2 + 1 + 1 + 4
    head, a, b, c, d = data[:13], *(data[13 + size * i : 13 + size * (i + 1)] for i in range(4))
    assert head + a + b + c + d == data
    for order in ([b, a, c, d], [a, c, b, d], [a, a, b, c, d], [a, c, d], [b, c, d], [d]):
        with pytest.raises(FormatError, match="checksum"):
            unpack(head + b"".join(order))


def test_groups_of_another_file_are_detected() -> None:
    one, other = pack(HEADER, GROUPS), pack(Header(HEADER.model_id, 2, 2, 0, 1 << 16, 1), GROUPS)
    with pytest.raises(FormatError, match="checksum"):
        unpack(one[:13] + other[13:])


HEAD = pack(HEADER, GROUPS[:1])[:13]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "nothing is there"),
        (b"RC", "begin with"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "begin with"),
        (b"RCC", "truncated"),
        (b"RCC\x07" + bytes(40), "version 7"),
        (b"RCC\x04" + bytes(40), "checksum mismatch in the head"),
        (HEAD, "truncated: group"),
        (HEAD[:10] + b"\x23" + HEAD[11:], "coder 3"),
        (HEAD[:10] + b"\x2e" + HEAD[11:], "index code 3"),
        (HEAD[:11] + b"\x29\0", r"2\^41"),
        (HEAD[:11] + b"\xfe\0", r"2\^254"),
        (HEAD[:11] + b"\xff\x00\0", "short form"),
        (HEAD[:11] + b"\xff\x04\0", "short form"),
        (HEAD[:11] + b"\xff" + b"\xff" * 5 + b"\x7f\0", "outside"),
        (HEAD[:12] + b"\x80\x00", "shortest form"),
        (HEAD[:12] + b"\xff" * 9 + b"\x02", "64-bit"),
        (HEAD[:12] + b"\xff" * 11, "64-bit"),
        (HEAD + b"\xc4\x08\x08", "reserved bits"),
        (HEAD + b"\x80\x01\x08\x08", "short form"),
        (HEAD + b"\x80\x00\x08\x08", "short form"),
        (HEAD + b"\x40\x08\x08\xff\xff\xff\xff\x0f", "payload needs 4294967295 bytes"),
        (HEAD + b"\xc0\x08\x08\x00\x00", "truncated: checksum"),
        (with_checksum(HEAD + b"\xc2\x08\x08"), "mode 2"),
        (with_checksum(HEAD + b"\xc0\x00\x08"), "0x8"),
        (with_checksum(HEAD + b"\xc0\x08\x80\x80\x04"), "8x65536"),
        (with_checksum(HEAD + b"\x80\x81\x80\x80\x08\x08\x08"), "images"),
    ],
)
def test_each_fault_has_a_cause_in_one_line(data: bytes, cause: str) -> None:
    with pytest.raises(FormatError, match=cause) as fault:
        unpack(data)
    assert "\n" not in str(fault.value)


def test_joint_coding_is_version_2_and_nothing_else_changes() -> None:
    joint = replace(HEADER, joint=True)
    one, two = pack(HEADER, GROUPS), pack(joint, GROUPS)
    assert (one[3], two[3]) == (1, 2)
    assert unpack(two) == (joint, list(GROUPS))
    assert unpack(one) == (HEADER, list(GROUPS))
    assert one[4:18] == two[4:18]
    with pytest.raises(FormatError, match="checksum"):  # the version is under the checksum
        unpack(one[:3] + b"\x02" + one[4:])


def test_images_are_limited_over_all_groups_together() -> None:
    assert unpack(pack(HEADER, [Group(0, MAX_IMAGES, 8, 8, b"")]))[1][0].count == MAX_IMAGES
    with pytest.raises(LimitError, match="images"):
        pack(HEADER, [Group(0, MAX_IMAGES, 8, 8, b""), GROUPS[0]])


@pytest.mark.parametrize(
    ("header", "some"),
    [
        (HEADER, []),
        (Header(b"short", 0, 0, 0, 1, 0), GROUPS),
        (Header(bytes(6), 16, 0, 0, 1, 0), GROUPS),
        (Header(bytes(6), 0, 3, 0, 1, 0), GROUPS),
        (Header(bytes(6), 0, 0, 3, 1, 0), GROUPS),
        (Header(bytes(6), 0, 0, 0, 0, 0), GROUPS),
        (Header(bytes(6), 0, 0, 0, (1 << 40) + 1, 0), GROUPS),
        (Header(bytes(6), 0, 0, 0, 1, 1 << 64), GROUPS),
        (Header(bytes(6), 0, 0, 0, 1, -1), GROUPS),
        (HEADER, [Group(2, 1, 1, 1, b"")]),
        (HEADER, [Group(0, 0, 1, 1, b"")]),
        (HEADER, [Group(0, 1, 0, 1, b"")]),
        (HEADER, [Group(0, 1, 1, 65536, b"")]),
    ],
)
def test_pack_refuses_what_unpack_would(header: Header, some: list[Group]) -> None:
    with pytest.raises(LimitError):
        pack(header, some)


@settings(max_examples=300)
@given(st.binary(max_size=80), st.booleans())
def test_garbage_is_refused_or_is_a_file(tail: bytes, checked: bool) -> None:
    data = HEAD + tail
    data = with_checksum(data) if checked else data
    try:
        header, some = unpack(data)
    except FormatError:
        return
    assert pack(header, some) == data


def test_reading_files_does_not_load_torch() -> None:
    code = "import sys, rcccodec.container, rcccodec.index_code; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
