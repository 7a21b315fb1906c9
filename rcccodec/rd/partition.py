"""ln Z(x) / Z of an energy-based channel, by annealing from the law of reproductions to the channel.

Chains start with a draw y_0 of p(y) ~ exp(-E); at 0 = b_0 < b_1 < ... < b_K = beta a transition keeps
exp(-E - b_k d) invariant, and (Jarzynski 1997; Neal 2001)

    work = sum_k (b_k - b_{k-1}) d(x, y_{k-1}),        E exp(-work) = Z(x) / Z

whatever K is: thermodynamic integration, -ln Z(x)/Z = int_0^beta E_b[d] db, with a known side to err on,
since the mean work is never less. Run backwards from a draw of the channel it errs on the other side: the two
enclose the Lagrangian, as far as the first draws are what they should be, and their hysteresis cancels to
first order in their mean (`Annealed.middle_nats`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rcccodec.rd.energy import Energy
from rcccodec.rd.langevin import Place, adapted, move, place
from rcccodec.rd.problem import Problem

_BENDING = 3.0  # b_k = beta (k / K)^bending: the mean distance falls fastest near b = 0


@dataclass(frozen=True)
class Annealed:
    """What chains from the law to the channel and back have found.

    Attributes:
        lagrangian_nats: -ln of the mean of exp(-work) over a vector's chains, float64 (B,).
        reverse_nats: the same from the channel back to the law: not above -ln Z(x)/Z in the mean.
        distortion: of the channel's samples, float64 (B,), means over chains.
        x, y: float32 (chains B, dim), source vectors and draws of the channel, chain after chain.
        marginal: float32 (chains B, dim), draws of the law.
        law_acceptance, channel_acceptance: of the transitions at either end.
    """

    lagrangian_nats: Tensor
    reverse_nats: Tensor
    distortion: Tensor
    x: Tensor
    y: Tensor
    marginal: Tensor
    law_acceptance: float
    channel_acceptance: float

    @property
    def middle_nats(self) -> Tensor:
        """The mean of both, float64 (B,): the best guess, no bound."""
        return (self.lagrangian_nats + self.reverse_nats) / 2


@torch.no_grad()
def anneal(
    problem: Problem,
    energy: Energy,
    beta: float,
    x: Tensor,
    start: Tensor,
    *,
    distributions: int,
    chains: int,
    burn: int,
    steps: tuple[float, float],
    generator: torch.Generator,
) -> Annealed:
    """Estimate the Lagrangian of every source vector with fresh chains.

    Args:
        x: (B, dim).
        start: (m, dim), where the chains of the law come from before ``burn`` transitions: source vectors.
        distributions: K.
        steps: largest step sizes of the law and of the channel, adapted in the burn-in, then frozen.
    """
    repeated = x.repeat(chains, 1)
    rows, device = len(repeated), x.device
    picks = torch.randint(len(start), (rows,), generator=generator).to(device)
    here = place(problem, energy, repeated, start[picks])
    here, law_step, law_acceptance = _settle(problem, energy, repeated, here, 0.0, steps[0], burn, generator)
    marginal = here.y
    # the channel's step size is found on chains of its own
    trial = place(problem, energy, repeated, marginal)
    _, channel_step, channel_acceptance = _settle(
        problem, energy, repeated, trial, beta, steps[1], max(1, burn // 2), generator
    )
    levels = [beta * (k / distributions) ** _BENDING for k in range(distributions + 1)]

    def sweep(here: Place, path: list[float]) -> tuple[Place, Tensor]:
        work = torch.zeros(rows, dtype=torch.float64, device=device)
        for before, b in pairwise(path):
            work += (b - before) * here.distance.double()
            share = b / beta
            step = law_step ** (1 - share) * channel_step**share
            here, _ = move(
                problem, energy, repeated, here, torch.full((rows,), b, device=device),
                torch.full((rows,), step, device=device), generator,
            )  # fmt: skip
        return here, work

    here, forward = sweep(here, levels)
    full = torch.full((rows,), beta, device=device)
    total = torch.zeros(rows, dtype=torch.float64, device=device)
    rests = max(1, distributions // 10)
    for _ in range(rests):  # so that the mean distance is not that of one instant
        here, _ = move(problem, energy, repeated, here, full, torch.full_like(full, channel_step), generator)
        total += here.distance.double()
    y = here.y
    _, reverse = sweep(here, levels[::-1])
    per_chain = (chains, len(x))
    return Annealed(
        lagrangian_nats=math.log(chains) - (-forward).reshape(per_chain).logsumexp(0).cpu(),
        reverse_nats=(-reverse).reshape(per_chain).logsumexp(0).cpu() - math.log(chains),
        distortion=(total / rests).reshape(per_chain).mean(0).cpu(),
        x=repeated,
        y=y,
        marginal=marginal,
        law_acceptance=law_acceptance,
        channel_acceptance=channel_acceptance,
    )


def _settle(
    problem: Problem,
    energy: Energy,
    x: Tensor,
    here: Place,
    b: float,
    step: float,
    count: int,
    generator: torch.Generator,
) -> tuple[Place, float, float]:
    """Transitions at one b with the step size adapted in the first half; acceptance of the second."""
    rows = torch.full((len(x),), b, device=x.device)
    size, accepted, kept = torch.tensor(step), 0.0, 0
    for i in range(count):
        here, acceptance = move(problem, energy, x, here, rows, size.expand(len(x)).to(x.device), generator)
        if i < count // 2:
            size = adapted(size, acceptance.nanmean().cpu())
        else:
            accepted, kept = accepted + float(acceptance.nanmean()), kept + 1
    return here, float(size), accepted / max(1, kept)
