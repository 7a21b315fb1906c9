"""Blahut-Arimoto: the best law on a given set of candidates, for a given set of source blocks.

With candidates y_j of mass q_j, at slope beta (nats per unit of distortion)::

    c_i = sum_j q_j exp(-beta d_ij)          q_j <- q_j (1/n) sum_i exp(-beta d_ij) / c_i

    L = -(1/n) sum_i ln c_i falls; it is within max_j ln((1/n) sum_i exp(-beta d_ij) / c_i) of its least

(Blahut 1972.) With Y = X, the training samples themselves, this is the estimator that the
NERD papers compare with: a rate of at most log2 n bits, and the R(D) of those n samples, not of their law.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlahutArimoto:
    """What the iteration ended with.

    rate_bits, distortion, lagrangian_bits (R + beta D / ln 2): means over the blocks it ran on.
    gap_bits: the Lagrangian is within this of the least one for these candidates.
    log_mass: float64 (m,), ln q. rounds: made; settled: whether the gap was small enough to stop.
    """

    beta: float
    rate_bits: float
    distortion: float
    lagrangian_bits: float
    gap_bits: float
    log_mass: Tensor
    rounds: int
    settled: bool


def blahut_arimoto(
    distances: Tensor,
    beta: float,
    *,
    tolerance_bits: float = 0.01,
    max_rounds: int = 300,
    start: Tensor | None = None,
    source: Tensor | None = None,
) -> BlahutArimoto:
    """Minimise R + beta D over the law of the candidates.

    Kernels are shifted by each row's least distance, so that no row vanishes, whatever beta is.

    Args:
        distances: float (n, m), d(x_i, y_j) >= 0.
        beta: > 0.
        tolerance_bits: of ``gap_bits``.
        start: ln q to begin with, (m,); uniform if None.
        source: masses of the rows, float64 (n,); equal if None.

    Raises:
        ValueError: beta is not positive or there are no distances.
    """
    if not 0 < beta < math.inf or not distances.numel():
        raise ValueError("blahut_arimoto needs beta > 0 and distances")
    n, m = distances.shape
    p = torch.full((n,), 1 / n, dtype=torch.float64) if source is None else source.double()
    nearest = distances.amin(1).double()
    kernel = torch.exp(-beta * (distances - nearest.to(distances.dtype)[:, None]))
    mass = torch.full((m,), 1 / m, dtype=torch.float64) if start is None else start.exp().double()
    mass = mass / mass.sum()
    ln2, gap, rounds, partition = math.log(2), math.inf, 0, _product(kernel, mass)
    while rounds < max_rounds and gap > tolerance_bits * ln2:
        factor = _product(kernel.T, p / partition)
        mass = mass * factor
        mass = mass / mass.sum()
        partition = _product(kernel, mass)
        rounds += 1
        if rounds % 10 == 0 or rounds == max_rounds:
            gap = math.log(float(_product(kernel.T, p / partition).max()))
    per_block, distortion = _evaluate(distances, kernel, nearest, mass, partition, beta)
    lagrangian, d = float(p @ per_block), float(p @ distortion)
    return BlahutArimoto(
        beta, (lagrangian - beta * d) / ln2, d, lagrangian / ln2, gap / ln2, mass.log(), rounds,
        gap <= tolerance_bits * ln2,
    )  # fmt: skip


def evaluate_law(distances: Tensor, log_mass: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Rate and distortion of other blocks under a law found before: an upper bound on R(D) of their source.

    Args:
        distances: float (B, m) of the blocks to the candidates.
        log_mass: (m,), of `BlahutArimoto`.

    Returns:
        bits and distortion of every block, float64 (B,).
    """
    nearest = distances.amin(1).double()
    kernel = torch.exp(-beta * (distances - nearest.to(distances.dtype)[:, None]))
    mass = log_mass.exp()
    partition = _product(kernel, mass)
    lagrangian, distortion = _evaluate(distances, kernel, nearest, mass, partition, beta)
    return (lagrangian - beta * distortion) / math.log(2), distortion


def _evaluate(
    distances: Tensor, kernel: Tensor, nearest: Tensor, mass: Tensor, partition: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """-ln sum_j q_j exp(-beta d_ij) and the posterior mean of d, float64 (n,)."""
    moment = _product(kernel * distances, mass)
    return beta * nearest - torch.log(partition), moment / partition


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector in the matrix' own precision, float64: all terms are positive, nothing cancels."""
    return (matrix @ vector.to(matrix.dtype)).double()
