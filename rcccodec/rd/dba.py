"""Discriminative Blahut-Arimoto: an energy network learns law and channel, a discriminator the rate.

Algorithm 1 of rd-ebm. At every step chains of the channel and of the law move on, the energy follows the
gradient of the Lagrangian that their difference is (`rcccodec.rd.energy`), and the discriminator climbs its
bound (`rcccodec.rd.discriminator`). What differs from the paper unless ``adjusted`` is false:

    chains       stay from step to step and obey the rule of Metropolis (`rcccodec.rd.langevin`); the paper's
                 start anew and take 200 small steps, which reach 0.63 from where they began
    rate         -ln Z(x) / Z is annealed with fresh chains on test vectors (`rcccodec.rd.partition`), from
                 both ends, which are ``gap_bits`` apart; the discriminator's bound stands beside it as
                 ``discriminator_bits``
    weights      are averaged over the second half of training

On one component the learnt energy is also integrated: ``quadrature_rate_bits``, ``quadrature_distortion``,
which tells the energy's error from the sampling's.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor, nn

from rcccodec.errors import InputError
from rcccodec.rd.discriminator import CEILING, Discriminator, information_nats
from rcccodec.rd.energy import Energy, build_energy, integrate, pair_distance
from rcccodec.rd.langevin import adapted, diffuse, move, place
from rcccodec.rd.partition import anneal
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import EnergySettings

_NEW_CHANNELS = 8  # one chain in so many has a new source vector at every step
_NEW_LAWS = 16  # and one in so many of the law goes on from a sample of the channel
_SHIFTS = 4  # pairs of the product a source vector
_TEST_SHIFTS = 64


class Chains(nn.Module):
    """Chains that training leaves behind from step to step, all (B, dim), and their two step sizes."""

    x: Tensor
    channel: Tensor
    law: Tensor
    steps: Tensor

    def __init__(self, x: Tensor, step: float) -> None:
        super().__init__()
        for name in ("x", "channel", "law"):
            self.register_buffer(name, x.clone())
        self.register_buffer("steps", torch.tensor([step, step], device=x.device))


def trace_dba(
    problem: Problem, betas: Sequence[float], settings: EnergySettings, run: Run
) -> Iterator[RatePoint]:
    """Train at each slope and measure on the test vectors.

    Yields:
        RatePoint of kind "estimate": E_x KL(p(y|x) || p(y)) and D of the learnt channel, which would be on
        or above R(D) if it were known without error.

    Raises:
        InputError: a distortion without gradient, or letters with unadjusted chains or without costs of
            their own. LimitError: training diverged.
    """
    if problem.alphabet is not None and problem.distortion.startswith("lp:"):
        raise InputError(f"{problem.name}: dba needs a distortion that is a sum over letters")
    if problem.distortion.startswith("lp:") and float(problem.distortion[3:]) == math.inf:
        raise InputError(f"{problem.name}: dba has no channel for {problem.distortion}")
    if problem.alphabet is not None and not settings.adjusted:
        raise InputError(
            f"{problem.name}: unadjusted chains move through real numbers, not letters (take l1)"
        )
    for beta in betas:
        energy, discriminator, seconds = train(problem, beta, settings, run)
        began = time.perf_counter()
        point = measure(problem, beta, settings, run, energy, discriminator)
        yield replace(point, seconds=seconds + time.perf_counter() - began)


def train(
    problem: Problem, beta: float, settings: EnergySettings, run: Run
) -> tuple[Energy, Discriminator, float]:
    """Energy and discriminator with averaged weights, and the seconds it took, earlier calls included."""
    name = f"dba-{beta:g}"
    device = torch.device(run.device)
    begin = run.generator(name, "weights")
    energy = build_energy(problem, settings.width, begin).to(device)
    distance = partial(pair_distance, problem)
    discriminator = Discriminator(
        energy.centre, energy.scale, settings.discriminator, beta, distance, begin
    ).to(device)
    first = torch.randint(len(problem.train), (settings.batch,), generator=begin)
    chains = Chains(problem.train[first].to(device), settings.step)
    averaged = {"energy": copy.deepcopy(energy), "discriminator": copy.deepcopy(discriminator)}
    optimizers = {
        "energy": torch.optim.Adam(energy.parameters(), settings.rate, betas=(0.9, 0.99)),
        "discriminator": torch.optim.Adam(discriminator.parameters(), settings.rate / 3),
    }
    rates = {"energy": settings.rate, "discriminator": settings.rate / 3}

    def update(step: int, generator: torch.Generator) -> None:
        decay = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for key, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[key] * max(decay, 0.02)
        if settings.adjusted:
            _advance(problem, energy, chains, beta, settings, step, generator)
        else:
            _restart(problem, energy, chains, beta, settings, generator)
        optimizers["energy"].zero_grad()
        contrast(energy, chains.channel, chains.law).backward()
        optimizers["energy"].step()
        optimizers["discriminator"].zero_grad()
        bound = information_nats(discriminator, chains.x, chains.channel, chains.law, _SHIFTS, CEILING)
        (-bound).backward()
        nn.utils.clip_grad_norm_(discriminator.parameters(), 10.0)
        optimizers["discriminator"].step()
        count = max(1, step - settings.steps // 2 + 1)
        for key, module in (("energy", energy), ("discriminator", discriminator)):
            for mean, p in zip(averaged[key].parameters(), module.parameters(), strict=True):
                mean.data.lerp_(p.data, 1 / count)

    modules = {"energy": energy, "discriminator": discriminator, "chains": chains}
    modules |= {f"averaged-{key}": module for key, module in averaged.items()}
    plan = {"problem": problem.name, "distortion": problem.distortion, "train": len(problem.train)}
    seconds = fit(
        name, modules, optimizers, update, settings.steps, run, plan | {"beta": beta} | asdict(settings)
    )
    return averaged["energy"], averaged["discriminator"], seconds


def contrast(energy: nn.Module, channel: Tensor, law: Tensor) -> Tensor:
    """E_channel E(y) - E_law E(y): its gradient is that of the Lagrangian; its value means nothing."""
    return energy(channel).mean() - energy(law).mean()


def measure(
    problem: Problem,
    beta: float,
    settings: EnergySettings,
    run: Run,
    energy: Energy,
    discriminator: Discriminator,
) -> RatePoint:
    """The record of trained networks, on test vectors with fresh chains."""
    generator = run.generator(f"dba-{beta:g}", "measure")
    x, ln2 = problem.test.to(run.device), math.log(2)
    details: dict[str, float] = {}
    if problem.dim == 1:
        exact = integrate(problem, energy, beta, x)
        d = float(exact.distortion.mean())
        details["quadrature_rate_bits"] = (float(exact.lagrangian_nats.mean()) - beta * d) / ln2
        details["quadrature_distortion"] = d
    if not settings.adjusted:
        chains = Chains(x, settings.step)
        _restart(problem, energy, chains, beta, settings, generator, keep=True)
        d = pair_distance(problem, x, chains.channel).double()
        with torch.no_grad():
            bound = float(information_nats(discriminator, x, chains.channel, chains.law, _TEST_SHIFTS))
            score = discriminator(x, chains.channel).double()
        rate = score - score.mean() + bound
        details["discriminator_bits"] = bound / ln2
        return upper_point(
            "dba", beta, (rate + beta * d).cpu(), d.cpu(), num_samples=len(x), saturated=False,
            details=details, kind="estimate",
        )  # fmt: skip
    found = anneal(
        problem, energy, beta, x, problem.train.to(run.device), distributions=settings.distributions,
        chains=settings.chains, burn=settings.burn, steps=(settings.step, settings.step), generator=generator,
    )  # fmt: skip
    with torch.no_grad():
        bound = float(information_nats(discriminator, found.x, found.y, found.marginal, _TEST_SHIFTS))
    details |= {
        "discriminator_bits": bound / ln2,
        "gap_bits": float((found.lagrangian_nats - found.reverse_nats).mean()) / ln2,
        "law_acceptance": found.law_acceptance,
        "channel_acceptance": found.channel_acceptance,
    }
    return upper_point(
        "dba", beta, found.middle_nats, found.distortion, num_samples=settings.chains, saturated=False,
        details=details, kind="estimate",
    )  # fmt: skip


def _advance(
    problem: Problem,
    energy: Energy,
    chains: Chains,
    beta: float,
    settings: EnergySettings,
    step: int,
    generator: torch.Generator,
) -> None:
    """Renew a few chains, then move all of them, channel and law as one batch."""
    rows, device = len(chains.x), chains.x.device
    new = slice(step % _NEW_CHANNELS, None, _NEW_CHANNELS)
    count = len(chains.x[new])
    picks = torch.randint(len(problem.train), (count,), generator=generator)
    chains.x[new] = problem.train[picks].to(device)
    chains.channel[new] = chains.x[new]
    other = slice(step % _NEW_LAWS, None, _NEW_LAWS)
    settled = torch.randperm(rows, generator=generator)[: len(chains.law[other])].to(device)
    chains.law[other] = chains.channel[settled]
    x = torch.cat([chains.x, chains.x])
    b = torch.cat([torch.full((rows,), beta, device=device), torch.zeros(rows, device=device)])
    here = place(problem, energy, x, torch.cat([chains.channel, chains.law]))
    for _ in range(settings.langevin):
        here, acceptance = move(problem, energy, x, here, b, chains.steps.repeat_interleave(rows), generator)
        chains.steps.copy_(adapted(chains.steps, acceptance.reshape(2, rows).nanmean(1)))
    chains.channel.copy_(here.y[:rows])
    chains.law.copy_(here.y[rows:])


def _restart(
    problem: Problem,
    energy: Energy,
    chains: Chains,
    beta: float,
    settings: EnergySettings,
    generator: torch.Generator,
    keep: bool = False,
) -> None:
    """The paper's chains: new source vectors unless ``keep``, Gaussian starts, unadjusted steps."""
    rows, device = len(chains.x), chains.x.device
    if not keep:
        picks = torch.randint(len(problem.train), (rows,), generator=generator)
        chains.x.copy_(problem.train[picks])
    x = torch.cat([chains.x, chains.x])
    b = torch.cat([torch.full((rows,), beta, device=device), torch.zeros(rows, device=device)])
    y = energy.centre + energy.scale * torch.randn(x.shape, generator=generator).to(device)
    here = place(problem, energy, x, y)
    for _ in range(settings.langevin):
        here = diffuse(problem, energy, x, here, b, settings.step, generator)
    chains.channel.copy_(here.y[:rows])
    chains.law.copy_(here.y[rows:])
