"""Blahut-Arimoto: the best law on a given set of candidates, for a given set of source vectors.

With candidates y_j of mass q_j, at slope beta (nats per unit of distortion)::

    c_i = sum_j q_j exp(-beta d_ij)        f_j = sum_i p_i exp(-beta d_ij) / c_i        q_j <- q_j f_j

    L(q) = -sum_i p_i ln c_i  >=  min_q L  >=  L(q) - max_j ln f_j

(Blahut 1972; Csiszar 1974.) The plain step is a unit step of mirror descent on a convex L, so it is given
Nesterov's momentum in ln q. Where L would rise the plain step is made instead, which cannot raise it, and the
momentum starts anew; it never takes mass from a candidate that f would raise, so that tails are not emptied.
With Y = X, the training samples themselves, this is the estimator that the NERD papers compare with: a rate
of at most log2 n bits, and the R(D) of those n samples, not of their law.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rcccodec.rd.kernel import Kernel, MatrixKernel

_ROUNDING = 1e-13  # nats: a rise of L that is none


class State(NamedTuple):
    """Where it stands: ln q, the end of the last plain step, steps since the momentum began, rounds."""

    log_mass: Tensor
    last: Tensor
    age: int
    rounds: int


@dataclass(frozen=True)
class BlahutArimoto:
    """What the iteration ended with.

    rate_bits, distortion, lagrangian_bits (R + beta D / ln 2): means over the vectors it ran on.
    gap_bits: the Lagrangian is within this of the least one for these candidates.
    log_mass: float64 (m,), ln q. rounds: made; settled: whether the gap was small enough to stop.
    sweeps: passes over the distances; more than the rounds where a long step was taken back.
    history: upper and lower value of L in bits before the first round and after each.
    """

    beta: float
    rate_bits: float
    distortion: float
    lagrangian_bits: float
    gap_bits: float
    log_mass: Tensor
    rounds: int
    settled: bool
    sweeps: int
    history: tuple[tuple[float, float], ...]


def blahut_arimoto(
    distances: Tensor | Kernel,
    beta: float,
    *,
    tolerance_bits: float = 0.01,
    max_rounds: int = 300,
    start: Tensor | State | None = None,
    source: Tensor | None = None,
    accelerate: bool = True,
    keep: Callable[[State], None] = lambda _state: None,
) -> BlahutArimoto:
    """Minimise R + beta D over the law of the candidates.

    Args:
        distances: float (n, m), d(x_i, y_j) >= 0, or a kernel of the same beta.
        beta: > 0.
        tolerance_bits: of ``gap_bits``.
        start: ln q to begin with, (m,), or where a run was left; uniform if None. A candidate without mass
            there never gets any.
        source: masses of the rows, float64 (n,); equal if None.
        accelerate: with momentum; the plain iteration otherwise.
        keep: told where it stands, after each round.

    Raises:
        ValueError: beta is not positive or there are no distances.

    Invariants: the upper value never rises; every lower value is at most every upper one.
    """
    if not 0 < beta < math.inf or (isinstance(distances, Tensor) and not distances.numel()):
        raise ValueError("blahut_arimoto needs beta > 0 and distances")
    kernel = MatrixKernel.of(distances, beta) if isinstance(distances, Tensor) else distances
    n, m = kernel.shape
    p = torch.full((n,), 1 / n, dtype=torch.float64) if source is None else source.double()
    p = p.to(kernel.device)
    log_p, ln2 = p.log(), math.log(2)
    state = _begin(start, m, kernel.device)
    log_c, log_f = kernel.sweep(state.log_mass, log_p)
    value, gap, sweeps = _value(p, log_c), _gap(log_f), 1
    history = [(value / ln2, (value - gap) / ln2)]
    while state.rounds < max_rounds and gap > tolerance_bits * ln2:
        plain = _normalised(state.log_mass + log_f)
        tried, age = _with_momentum(plain, state, log_f) if accelerate else plain, state.age + 1
        log_c, new_f = kernel.sweep(tried, log_p)
        sweeps += 1
        if state.age > 0 and not _value(p, log_c) <= value + _ROUNDING:
            tried, age = plain, 0
            log_c, new_f = kernel.sweep(tried, log_p)
            sweeps += 1
        log_f, state = new_f, State(tried, plain, age, state.rounds + 1)
        value, gap = _value(p, log_c), _gap(log_f)
        history.append((value / ln2, (value - gap) / ln2))
        keep(state)
    log_c, d = kernel.evaluate(state.log_mass)
    value, distortion = _value(p, log_c), float(p @ d)
    return BlahutArimoto(
        beta, (value - beta * distortion) / ln2, distortion, value / ln2, gap / ln2, state.log_mass,
        state.rounds, gap <= tolerance_bits * ln2, sweeps, tuple(history),
    )  # fmt: skip


def evaluate_law(distances: Tensor | Kernel, log_mass: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Rate and distortion of other vectors under a law found before: an upper bound on R(D) of their source.

    Args:
        distances: float (B, m) of the vectors to the candidates, or a kernel.
        log_mass: (m,), of `BlahutArimoto`.

    Returns:
        bits and distortion of every vector, float64 (B,).
    """
    kernel = MatrixKernel.of(distances, beta) if isinstance(distances, Tensor) else distances
    log_c, distortion = kernel.evaluate(log_mass)
    return (-log_c - beta * distortion) / math.log(2), distortion


def _begin(start: Tensor | State | None, m: int, device: torch.device) -> State:
    if isinstance(start, State):
        return start._replace(log_mass=start.log_mass.to(device), last=start.last.to(device))
    log_q = _normalised(torch.zeros(m, dtype=torch.float64) if start is None else start.double())
    return State(log_q.to(device), log_q.to(device), 0, 0)


def _with_momentum(plain: Tensor, state: State, log_f: Tensor) -> Tensor:
    momentum = state.age / (state.age + 3) * (plain - state.last)
    momentum = torch.where((momentum < 0) & (log_f > 0), 0.0, momentum).nan_to_num()  # -inf stays -inf
    return _normalised(plain + momentum)


def _normalised(log_q: Tensor) -> Tensor:
    return log_q - torch.logsumexp(log_q, 0)


def _value(p: Tensor, log_c: Tensor) -> float:
    return -float(p @ log_c)


def _gap(log_f: Tensor) -> float:
    return max(0.0, float(log_f.max()))
