"""KLT + entropy-constrained scalar quantisation, with real bytes: the classical codec of small images.

    block -> (x - mean) @ basis -> q = argmin_q beta (c - q step)^2 + ln 2 len(q) -> range coder -> bytes

Transform, step, code lengths and levels (centroids) are fitted to training blocks at each slope
and count as known to the decoder, as a model does. Small images are one block, photographs are 8x8 ones.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rcccodec.images import from_float, to_channels
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder
from rcccodec.tiles import from_blocks, pad_to_multiple, to_blocks

TOTAL = 1 << 16  # of the integer frequencies of one coefficient
STEPS = (0.6, 1.0, 1.5, 2.2)  # tried, times sqrt(6 / beta), which is right at high rate
ROUNDS = 6
MAX_COEFFICIENTS, MAX_LEVEL = 256, 100
MAX_TRAINING_BLOCKS = 20_000  # evenly spaced among those of the training images
FAINT = 0.05  # coefficients of less variance than this share of 1 / (2 beta) are left out
_HEADER = struct.Struct(">IHHB")  # images, height, width, colour


@dataclass(frozen=True)
class Transform:
    """A KLT of blocks (h, w, channels): mean (dim,), basis (K, dim), orthonormal rows, strongest first."""

    block: tuple[int, int]
    channels: int
    mean: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True)
class Ecsq:
    """A fitted codec of one slope.

    levels: float64 (K, 2 L + 1), reconstruction of the integers -L..L of every coefficient.
    lengths_bits: (K, 2 L + 1), infinite where an integer is not used. frequencies: int64, sum TOTAL a row.
    """

    transform: Transform
    beta: float
    step: float
    levels: np.ndarray
    lengths_bits: np.ndarray
    frequencies: np.ndarray

    def compress(self, images: Sequence[np.ndarray]) -> bytes:
        """Images uint8 of one shape to bytes: a header of 9 bytes and one range-coded stream."""
        quantised = quantise(_coefficients(images, self.transform), self.step, self.beta, self.lengths_bits)
        encoder, middle = RangeEncoder(), self.levels.shape[1] // 2
        starts = (np.cumsum(self.frequencies, axis=1) - self.frequencies).tolist()
        frequencies = self.frequencies.tolist()
        for row in (quantised + middle).tolist():
            for k, symbol in enumerate(row):
                encoder.encode(starts[k][symbol], frequencies[k][symbol], TOTAL)
        height, width = images[0].shape[:2]
        return _HEADER.pack(len(images), height, width, images[0].ndim == 3) + encoder.finish()

    def decompress(self, data: bytes) -> list[np.ndarray]:
        """The images of `compress`, decoded from the bytes alone."""
        count, height, width, colour = _HEADER.unpack_from(data)
        h, w = self.transform.block
        padded = -(-height // h) * h, -(-width // w) * w
        each = (padded[0] // h) * (padded[1] // w)
        symbols = self._symbols(data[_HEADER.size :], count * each)
        coefficients = np.take_along_axis(self.levels, symbols.T, axis=1).T
        blocks = coefficients @ self.transform.basis + self.transform.mean
        images = []
        for part in blocks.reshape(count, each, -1):
            pixels = from_blocks(part, self.transform.block, padded, self.transform.channels)
            images.append(from_float(pixels[:height, :width], grey=not colour))
        return images

    def image_bits(self, data: bytes) -> np.ndarray:
        """Ideal code lengths of the images of a file, float64 (count,)."""
        count, height, width, _ = _HEADER.unpack_from(data)
        each = -(-height // self.transform.block[0]) * -(-width // self.transform.block[1])
        symbols = self._symbols(data[_HEADER.size :], count * each)
        taken = np.take_along_axis(self.frequencies, symbols.T, axis=1)
        return np.log2(TOTAL / taken).sum(0).reshape(count, each).sum(1)

    def _symbols(self, payload: bytes, count: int) -> np.ndarray:
        """int64 (count, K), 0-based."""
        decoder, below = RangeDecoder(payload), np.cumsum(self.frequencies, axis=1)
        slots = [np.repeat(np.arange(len(row)), row).tolist() for row in self.frequencies]
        starts, frequencies = (below - self.frequencies).tolist(), self.frequencies.tolist()
        symbols = np.empty((count, len(slots)), dtype=np.int64)
        for row in symbols:
            for k, slot in enumerate(slots):
                symbol = slot[decoder.peek(TOTAL)]
                decoder.consume(starts[k][symbol], frequencies[k][symbol])
                row[k] = symbol
        return symbols


def payload_bits(data: bytes) -> int:
    """Bits of a file without its header."""
    return 8 * (len(data) - _HEADER.size)


def fit_transform(images: Sequence[np.ndarray], block: tuple[int, int], channels: int) -> Transform:
    """The KLT of the blocks of training images, at most MAX_COEFFICIENTS of its rows."""
    rows = _training_rows(images, block, channels)
    mean = rows.mean(0)
    centred = rows - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    strongest = np.argsort(values)[::-1][: min(MAX_COEFFICIENTS, len(rows) - 1)]
    return Transform(block, channels, mean, vectors[:, strongest].T.copy())


def fit_ecsq(images: Sequence[np.ndarray], transform: Transform, beta: float) -> Ecsq:
    """Quantiser, lengths and centroids of least R + beta D / ln 2 on training images."""
    rows = _training_rows(images, transform.block, transform.channels)
    coefficients = (rows - transform.mean) @ transform.basis.T
    strong = coefficients.var(0) > FAINT / (2 * beta)
    strong[0] = True
    transform = replace(transform, basis=transform.basis[strong])
    coefficients = coefficients[:, strong]
    fitted = [_fit_step(coefficients, transform, beta, factor * math.sqrt(6 / beta)) for factor in STEPS]
    best = min(fitted, key=lambda one: one[0])[1]
    used = (best.frequencies > 0).sum(1) > 1
    used[0] = True
    kept = replace(transform, basis=transform.basis[used])
    return replace(
        best,
        transform=kept,
        levels=best.levels[used],
        lengths_bits=best.lengths_bits[used],
        frequencies=best.frequencies[used],
    )


def quantise(coefficients: np.ndarray, step: float, beta: float, lengths_bits: np.ndarray) -> np.ndarray:
    """The cheapest of nearest integer, next one towards zero, and zero: int64 (n, K).

    Args:
        coefficients: (n, K). lengths_bits: (K, 2 L + 1).
    """
    middle = lengths_bits.shape[1] // 2
    columns = np.arange(coefficients.shape[1])
    usable = np.isfinite(lengths_bits)  # a run of levels around zero
    low, high = usable.argmax(1) - middle, middle - usable[:, ::-1].argmax(1)
    nearest = np.clip(np.rint(coefficients / step), low, high).astype(np.int64)
    best, best_cost = np.zeros_like(nearest), None
    for option in (np.zeros_like(nearest), nearest - np.sign(nearest), nearest):
        length = lengths_bits[columns, option + middle]
        cost = beta * np.square(coefficients - step * option) + math.log(2) * length
        if best_cost is None:
            best_cost = cost
            continue
        better = cost < best_cost
        best, best_cost = np.where(better, option, best), np.where(better, cost, best_cost)
    return best


def _fit_step(coefficients: np.ndarray, transform: Transform, beta: float, step: float) -> tuple[float, Ecsq]:
    """Alternate choice and lengths; (Lagrangian in bits a block, codec)."""
    n, num = coefficients.shape
    reach = min(MAX_LEVEL, int(np.ceil(np.abs(coefficients).max() / step)) + 1)
    width = 2 * reach + 1
    lengths = np.zeros((num, width))
    columns = np.arange(num) * width + reach
    for _ in range(ROUNDS):
        chosen = quantise(coefficients, step, beta, lengths)
        counts = np.bincount((chosen + columns).ravel(), minlength=num * width).reshape(num, width)
        frequencies = _frequencies(counts)
        with np.errstate(divide="ignore"):
            lengths = -np.log2(frequencies / TOTAL)
    sums = np.bincount((chosen + columns).ravel(), coefficients.ravel(), num * width).reshape(num, width)
    uniform = step * np.arange(-reach, reach + 1)
    levels = np.where(counts > 0, sums / np.maximum(counts, 1), uniform)
    levels[(frequencies > 0).sum(1) == 1] = 0.0  # the mean of a constant that is left out
    taken = np.take_along_axis(levels, (chosen + reach).T, axis=1).T
    rate = np.take_along_axis(lengths, (chosen + reach).T, axis=1).sum() / n
    distortion = np.square(coefficients - taken).sum() / n
    return rate + beta * distortion / math.log(2), Ecsq(transform, beta, step, levels, lengths, frequencies)


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Integer frequencies, sum TOTAL a row: every level between the extremes seen has at least one."""
    num, width = counts.shape
    seen = counts > 0
    first, last = seen.argmax(1), width - 1 - seen[:, ::-1].argmax(1)
    places = np.arange(width)
    inside = (places >= first[:, None]) & (places <= last[:, None])
    inside[:, width // 2] = True  # zero stays possible
    weights = np.where(inside, counts + 0.1, 0.0)
    spare = TOTAL - inside.sum(1, keepdims=True)
    frequencies = np.floor(weights / weights.sum(1, keepdims=True) * spare).astype(np.int64) + inside
    frequencies[np.arange(num), frequencies.argmax(1)] += TOTAL - frequencies.sum(1)
    return frequencies


def _coefficients(images: Sequence[np.ndarray], transform: Transform) -> np.ndarray:
    return (_rows(images, transform.block, transform.channels) - transform.mean) @ transform.basis.T


def _training_rows(images: Sequence[np.ndarray], block: tuple[int, int], channels: int) -> np.ndarray:
    rows = _rows(images, block, channels)
    return rows[:: -(-len(rows) // MAX_TRAINING_BLOCKS)]


def _rows(images: Sequence[np.ndarray], block: tuple[int, int], channels: int) -> np.ndarray:
    """Blocks of all images as rows, float64 in units of pixel / 255."""
    cut = [to_blocks(pad_to_multiple(to_channels(x, channels)[0], *block), block) for x in images]
    return np.concatenate(cut).astype(np.float64) / 255
