"""Integer frequency tables and CompressAI's rANS coder: symbols to one byte string and back.

Tables are made once from the trained densities and stored as integers, so that no machine has to compute a
density again to read a file. CompressAI's own ``compress`` makes a string of whole 32-bit words for each
image; here everything of a file goes into one string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rcccodec.baselines.compressai import import_compressai
from rcccodec.errors import FormatError

PRECISION_BITS = 16  # fixed by CompressAI's coder
REACH = 128  # symbols from -REACH to REACH may get an entry of their own
LEAST_MASS = 2.0**-18  # of a symbol with an entry; others are escaped
MAX_SYMBOL = 1 << 20  # beyond it a latent is clipped

Symbols = NDArray[np.int32]


@dataclass(frozen=True)
class Tables:
    """Cumulative frequencies, one row for each context.

    ``cdfs`` (rows, longest) int32, from 0 to 2^16 and padded; ``lengths`` (rows,) int32, entries used;
    ``offsets`` (rows,) int32, symbol of the first entry. The last entry is the escape.

    Raises:
        ValueError: they are no such tables.
    """

    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __post_init__(self) -> None:
        rows = len(self.cdfs)
        if self.cdfs.ndim != 2 or self.lengths.shape != (rows,) or self.offsets.shape != (rows,):
            raise ValueError("tables have other shapes")
        if any(array.dtype != np.int32 for array in (self.cdfs, self.lengths, self.offsets)):
            raise ValueError("tables are not int32")
        if rows and not (self.lengths.min() >= 3 and self.lengths.max() <= self.cdfs.shape[1]):
            raise ValueError("table lengths out of bounds")
        if rows and np.abs(self.offsets.astype(np.int64)).max() > MAX_SYMBOL:
            raise ValueError("table offsets out of bounds")
        for cdf, length in zip(self.cdfs, self.lengths, strict=True):
            if cdf[0] != 0 or cdf[length - 1] != 1 << PRECISION_BITS or (np.diff(cdf[:length]) <= 0).any():
                raise ValueError("a table does not rise from 0 to 2^16")

    def bits(self, symbols: Symbols, rows: Symbols) -> NDArray[np.float64]:
        """Ideal code length of each symbol under its row, shaped as ``symbols``."""
        position = symbols.astype(np.int64) - self.offsets[rows]
        escape = self.lengths[rows] - 2
        escaped = (position < 0) | (position >= escape)
        entry = np.where(escaped, escape, position)
        frequency = self.cdfs[rows, entry + 1] - self.cdfs[rows, entry]
        # CompressAI sends an escaped value, folded to be non-negative, as a count of nibbles and the nibbles
        folded = np.where(position < 0, -2 * position - 1, 2 * (position - escape))
        nibbles = np.ceil(np.log2(np.maximum(folded, 0) + 1) / 4)
        return PRECISION_BITS - np.log2(frequency) + np.where(escaped, 4 * (1 + nibbles), 0)


@torch.no_grad()
def factorised_tables(bottleneck: Any) -> Tables:
    """Tables of CompressAI's EntropyBottleneck at whole numbers, a row for each of its channels."""
    at = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    likelihood, _, _ = bottleneck._likelihood(at.repeat(bottleneck.channels, 1)[:, None, :])
    mass = likelihood[:, 0, :].double().numpy()
    return _tables([_trimmed(row) for row in mass])


def gaussian_tables(scales: NDArray[np.float64]) -> Tables:
    """Tables of rounded zero-mean Gaussians, a row for each standard deviation."""
    edges = torch.arange(-REACH, REACH + 2, dtype=torch.float64) - 0.5
    cumulative = torch.special.ndtr(edges / torch.from_numpy(scales)[:, None])
    return _tables([_trimmed(row) for row in cumulative.diff(dim=1).numpy()])


def encode(parts: list[tuple[Symbols, Symbols, Tables]]) -> bytes:
    """One string of all the parts (symbols, rows, tables), flat int32 arrays of one length each."""
    encoder = import_compressai("compressai.ans").BufferedRansEncoder()
    for symbols, rows, tables in parts:
        encoder.encode_with_indexes(symbols.tolist(), rows.tolist(), *_lists(tables))
    data: bytes = encoder.flush()
    return data


class Reader:
    """Takes the parts of a string again, in the order they were encoded in."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 4 or len(data) % 4:
            raise FormatError(f"a coded string of {len(data)} bytes is not one of whole words")
        self._decoder = import_compressai("compressai.ans").RansDecoder()
        self._decoder.set_stream(data)

    def read(self, rows: Symbols, tables: Tables) -> Symbols:
        """The next symbols, as many as there are ``rows``."""
        return np.array(self._decoder.decode_stream(rows.tolist(), *_lists(tables)), np.int32)


def to_symbols(y: torch.Tensor) -> Symbols:
    """Latents rounded half to even, int32; NaN is 0, for the coder would never end on what becomes of it."""
    return torch.round(y.detach()).nan_to_num().clamp(-MAX_SYMBOL, MAX_SYMBOL).to(torch.int32).cpu().numpy()


def _lists(tables: Tables) -> tuple[list[list[int]], list[int], list[int]]:
    return tables.cdfs.tolist(), tables.lengths.tolist(), tables.offsets.tolist()


def _trimmed(mass: NDArray[np.float64]) -> tuple[int, list[float]]:
    """First symbol with an entry, then the masses of the entries and of the escape."""
    worth = np.flatnonzero(mass >= LEAST_MASS)
    first, last = (worth[0], worth[-1]) if len(worth) else (REACH, REACH)
    kept = mass[first : last + 1]
    return int(first) - REACH, [*kept.tolist(), max(1 - float(kept.sum()), 1e-12)]


def _tables(entries: list[tuple[int, list[float]]]) -> Tables:
    quantise = import_compressai("compressai._CXX").pmf_to_quantized_cdf
    rows = [quantise(masses, PRECISION_BITS) for _, masses in entries]
    cdfs = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, cdf in zip(rows, cdfs, strict=True):
        cdf[: len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int32)
    return Tables(cdfs, lengths, np.array([first for first, _ in entries], np.int32))
