"""A law of one dimension as a grid: candidates, and source nodes with exact masses between them.

Candidates are evenly spaced. Each cell between two of them holds Gauss-Legendre nodes of the source, scaled
to the cell's exact mass, so that the kinks of |x - y| and of a Laplacian lie on cell edges and L(q) of any
law q of the candidates is integrated to far less than 1e-4 bit. Keeping
reproductions to the grid costs less than that too if its spacing is a fraction of the width of exp(-beta d):
L changes by the square of the change of c(x). `line_lower_bits` checks it: no law on the line, on the grid or
not, has an L below that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rcccodec.distortion import Distortion

_NODES = 3  # in a cell
_SPACING = {"l1": 0.15}  # of the noise's width; kinked kernels need more
_SMOOTH_SPACING = 0.5
_FEWEST = 401
_BETWEEN = 4  # points tried from one candidate to the next
_CHUNK = 512
_TAIL, _SLACK_NATS = 1e-6, 0.05  # source mass beyond, and what is left off ln s there


@dataclass(frozen=True)
class LineLaw:
    """A law on the line: its distribution function, its density, how far it reaches either side of 0."""

    cdf: Callable[[Tensor], Tensor]
    density: Callable[[Tensor], Tensor]
    reach: float


@dataclass(frozen=True)
class Grid:
    """x (n, 1) with masses (n,) that sum to 1; candidates y (m, 1); float64."""

    x: Tensor
    mass: Tensor
    y: Tensor


def line_law(name: str, parameters: dict[str, float]) -> LineLaw | None:
    """The law of a synthetic source of one component that has a density; None for any other source."""
    if parameters.get("m") != 1:
        return None
    if name == "gaussian":
        return _gaussians(math.sqrt(parameters["variance"]), 0.0)
    if name == "sphere":
        return _gaussians(math.sqrt(parameters["noise"]), 1.0)
    if name == "laplacian":
        b = parameters["b"]
        return LineLaw(
            lambda x: 0.5 + 0.5 * torch.sign(x) * -torch.expm1(-x.abs() / b),
            lambda x: torch.exp(-x.abs() / b) / (2 * b),
            20 * b,  # beyond it lies exp(-20) of the mass, which is left out
        )
    return None


def make_grid(law: LineLaw, distortion: str, beta: float, most: int) -> Grid:
    """A grid fine enough for a slope, if it can have so many candidates.

    Args:
        distortion: ``mse``, ``l1`` or ``lp:P`` (squared error in one dimension).
        beta: nats per unit of distortion.
        most: candidates.
    """
    width = 1 / beta if distortion == "l1" else math.sqrt(0.5 / beta)
    wanted = 2 * law.reach / (_SPACING.get(distortion, _SMOOTH_SPACING) * width)
    half = min(most, max(_FEWEST, math.ceil(wanted))) // 2  # an odd number: 0 is a candidate
    y = torch.linspace(-law.reach, law.reach, 2 * half + 1, dtype=torch.float64)
    node, weight = _legendre(_NODES)
    edges = y[:-1, None]
    x = edges + (y[1:, None] - edges) * node
    share = law.density(x) * weight
    cells = law.cdf(y).diff()
    mass = cells[:, None] * share / share.sum(1, keepdim=True).clamp_min(1e-300)
    kept = mass.reshape(-1) > 0
    return Grid(x.reshape(-1, 1)[kept], mass.reshape(-1)[kept] / mass.sum(), y[:, None])


def line_lower_bits(grid: Grid, distance: Distortion, beta: float, log_c: Tensor) -> float:
    """A lower value of L for reproductions anywhere on the line, from a good law on the grid.

    sum_i p_i ln s_i - ln max_y sum_i p_i s_i exp(-beta d(x_i, y)), true for any s > 0 (Csiszar 1974). s is
    1 / c of the law, and a little less in the tails, where a law that is nearly never needed settles last.
    The maximum is over four points a cell.

    Args:
        log_c: ln c (n,) of the law.
    """
    y, log_p, cells = grid.y[:, 0], grid.mass.log(), len(grid.y) - 1
    fine = torch.linspace(float(y[0]), float(y[-1]), cells * _BETWEEN + 1, dtype=torch.float64)[:, None]
    beyond = torch.minimum(grid.mass.cumsum(0), grid.mass.flip(0).cumsum(0).flip(0))
    log_s = -log_c - _SLACK_NATS * (beyond < _TAIL)
    highest = max(
        float(torch.logsumexp((log_p + log_s)[:, None] - beta * distance(grid.x, some), 0).max())
        for some in fine.split(_CHUNK)
    )
    return (float(grid.mass @ log_s) - highest) / math.log(2)


def _gaussians(deviation: float, centre: float) -> LineLaw:
    """Half N(centre, deviation^2), half N(-centre, deviation^2)."""

    def cdf(x: Tensor) -> Tensor:
        return 0.5 * sum(torch.special.ndtr((x - c) / deviation) for c in (centre, -centre))

    def density(x: Tensor) -> Tensor:
        return 0.5 * sum(torch.exp(-0.5 * ((x - c) / deviation) ** 2) for c in (centre, -centre))

    return LineLaw(cdf, density, centre + 8 * deviation)


def _legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
