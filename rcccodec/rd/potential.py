"""Positive functions u of source vectors, from which the dual problem makes lower bounds on R(D).

The best is u(x) = E exp(-beta d(x, Y)) under the law of Y that attains R(D). Near it come

    quadratic   u of the Gaussian source with the same covariance (reverse water-filling); squared error only
    mixture     sum_j w_j exp(-beta d(x, y_j)), masses by Blahut-Arimoto, for squared error moved too

Neither is used as it is: 1 / u(x) of one rare x would rule a mean over k of them. So a floor is added, which
costs little when it is about 1 / k, and a network corrects what is left::

    u(x) = start(x) exp(network(x)) + floor
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from rcccodec.rd.blahut_arimoto import blahut_arimoto
from rcccodec.rd.problem import Problem
from rcccodec.rd.supremum import TILE, list_reproductions

PARTICLES = 500
SOURCE = 6_000  # vectors that a start is fitted to
SEARCHED = 256  # particles that the search for the supremum starts from, the heaviest
MOVES = 20  # of the particles, each with as many changes of mass


class Quadratic(nn.Module):
    """ln u = -1/2 sum_c ln(s_c / lambda) + z_c^2 / s_c, s_c = max(variance_c, lambda), z: principal axes.

    With lambda = 1 / (2 beta) this is ln E exp(-beta |x - Y|^2) for the Gaussian of that covariance.
    """

    def __init__(self, x: Tensor, beta: float) -> None:
        super().__init__()
        centre = x.mean(0)
        variances, basis = torch.linalg.eigh(torch.cov((x - centre).double().T).reshape(x.shape[1], -1))
        level = 1 / (2 * beta)
        spread = variances.clamp_min(level)
        self.register_buffer("centre", centre)
        self.register_buffer("whiten", (basis / spread.sqrt()).float())
        self.constant = float(-0.5 * (spread / level).log().sum())

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.centre) @ self.whiten
        return self.constant - 0.5 * z.square().sum(1)


class Mixture(nn.Module):
    """ln sum_j w_j exp(-beta d(x, y_j)); buffers ``y`` (m, dim) and ``log_mass`` (m,)."""

    def __init__(self, problem: Problem, x: Tensor, beta: float, generator: torch.Generator) -> None:
        super().__init__()
        self.beta, self.distance = beta, problem.distance
        listed = list_reproductions(problem.alphabet, problem.dim)
        shuffled = x[torch.randperm(len(x), generator=generator)]
        y = listed if listed is not None else shuffled[: min(PARTICLES, len(x) // 2)]
        rest = shuffled if listed is not None else shuffled[len(y) :]
        log_mass = torch.full((len(y),), -math.log(len(y)), dtype=torch.float64)
        if problem.distortion == "mse":
            y, log_mass = _move(rest, y, log_mass, beta)
        else:
            log_mass = blahut_arimoto(self.distance(rest, y), beta, tolerance_bits=0.002).log_mass
        self.register_buffer("y", y)
        self.register_buffer("log_mass", log_mass.clamp_min(-700).float())

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            torch.logsumexp(self.log_mass - self.beta * self.distance(rows, self.y), 1)
            for rows in x.split(max(1, TILE // len(self.y)))
        ]
        return torch.cat(parts)


class Potential(nn.Module):
    """ln u(x), float32 (n,) for x (n, dim): a start, a network that begins at 0, a floor."""

    def __init__(self, start: nn.Module, x: Tensor, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.start = start
        self.register_buffer("centre", x.mean(0))
        self.register_buffer("scale", x.std(0).clamp_min(1e-2 * float(x.std()) + 1e-12))
        sizes = (x.shape[1], width, width, 1)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        with torch.no_grad():
            for layer in layers:
                bound = layer.in_features**-0.5
                layer.weight.copy_((2 * torch.rand(layer.weight.shape, generator=generator) - 1) * bound)
                layer.bias.zero_()
            layers[-1].weight.zero_()
        self.network = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
        self.log_floor = nn.Parameter(torch.tensor(-math.inf))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.start(x) + self.network((x - self.centre) / self.scale)[:, 0]
        return torch.logaddexp(inner, self.log_floor)

    def set_floor(self, nats: float) -> None:
        """ln of the floor."""
        with torch.no_grad():
            self.log_floor.fill_(nats)

    @property
    def particles(self) -> Tensor:
        """The heaviest points of a mixture, (n, dim): places to search from."""
        if not isinstance(self.start, Mixture):
            return self.centre[None]
        heavy = self.start.log_mass.topk(min(SEARCHED, len(self.start.log_mass))).indices
        return self.start.y[heavy]

    @property
    def tail(self) -> nn.Module:
        """What is trained: everything but the start."""
        return _Tail(self)


class _Tail(nn.Module):
    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.network, self.log_floor = potential.network, potential.log_floor


def _move(x: Tensor, y: Tensor, log_mass: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Both steps at once: w_j <- mean_i r_ij, y_j <- sum_i r_ij x_i / sum_i r_ij; the bound never gets worse.

    r_ij is the posterior of y_j given x_i: expectation-maximisation for kernels of fixed width. Of equal
    particles none would part, but samples are not equal.
    """
    for _ in range(MOVES):
        mass = torch.zeros(len(y), dtype=torch.float64)
        moment = torch.zeros(y.shape, dtype=torch.float64)
        for rows in x.split(max(1, TILE // len(y))):
            d = (rows.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * rows @ y.T).clamp_min(0)
            r = torch.softmax(log_mass.float() - beta * d, 1)
            mass += r.sum(0, dtype=torch.float64)
            moment += (r.T @ rows).double()
        held = mass > 1e-6
        y = torch.where(held[:, None], moment / mass.clamp_min(1e-6)[:, None], y.double()).float()
        log_mass = (mass / mass.sum()).clamp_min(1e-300).log()
    return y, log_mass
