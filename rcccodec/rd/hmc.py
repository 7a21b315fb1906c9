"""Hamiltonian Monte Carlo for densities proportional to p(z) exp(-beta d(z)), many chains at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 0.2  # of a step's length, drawn for every trajectory, so that none is a whole period of the target


@dataclass(frozen=True)
class State:
    """Where chains are, and both terms of the energy -log p(z) + beta d(z), so that beta may change for free.

    Attributes:
        z: float32 (..., k).
        prior_nats, distortion: -log p(z) up to a constant, and d, float32 (...).
        prior_gradient, distortion_gradient: of these two, float32 (..., k).
    """

    z: Tensor
    prior_nats: Tensor
    distortion: Tensor
    prior_gradient: Tensor
    distortion_gradient: Tensor

    def energy(self, beta: float) -> Tensor:
        """-log p(z) + beta d(z) in nats, float64 (...)."""
        return self.prior_nats.double() + beta * self.distortion.double()

    def gradient(self, beta: float) -> Tensor:
        """Of the energy, (..., k)."""
        return self.prior_gradient + beta * self.distortion_gradient


Evaluate = Callable[[Tensor], State]


def leapfrog_path(
    state: State, momentum: Tensor, beta: float, step: Tensor, leapfrog: int, evaluate: Evaluate
) -> tuple[State, Tensor]:
    """Follow Hamilton's equations for ``leapfrog`` steps of length ``step`` (broadcasts to z).

    Invariants: reversible (negate the momentum to come back) and volume-preserving.
    """
    momentum = momentum - step / 2 * state.gradient(beta)
    for left in range(leapfrog, 0, -1):
        state = evaluate(state.z + step * momentum)
        momentum = momentum - (step if left > 1 else step / 2) * state.gradient(beta)
    return state, momentum


def hmc_transition(
    state: State, beta: float, step: Tensor, leapfrog: int, evaluate: Evaluate, generator: torch.Generator
) -> tuple[State, Tensor]:
    """One trajectory and its Metropolis test (Neal 2011).

    Args:
        beta: of the target p(z) exp(-beta d(z)).
        step: length of a leapfrog step for each group of chains, broadcasts to z.
        generator: on the CPU; everything random comes from it.

    Returns:
        The new state and the probabilities of acceptance (...), 0 where a trajectory left the floats.

    Invariants: leaves the target invariant and is reversible, if the step does not depend on the chains.
    """
    device, shape = state.z.device, state.z.shape
    momentum = torch.randn(shape, generator=generator).to(device)
    jitter = torch.rand((*shape[:-1], 1), generator=generator).to(device)
    uniform = torch.rand(shape[:-1], generator=generator).to(device)
    step = step * (1 + JITTER * (2 * jitter - 1))
    end, last = leapfrog_path(state, momentum, beta, step, leapfrog, evaluate)
    change = _hamiltonian(state, momentum, beta) - _hamiltonian(end, last, beta)
    acceptance = torch.nan_to_num(change, nan=-torch.inf).clamp(max=0).exp()
    return _choose(uniform < acceptance, end, state), acceptance


def _hamiltonian(state: State, momentum: Tensor, beta: float) -> Tensor:
    return state.energy(beta) + momentum.double().square().sum(-1) / 2


def _choose(accepted: Tensor, new: State, old: State) -> State:
    rows = accepted[..., None]
    return State(
        torch.where(rows, new.z, old.z),
        torch.where(accepted, new.prior_nats, old.prior_nats),
        torch.where(accepted, new.distortion, old.distortion),
        torch.where(rows, new.prior_gradient, old.prior_gradient),
        torch.where(rows, new.distortion_gradient, old.distortion_gradient),
    )
