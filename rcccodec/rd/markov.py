"""R(D) of n symbols of a stationary binary Markov chain under Hamming distortion: exact or bracketed.

With P(0 -> 1) = q, P(1 -> 0) = p, stationary law pi and H_n = h(pi) + (n - 1) (pi_0 h(q) + pi_1 h(p)) bits::

    R_n(D) >= H_n - n h(D / n)

with equality if and only if X = Y + Z modulo 2 for some Y and independent noise Z of n Bernoulli(D / n)
bits, that is if dividing the noise out of the law of n symbols leaves no negative mass (Gray 1971, for n ->
infinity and the symmetric chain: R(D) = h(q) - h(D) up to D_c = (1 - sqrt(1 - (q / (1 - q))^2)) / 2 a
symbol). For n symbols `critical_distortion` finds the largest such D exactly. Beyond it blocks of k symbols
bracket the curve at every slope, L = min R + beta D, S_b the last symbol before block b::

    L(X_1) + sum_b>1 L(X_b | S_b)  <=  L_n  <=  sum_b L(X_b) - sum_b I(Y_b; Y_b+1)

The left side is a conditional rate-distortion function (Gray 1973), because I(X^n; Y^n) is at least sum_b
I(X_b; Y_b | X_<b), and X_b hangs on X_<b through S_b alone; Wyner and Ziv's bound (1971), H_n + sum_b
(L(X_b) - H_b), is below it. The right side sends each block through its own best channel and takes off what
neighbours tell of each other: I(X^n; Y^n) = sum_b I(X_b; Y_b) - (sum_b H(Y_b) - H(Y^n)) for such a channel.
Every L comes from Blahut-Arimoto over all 2^k words.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rcccodec.rd.bernoulli import binary_entropy_bits, noise_at_slope
from rcccodec.rd.blahut_arimoto import BlahutArimoto, blahut_arimoto
from rcccodec.rd.kernel import HammingKernel

BLOCK = 10  # symbols
_TOLERANCE_BITS, _ROUNDS = 1e-5, 2000
_UNDERFLOW = 1e-300
_ROWS = 256  # words whose pairs with all others are held at a time


@dataclass(frozen=True)
class MarkovBounds:
    """What is known of R_n at one slope, in bits and differing symbols of the whole sequence.

    exact: (D, R) is on the curve. Else it is on or above it.
    lower_lagrangian_bits: R_n(D) is at least this less beta D / ln 2, for every D.
    blocks: symbols of each block; empty if none were needed.
    """

    beta: float
    exact: bool
    rate_bits: float
    distortion: float
    lower_lagrangian_bits: float
    blocks: tuple[int, ...] = ()


def stationary_one(p: float, q: float) -> float:
    """P(X = 1) = q / (p + q).

    Raises:
        ValueError: a probability is not between 0 and 1.
    """
    if not (0 < p < 1 and 0 < q < 1):
        raise ValueError(f"p and q must be between 0 and 1, got {p} and {q}")
    return q / (p + q)


def entropy_rate_bits(p: float, q: float) -> float:
    """Bits a symbol of the endless chain, pi_0 h(q) + pi_1 h(p)."""
    one = stationary_one(p, q)
    return (1 - one) * binary_entropy_bits(q) + one * binary_entropy_bits(p)


def sequence_entropy_bits(p: float, q: float, n: int) -> float:
    """H_n of n symbols: the first costs h(pi), more than the others."""
    return binary_entropy_bits(stationary_one(p, q)) + (n - 1) * entropy_rate_bits(p, q)


def endless_critical_distortion(p: float, q: float) -> float:
    """D_c a symbol of the endless chain with p + q <= 1: 4 D_c (1 - D_c) = 4 p q / (2 - p - q)^2.

    The words 0101... are the first to lose their mass, where the product of their two matrices has complex
    eigenvalues.
    Gray's D_c if p = q. Checked for other chains against `critical_distortion` of many symbols, not proved.

    Raises:
        ValueError: p + q > 1, where other words are the first.
    """
    stationary_one(p, q)
    if p + q > 1:
        raise ValueError(f"p + q must be at most 1, got {p} and {q}")
    return 0.5 * (1 - math.sqrt(max(0.0, 1 - 4 * p * q / (2 - p - q) ** 2)))


def critical_distortion(p: float, q: float, n: int) -> float:
    """The largest D a symbol up to which n symbols meet the lower bound, to 1e-12; falls with n.

    Raises:
        ValueError: a probability is not between 0 and 1.
    """
    low, high = 0.0, min(stationary_one(p, q), 1 - stationary_one(p, q))
    if _divides(p, q, n, high):
        return high
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _divides(p, q, n, middle) else (low, middle)
    return low


def lower_rate_at_distortion_bits(p: float, q: float, n: int, distortion: float) -> float:
    """H_n - n h(D / n), at least 0: a lower bound of R_n at a distortion, exact up to the critical one."""
    d = distortion / n
    return max(0.0, sequence_entropy_bits(p, q, n) - n * binary_entropy_bits(d)) if d < 0.5 else 0.0


def markov_bounds_at_slope(p: float, q: float, n: int, beta: float, *, block: int = BLOCK) -> MarkovBounds:
    """The point of slope ``-dR/dD = beta``, or a bracket of it.

    Args:
        p, q: P(1 -> 0) and P(0 -> 1).
        n: symbols of the sequence.
        beta: > 0, nats per differing symbol.
        block: symbols k of a block of the bracket; 2^k words are iterated over.

    Raises:
        ValueError: a probability is not between 0 and 1, or beta or block is not positive.
    """
    if not (beta > 0 and block > 0):
        raise ValueError(f"beta and block must be positive, got {beta} and {block}")
    d, entropy = noise_at_slope(beta), sequence_entropy_bits(p, q, n)
    if d <= critical_distortion(p, q, n):
        rate = entropy - n * binary_entropy_bits(d)
        return MarkovBounds(beta, True, rate, n * d, rate + beta * n * d / math.log(2))
    sizes = [block] * (n // block) + [n % block] * (n % block > 0)
    best = {k: best_block(p, q, k, beta) for k in set(sizes)}
    shannon = entropy - n * (binary_entropy_bits(d) - beta * d / math.log(2))
    gained = {(a, b): neighbour_bits(p, q, best[a], best[b]) for a, b in set(_pairs(sizes))}
    lower = best[sizes[0]].lagrangian_bits - best[sizes[0]].gap_bits
    after = {k: _lower_after_bits(p, q, k, beta) for k in set(sizes[1:])}
    lower += sum(after[k] for k in sizes[1:])
    rate = sum(best[k].rate_bits for k in sizes) - sum(gained[pair] for pair in _pairs(sizes))
    distortion = sum(best[k].distortion for k in sizes)
    return MarkovBounds(beta, False, rate, distortion, max(lower, shannon, 0.0), tuple(sizes))


def word_masses(p: float, q: float, k: int, after: int | None = None) -> Tensor:
    """P of all 2^k words, at any place or after a symbol; float64, the first symbol is the highest bit."""
    one, steps = stationary_one(p, q), _steps(p, q)
    mass = torch.tensor([1 - one, one], dtype=torch.float64) if after is None else steps[after]
    for _ in range(k - 1):
        mass = (mass.reshape(-1, 2, 1) * steps).reshape(-1)
    return mass


def best_block(p: float, q: float, k: int, beta: float, after: int | None = None) -> BlahutArimoto:
    """Blahut-Arimoto over all words of k symbols, at any place or after a symbol."""
    return blahut_arimoto(
        HammingKernel(k, beta), beta, source=word_masses(p, q, k, after), tolerance_bits=_TOLERANCE_BITS,
        max_rounds=_ROUNDS,
    )  # fmt: skip


def neighbour_bits(p: float, q: float, left: BlahutArimoto, right: BlahutArimoto) -> float:
    """I(Y_b; Y_b+1) of the reproductions of two blocks in a row, each sent through its own channel."""
    ends = _with_end(p, q, left, last=True)
    begins = _with_end(p, q, right, last=False)
    one = stationary_one(p, q)
    link = _steps(p, q) / torch.tensor([1 - one, one], dtype=torch.float64)
    forward = ends.T @ link  # (words, 2): P(y_b, the next symbol is t) / P(t)
    product_left, product_right = ends.sum(0), begins.sum(0)
    total = 0.0
    for rows, mass in zip(forward.split(_ROWS), product_left.split(_ROWS), strict=True):
        joint = rows @ begins
        independent = (mass[:, None] * product_right).clamp_min(_UNDERFLOW)
        total += float((torch.special.xlogy(joint, joint) - joint * independent.log()).sum())
    return max(0.0, total / math.log(2))


def _lower_after_bits(p: float, q: float, k: int, beta: float) -> float:
    """A lower value of L(X_b | S_b): both laws of a block that a known symbol precedes, averaged."""
    one = stationary_one(p, q)
    found = [best_block(p, q, k, beta, after=s) for s in (0, 1)]
    return sum(w * (b.lagrangian_bits - b.gap_bits) for w, b in zip((1 - one, one), found, strict=True))


def _with_end(p: float, q: float, block: BlahutArimoto, last: bool) -> Tensor:
    """P(y, the block's last or first source symbol is s), float64 (2, words)."""
    words = len(block.log_mass)
    k = words.bit_length() - 1
    kernel, log_p = HammingKernel(k, block.beta), word_masses(p, q, k).log()
    symbol = torch.arange(words) >> (0 if last else k - 1) & 1
    log_c = kernel.apply(block.log_mass)
    parts = [(log_p - log_c).masked_fill(symbol != s, -math.inf) for s in (0, 1)]
    return torch.stack([torch.exp(block.log_mass + kernel.apply(part)) for part in parts])


def _divides(p: float, q: float, n: int, d: float) -> bool:
    """Whether the law of n symbols with the noise of d divided out has no negative mass.

    The signed mass of y_1..y_t and the hidden x_t is a vector of two, multiplied by a matrix for every
    symbol. The vectors of all 2^t words span a cone whose edges are images of edges, so that two rays are
    enough: they are kept as the difference of the entries over their sum, which must stay positive.
    """
    one = stationary_one(p, q)
    noise = ((1 - d, -d), (-d, 1 - d))
    rays = [(w[0] * (1 - one), w[1] * one) for w in noise]
    for t in range(n):
        if any(a + b < 0 for a, b in rays):
            return False
        if t == n - 1:
            break
        if any(a + b == 0 for a, b in rays):
            return False
        slopes = [(b - a) / (a + b) for a, b in rays]
        edges = [((1 - s) / 2, (1 + s) / 2) for s in (min(slopes), max(slopes))]
        moved = [((1 - q) * a + p * b, q * a + (1 - p) * b) for a, b in edges]
        rays = [(w[0] * a, w[1] * b) for a, b in moved for w in noise]
    return True


def _steps(p: float, q: float) -> Tensor:
    return torch.tensor([[1 - q, q], [p, 1 - p]], dtype=torch.float64)


def _pairs(sizes: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(sizes))
