"""Integer tables and the coded strings of the baselines: lengths, round trips, refusals."""

import importlib
import math
import sys

import numpy as np
import pytest
import torch

from rcccodec.baselines.compressai import import_compressai
from rcccodec.baselines.file import Group, NtcFile, pack, unpack
from rcccodec.baselines.tables import Reader, Tables, encode, factorised_tables, gaussian_tables, to_symbols
from rcccodec.errors import FormatError, InputError


def _gaussian_symbols(tables: Tables, scales: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(scales), count).astype(np.int32)
    return np.rint(generator.normal(0, scales[rows])).astype(np.int32), rows


@pytest.fixture(scope="module")
def scales() -> np.ndarray:
    return np.array([0.11, 0.5, 1.0, 4.0, 30.0])


def test_a_string_is_as_long_as_its_ideal_code_lengths_and_one_state(scales):
    tables = gaussian_tables(scales)
    symbols, rows = _gaussian_symbols(tables, scales, 20_000)
    ideal = tables.bits(symbols, rows).sum()
    spent = 8 * len(encode([(symbols, rows, tables)]))
    assert ideal < spent < 1.001 * ideal + 64
    wrong = tables.bits(symbols, np.zeros_like(rows)).sum()  # control: the wrong rows are far longer
    assert wrong > 1.2 * ideal


def test_ideal_code_lengths_are_those_of_the_density(scales):
    tables = gaussian_tables(scales)
    for row, scale in enumerate(scales):
        for symbol in (0, 1):
            mass = 0.5 * (
                math.erf((symbol + 0.5) / scale / math.sqrt(2))
                - math.erf((symbol - 0.5) / scale / math.sqrt(2))
            )
            bits = tables.bits(np.array([symbol], np.int32), np.array([row], np.int32))[0]
            if mass > 1e-3:
                assert bits == pytest.approx(-math.log2(mass), abs=0.03)


def test_parts_come_back_in_order_also_with_symbols_that_have_no_entry(scales):
    tables, other = gaussian_tables(scales), gaussian_tables(scales[:2])
    first = (np.array([0, 5, -700, 3], np.int32), np.array([0, 1, 2, 4], np.int32), tables)
    second = (np.array([99_999, 0], np.int32), np.array([1, 0], np.int32), other)
    data = encode([first, second])
    bits = tables.bits(*first[:2]).sum() + other.bits(*second[:2]).sum()
    assert bits - 1 < 8 * len(data) <= bits + 64
    reader = Reader(data)
    assert np.array_equal(reader.read(first[1], tables), first[0])
    assert np.array_equal(reader.read(second[1], other), second[0])


def test_factorised_tables_follow_the_bottleneck():
    bottleneck = import_compressai("compressai.entropy_models").EntropyBottleneck(3, init_scale=2)
    tables = factorised_tables(bottleneck)
    likelihood, _, _ = bottleneck._likelihood(torch.zeros(3, 1, 1))
    bits = tables.bits(np.zeros(3, np.int32), np.arange(3, dtype=np.int32))
    assert bits == pytest.approx(-likelihood[:, 0, 0].detach().log2().numpy(), abs=0.02)


def test_latents_round_half_to_even_and_stay_in_reach():
    y = torch.tensor([0.5, 1.5, -0.5, -1.2, 1e12])
    assert to_symbols(y).tolist() == [0, 2, 0, -1, 1 << 20]


@pytest.mark.parametrize(
    ("cdf", "length", "offset"),
    [([0, 5, 3, 1 << 16], 4, 0), ([1, 5, 9, 1 << 16], 4, 0), ([0, 5, 9, 100], 4, 0),
     ([0, 1 << 16, 0, 0], 2, 0), ([0, 5, 9, 1 << 16], 5, 0), ([0, 5, 9, 1 << 16], 4, 1 << 30)],
)  # fmt: skip
def test_tables_that_could_mislead_the_coder_are_refused(cdf, length, offset):
    Tables(*(np.array(a, np.int32) for a in ([[0, 5, 9, 1 << 16]], [4], [-1])))  # control: a sound one
    with pytest.raises(ValueError, match="table"):
        Tables(*(np.array(a, np.int32) for a in ([cdf], [length], [offset])))


def test_a_string_of_no_whole_words_is_refused():
    for data in (b"", b"abc", b"abcde"):
        with pytest.raises(FormatError, match="whole words"):
            Reader(data)


FILE = NtcFile(
    b"\x01\x02\x03\x04", 3, True, (Group(2, (32, 32, 1)), Group(1, (7, 300, 3))), (b"abcd", b"", b"efghijkl")
)


def test_a_file_comes_back_and_counts_its_payload():
    assert unpack(pack(FILE)) == FILE
    assert FILE.payload_bits == 8 * 12
    one = NtcFile(b"abcd", 0, False, (Group(1000, (32, 32, 1)),), (bytes(4000),))
    assert unpack(pack(one)) == one
    assert len(pack(one)) == 4000 + 11 + 1 + 2 + 3 + 4  # fixed, groups, count, shape, checksum


def test_any_damaged_byte_and_any_cut_is_noticed():
    data = pack(FILE)
    for i in range(len(data)):
        with pytest.raises(FormatError):
            unpack(data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :])
        with pytest.raises(FormatError):
            unpack(data[:i])


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "compressai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "compressai", None)  # what makes an import fail
    with pytest.raises(InputError, match=r"pip install 'rcccodec\[bench\]'") as caught:
        import_compressai("compressai.ans")
    assert "\n" not in str(caught.value)
    assert importlib.import_module("rcccodec.baselines")  # control: the package itself needs no extra
