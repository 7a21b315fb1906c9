"""Markov chains on E(y) + b d(x, y): Langevin dynamics, jumps, and flips of letters.

    y' = y - step s^2 grad + sqrt(2 step) s noise     (rd-ebm eq. 6 for s = 1), s the energy's scale

Unadjusted chains of few small steps have another law than the one they are meant for. Here a proposal is
accepted by the rule of Metropolis, with which the law is invariant whatever the step; every chain draws the
size of each step anew, so that wide and narrow wells are both explored; and jumps by differences of training
vectors, a symmetric proposal, cross what diffusion cannot. Over a finite alphabet all letters are proposed
at once from the gradient (the discrete Langevin proposal, arXiv 2206.09914), with the exact change of d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rcccodec.rd.energy import Energy, pair_distance
from rcccodec.rd.problem import Problem

_DECADES = 1.5  # of step sizes below the largest
_TARGET = 0.57  # acceptance that step sizes are adapted towards (Roberts and Rosenthal 1998)


@dataclass(frozen=True)
class Place:
    """Where chains are: y (B, dim); energy and distance (B,) with their gradients (B, dim)."""

    y: Tensor
    energy: Tensor
    distance: Tensor
    energy_gradient: Tensor
    distance_gradient: Tensor

    def potential(self, b: Tensor) -> Tensor:
        """E + b d, (B,); b (B,)."""
        return self.energy + b * self.distance

    def gradient(self, b: Tensor) -> Tensor:
        return self.energy_gradient + b[:, None] * self.distance_gradient


def place(problem: Problem, energy: Energy, x: Tensor, y: Tensor) -> Place:
    """Evaluate E and d at y, for source vectors x, both (B, dim)."""
    leaf = y.detach().requires_grad_()
    with torch.enable_grad():
        e = energy(leaf)
        (slope,) = torch.autograd.grad(e.sum(), leaf)
    d, flat = _distance(problem, x, leaf.detach())
    return Place(leaf.detach(), e.detach(), d, slope, flat)


def _distance(problem: Problem, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """d and its gradient in y, which letters do without."""
    d = pair_distance(problem, x, y)
    if problem.distortion == "mse":
        return d, 2 * (y - x)
    if problem.distortion == "l1":
        return d, (y - x).sign()
    if problem.alphabet is not None:
        return d, torch.zeros_like(y)
    leaf = y.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(pair_distance(problem, x, leaf).sum(), leaf)
    return d, slope


def move(
    problem: Problem,
    energy: Energy,
    x: Tensor,
    here: Place,
    b: Tensor,
    step: Tensor,
    generator: torch.Generator,
) -> tuple[Place, Tensor]:
    """One transition that leaves exp(-E(y) - b d(x, y)) invariant: Langevin or a jump, or flips of letters.

    Args:
        x: (B, dim), the rows' source vectors.
        b: (B,); 0 for the law of reproductions, beta for the channel.
        step: (B,) largest step sizes, without unit.

    Returns:
        the new places, and the acceptance of rows that were not to jump, (B,) in [0, 1] or NaN.
    """
    sizes = step * 10 ** (-_DECADES * _uniform(step.shape, generator, step.device))
    if problem.alphabet is not None:
        there, log_ratio = _propose_letters(problem, energy, x, here, b, sizes, generator)
        local = torch.ones_like(b, dtype=torch.bool)
    else:
        local = _uniform(b.shape, generator, b.device) < 0.5
        variance = sizes[:, None] * energy.scale.square()
        noise = (2 * variance).sqrt() * _normal(here.y.shape, generator, x.device)
        drifted = here.y - variance * here.gradient(b) + noise
        jumped = here.y + _differences(problem, len(x), generator, x.device)
        there = place(problem, energy, x, torch.where(local[:, None], drifted, jumped))
        # ln q(back) - ln q(there) of a Langevin proposal; a jump is as likely as its way back
        back = here.y - there.y + variance * there.gradient(b)
        log_ratio = ((noise.square() - back.square()) / (4 * variance)).sum(1).where(local, 0)
    log_accept = here.potential(b) - there.potential(b) + log_ratio
    return _accept(here, there, log_accept, generator), log_accept.clamp_max(0).exp().where(local, math.nan)


def diffuse(
    problem: Problem,
    energy: Energy,
    x: Tensor,
    here: Place,
    b: Tensor,
    step: float,
    generator: torch.Generator,
    noise: float = 1.0,
) -> Place:
    """The paper's unadjusted step (eq. 6); ``noise`` is 1, or it is no Langevin dynamics."""
    z = _normal(here.y.shape, generator, x.device)
    return place(problem, energy, x, here.y - step * here.gradient(b) + noise * math.sqrt(2 * step) * z)


def adapted(step: Tensor, acceptance: Tensor) -> Tensor:
    """A step size for the next transition; whoever adapts has no invariant law, so only before measuring."""
    return (step * (0.2 * (acceptance - _TARGET)).exp()).clamp(1e-7, 10.0)


def _propose_letters(
    problem: Problem,
    energy: Energy,
    x: Tensor,
    here: Place,
    b: Tensor,
    sizes: Tensor,
    generator: torch.Generator,
) -> tuple[Place, Tensor]:
    """Every component's letter from its own conditional, linearised; another letter is ``sizes`` as likely.

    ln q(a) = -(dE/dy_k (a - y_k) + b (d(x_k, a) - d(x_k, y_k))) / 2 + ln size [a != y_k] + const.
    """
    letters = problem.alphabet.to(x)[:, None, None]  # first, which is faster than last
    costs = b[:, None] * pair_distance(problem, x[None, ..., None], letters[..., None])
    log_size = sizes.log()[:, None]

    def log_proposal(at: Place) -> tuple[Tensor, Tensor]:
        own = letters == at.y
        change = at.energy_gradient * letters + costs  # less its value at y, which is constant
        return (change / -2 + torch.where(own, 0, log_size)).log_softmax(0), own

    forward, before = log_proposal(here)
    u = _uniform(here.y.shape, generator, x.device)
    chosen = (forward.exp().cumsum(0)[:-1] < u).sum(0)
    there = place(problem, energy, x, letters.flatten()[chosen])
    backward, after = log_proposal(there)
    return there, (torch.where(before, backward, 0) - torch.where(after, forward, 0)).sum((0, 2))


def _differences(problem: Problem, rows: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Differences of training vectors in some components, (rows, dim): as likely as their negatives."""
    train = problem.train
    i, j = torch.randint(len(train), (2, rows), generator=generator)
    jump = train[i] - train[j]
    u = torch.rand(rows, 1, generator=generator)
    sizes = torch.randn(rows, 1, generator=generator) * 10 ** (-2 * torch.rand(rows, 1, generator=generator))
    jump = torch.where(u < 0.5, jump, jump * sizes)
    if problem.dim > 1:  # from all components down to about one
        share = float(problem.dim) ** -torch.rand(rows, 1, generator=generator)
        jump = jump * (torch.rand(jump.shape, generator=generator) < share)
    return jump.to(device)


def _accept(here: Place, there: Place, log_accept: Tensor, generator: torch.Generator) -> Place:
    taken = _uniform(log_accept.shape, generator, log_accept.device).log() < log_accept
    rows = taken[:, None]
    return Place(
        torch.where(rows, there.y, here.y),
        torch.where(taken, there.energy, here.energy),
        torch.where(taken, there.distance, here.distance),
        torch.where(rows, there.energy_gradient, here.energy_gradient),
        torch.where(rows, there.distance_gradient, here.distance_gradient),
    )


def _uniform(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator).to(device)


def _normal(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator).to(device)
