"""Zipf-Huffman: Kraft sum, specified tables, a full Huffman code as the oracle, plain bits on the wire."""

import hashlib
import heapq
import math
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from dahuffman import HuffmanCodec

from rcccodec.index_code import ZipfHuffman, encode_segments
from rcccodec.index_code.zipf_huffman import _build_table, _class_weights, _split_into_classes


@pytest.mark.parametrize(
    "num_candidates",
    [1, 2, 3, 63, 64, 65, 127, 128, 131, 30000, 1 << 24, (1 << 24) - 1, (1 << 40) - 3, 1 << 40],
)
@pytest.mark.parametrize("rate_millibits", [0, 6000, 1_000_000])
def test_zipf_huffman_kraft_sum_is_exactly_one(num_candidates: int, rate_millibits: int) -> None:
    table = _build_table(num_candidates, rate_millibits)
    assert sum(1 << raw for raw in table.raw_bits.tolist()) == num_candidates
    assert sum(Fraction(1, 1 << length) for length in table.lengths.tolist()) == 1
    assert max(table.lengths) <= 56


def zipf_weights(num_candidates: int, rate_bits: float) -> np.ndarray:
    exponent = 1 + 1 / (rate_bits + math.log2(math.e) / math.e + 1)
    weights = np.arange(1, num_candidates + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


@pytest.mark.parametrize("rate_bits", [2.0, 6.5, 11.0])
def test_zipf_huffman_is_within_a_fiftieth_of_a_bit_of_a_full_huffman_code(rate_bits: float) -> None:
    num_candidates = 30000
    law = zipf_weights(num_candidates, rate_bits)
    scaled = {k: max(1, round(w * 2**40)) for k, w in enumerate(law.tolist())}
    full = HuffmanCodec.from_frequencies(scaled, eof=0).get_code_table()
    full_bits = sum(law[k] * full[k][0] for k in range(num_candidates))
    ours = ZipfHuffman(num_candidates, round(1000 * rate_bits)).lengths_bits(np.arange(num_candidates))
    assert full_bits <= float(law @ ours) < full_bits + 0.02
    entropy = float(-(law * np.log2(law)).sum())
    assert float(law @ ours) < entropy + 1


def specified_code_lengths(weights: list[int]) -> list[int]:
    """Huffman's algorithm as FORMAT.md words it, apart from any library."""
    heap = [(weight, name, [name]) for name, weight in enumerate(weights)]
    heapq.heapify(heap)
    lengths = [0] * len(weights)
    while len(heap) > 1:
        (weight, name, leaves), (other_weight, _, other_leaves) = heapq.heappop(heap), heapq.heappop(heap)
        for leaf in leaves + other_leaves:
            lengths[leaf] += 1
        heapq.heappush(heap, (weight + other_weight, name, leaves + other_leaves))
    return lengths


@pytest.mark.parametrize(
    ("num_candidates", "rate_millibits"), [(1, 0), (5, 0), (30000, 6000), ((1 << 24) - 1, 321)]
)
def test_zipf_huffman_lengths_follow_the_specified_tie_rule(num_candidates: int, rate_millibits: int) -> None:
    firsts, raw_bits = _split_into_classes(num_candidates)
    weights = _class_weights(firsts, raw_bits, rate_millibits)
    lengths = specified_code_lengths(weights)
    assert _build_table(num_candidates, rate_millibits).lengths.tolist() == lengths
    by_weight = sorted(zip(weights, lengths, strict=True))
    assert all(a[1] >= b[1] for a, b in pairwise(by_weight) if a[0] < b[0])


@pytest.mark.parametrize(
    ("num_candidates", "rate_millibits", "sha256"),
    [
        (30000, 6000, "b89d91cd6d138aeb3c952a6fb89d4e8fe0103b713a83cbf64381ff56efc93c3d"),
        (1 << 24, 12345, "83eadfde2d20d4f87f239bda6f8e093d23c95adb08c3ef94463f89d642435de2"),
    ],
)
def test_zipf_huffman_tables_never_change(num_candidates: int, rate_millibits: int, sha256: str) -> None:
    lengths = _build_table(num_candidates, rate_millibits).lengths.astype("<i8")
    assert hashlib.sha256(lengths.tobytes()).hexdigest() == sha256


def test_zipf_huffman_bits_are_those_of_a_plain_prefix_code() -> None:
    num_candidates = 5000
    indices = np.random.default_rng(0).integers(0, num_candidates, 400)
    table = _build_table(num_candidates, 4200)
    order = sorted(range(len(table.words)), key=lambda c: (table.lengths[c], c))
    words, word, previous = {}, 0, int(table.lengths[order[0]])
    for cls in order:
        word <<= int(table.lengths[cls]) - previous
        previous = int(table.lengths[cls])
        words[cls] = f"{word:0{previous}b}"
        word += 1
    bits = ""
    for index in indices.tolist():
        cls = int(np.searchsorted(table.starts, index, side="right")) - 1
        raw = int(table.raw_bits[cls])
        bits += words[cls] + (f"{index - int(table.starts[cls]):0{raw}b}" if raw else "")
    bits += "0" * (-len(bits) % 8)
    payload = encode_segments([(ZipfHuffman(num_candidates, 4200), indices)])
    assert payload == int(bits, 2).to_bytes(len(bits) // 8, "big")


def test_zipf_huffman_table_of_16_million_is_built_in_a_moment() -> None:
    _build_table.cache_clear()
    begin = time.process_time()
    ZipfHuffman(1 << 24, 7777).lengths_bits(np.array([0]))
    assert time.process_time() - begin < 1.0  # about 0.12 s on an idle core
