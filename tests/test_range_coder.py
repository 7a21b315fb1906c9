"""The range coder: exact inverse, shortest output, carries, and constriction as an oracle."""

import math
import random
from fractions import Fraction

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder


def random_symbols(seed: int) -> list[tuple[int, int, int]]:
    """Up to 40 symbols (start, frequency, total) that dwell on the edges of what is allowed."""
    rng = random.Random(seed)
    symbols = []
    for _ in range(rng.randrange(41)):
        total = rng.choice([1, rng.randint(1, 300), rng.randint(1, 1 << 32), 1 << 40, 1 << 56])
        start = rng.choice([0, rng.randrange(total), total - 1])
        symbols.append((start, rng.choice([1, rng.randint(1, total - start), total - start]), total))
    return symbols


@settings(max_examples=300)
@given(st.integers(0, 1 << 60).map(random_symbols))
def test_range_decoder_finds_every_symbol(symbols: list[tuple[int, int, int]]) -> None:
    encoder = RangeEncoder()
    for symbol in symbols:
        encoder.encode(*symbol)
    decoder = RangeDecoder(encoder.finish())
    for start, frequency, total in symbols:
        assert start <= decoder.peek(total) < start + frequency
        decoder.consume(start, frequency)


@settings(max_examples=300)
@given(st.integers(0, 1 << 60).map(random_symbols))
def test_range_coder_writes_the_shortest_string_of_its_interval(symbols: list[tuple[int, int, int]]) -> None:
    # The same arithmetic without bytes: low and width as exact fractions of [0, 1).
    low, width, scale = Fraction(0), 1 << 64, 64
    encoder = RangeEncoder()
    for start, frequency, total in symbols:
        encoder.encode(start, frequency, total)
        share = width // total
        low += Fraction(share * start, 1 << scale)
        width = share * frequency
        while width <= 1 << 56:
            width, scale = width * 256, scale + 8
    high = low + Fraction(width, 1 << scale)
    size = 0
    while (smallest := math.ceil(low * 256**size)) >= high * 256**size:
        size += 1
    assert encoder.finish() == smallest.to_bytes(size, "big")


def test_a_carry_runs_through_a_row_of_full_bytes() -> None:
    symbols = [(0xFF, 1, 256)] * 20 + [(0, 3, 4), (2, 1, 3), (1, 1, 2)]
    half = [((1 << 56) // 3, 1 << 54, 1 << 56)] * 9
    for sequence in (symbols, half, [(0, 1, 3), (2, 1, 3)] * 30):
        encoder = RangeEncoder()
        for symbol in sequence:
            encoder.encode(*symbol)
        decoder = RangeDecoder(encoder.finish())
        for start, frequency, total in sequence:
            assert start <= decoder.peek(total) < start + frequency
            decoder.consume(start, frequency)


@pytest.mark.parametrize("seed", range(3))
def test_range_coder_is_within_a_byte_of_the_information_and_of_constriction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 2000, 300)
    below = np.concatenate(([0], np.cumsum(weights)))
    total = int(below[-1])
    symbols = rng.choice(300, 5000, p=weights / total).astype(np.int32)
    encoder = RangeEncoder()
    for symbol in symbols.tolist():
        encoder.encode(int(below[symbol]), int(weights[symbol]), total)
    payload_bits = 8 * len(encoder.finish())
    information_bits = float(-np.log2(weights[symbols] / total).sum())
    assert information_bits - 8 < payload_bits < information_bits + 9

    oracle = constriction.stream.queue.RangeEncoder()
    model = constriction.stream.model.Categorical(weights / total, perfect=True)
    oracle.encode(symbols, model)
    assert abs(payload_bits - oracle.num_bits()) <= 64
