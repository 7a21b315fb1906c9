"""One energy network is both the law of reproductions and the channel (rd-ebm section 4.1, lemma 3).

    p(y) = exp(-E(y)) / Z          p(y|x) = exp(-E(y) - beta d(x, y)) / Z(x)

    L(E) = -E_x ln(Z(x) / Z) = E_x KL(p(y|x) || p(y)) + beta D  >=  min (I + beta D)     nats

    dL/dE = E_x E_{y ~ p(y|x)} dE(y)  -  E_{y ~ p(y)} dE(y)

so that samples of the channel against samples of the law itself are an exact gradient of the Lagrangian.
(The paper's x is our y.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rcccodec.distortion import paired
from rcccodec.rd.problem import Problem

_OCTAVES = 6  # of sines of a single component: an atom needs a narrow well
_GRID = 20_001
_ROWS = 100  # source vectors integrated at a time


class Energy(nn.Module):
    """E: (B, dim) -> (B,), normalisable whatever its weights.

    Walls that every component has, a pair term, and a network with sigmoid units, which is bounded::

        s = (y - centre) / scale
        E = sum_k a_k (sqrt(1 + s_k^2) - 1) + c_k s_k^2 / 2  +  t' W t  +  network(features),  t = tanh s

    with a, c > 0. The features are s, and the sines and cosines of 2^j s where there is one component.

    Invariants: before training, exp(-E) is a heavy-tailed law at the place and scale of the source.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, centre: Tensor, scale: Tensor, width: int, generator: torch.Generator, hidden: int = 3
    ) -> None:
        """
        Args:
            centre, scale: float32 (dim,); scale > 0.
            width, hidden: of the sigmoid layers.
            generator: for the first weights.
        """
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.register_buffer("scale", scale.clone())
        dim = len(centre)
        self.wall = nn.Parameter(torch.full((dim,), math.log(math.e - 1)))  # softplus 1
        self.curve = nn.Parameter(torch.full((dim,), -3.0))
        self.pairs = nn.Parameter(torch.zeros(dim, dim))
        inputs = dim if dim > 1 else 1 + 2 * _OCTAVES
        self.network = multilayer(inputs, width, hidden, nn.Sigmoid, generator)

    def forward(self, y: Tensor) -> Tensor:
        """E(y) for rows (B, dim), (B,)."""
        s = (y - self.centre) / self.scale
        squared = s.square()
        walls = nn.functional.softplus(self.wall) * ((1 + squared).sqrt() - 1)
        curve = nn.functional.softplus(self.curve) * squared / 2
        t = s.tanh()
        return (walls + curve + t * (t @ self.pairs)).sum(1) + self.network(self._features(s)).squeeze(1)

    def _features(self, s: Tensor) -> Tensor:
        if s.shape[1] > 1:
            return s
        phases = s * 2.0 ** torch.arange(_OCTAVES, device=s.device)
        return torch.cat([s, phases.sin(), phases.cos()], 1)


def multilayer(
    inputs: int, width: int, hidden: int, activation: type[nn.Module], generator: torch.Generator
) -> nn.Sequential:
    """A fully connected network of ``hidden`` layers with one output, which is zero at first."""
    layers: list[nn.Module] = []
    for i in range(hidden):
        layer = nn.Linear(inputs if i == 0 else width, width)
        gain = 4.0 if activation is nn.Sigmoid else 1.0  # a sigmoid's slope is a quarter
        with torch.no_grad():
            nn.init.xavier_normal_(layer.weight, gain, generator=generator)
            layer.bias.normal_(0, 1 if activation is nn.Sigmoid else 0.1, generator=generator)
        layers += [layer, activation()]
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def build_energy(problem: Problem, width: int, generator: torch.Generator) -> Energy:
    """An untrained energy at the place and scale of the training vectors."""
    spread = problem.train.std(0) if len(problem.train) > 1 else torch.zeros(problem.dim)
    largest = float(spread.max())
    floor = 0.1 * largest if largest > 0 else 1.0  # a pixel that is always black has no scale of its own
    return Energy(problem.train.mean(0), spread.clamp_min(floor), width, generator)


def pair_distance(problem: Problem, x: Tensor, y: Tensor) -> Tensor:
    """d(x_i, y_i) for rows of x and y (..., dim), (...); `Problem.distance` without the cross terms."""
    return paired(problem.distortion)(x, y)


@dataclass(frozen=True)
class LearnedChannel:
    """What an energy of one component is worth, integrated: no sample, no discriminator.

    lagrangian_nats, distortion: float64 (B,), of every source vector; R = lagrangian - beta D is
    KL(p(y|x) || p(y)), whose mean is at least the mutual information.
    """

    lagrangian_nats: Tensor
    distortion: Tensor


@torch.no_grad()
def integrate(problem: Problem, energy: Energy, beta: float, x: Tensor) -> LearnedChannel:
    """Z, Z(x) and D(x) by sums over the alphabet, or over a fine grid of the line.

    Raises:
        ValueError: vectors of more than one component.
    """
    if problem.dim != 1:
        raise ValueError("integrate is for one component")
    if problem.alphabet is not None:
        grid = problem.alphabet.reshape(-1, 1)
    else:
        reach = 12 * float(energy.scale)
        low, high = float(problem.train.min()) - reach, float(problem.train.max()) + reach
        grid = torch.linspace(low, high, _GRID, dtype=torch.float64).float().reshape(-1, 1)
    grid = grid.to(energy.centre.device)
    log_mass = (-energy(grid).double()).log_softmax(0)
    lagrangian, distortion = [], []
    for rows in x.to(grid.device).split(_ROWS):
        d = pair_distance(problem, rows[:, None], grid[None]).double()
        log_joint = log_mass - beta * d
        log_z = log_joint.logsumexp(1)
        lagrangian.append(-log_z.cpu())
        distortion.append(((log_joint - log_z[:, None]).exp() * d).sum(1).cpu())
    return LearnedChannel(torch.cat(lagrangian), torch.cat(distortion))
