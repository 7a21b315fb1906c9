"""RD-GEN: a generator is the law, a noisy network the channel, against a discriminator (rd-ebm section 3).

    min over G, F  max over T   E T(x, F(x, e)) - E exp(T(x, G(z)) - 1) + beta E d(x, F(x, e))      nats

Three networks and a game (eqs. 9 to 11), where DBA has one energy and a descent: it may wander, and a channel
that stops using its noise has infinite information that no discriminator shows. The generator alone can be
judged without the game: its law's own curve (NERD, arXiv 2204.01612) is ``generator_lagrangian_bits``.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from rcccodec.errors import InputError
from rcccodec.rd.discriminator import CEILING, Discriminator, information_nats
from rcccodec.rd.energy import build_energy, pair_distance
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import EnergySettings

_CLIMBS = 3  # steps of the discriminator for one of the others
_SHIFTS = 4
_TEST_SHIFTS = 64
_LAW_DRAWS = 8192
_ROWS = 100


class NoisyNetwork(nn.Module):
    """Reproductions from noise, and from a source vector or nothing: (B, given), (B, noise) -> (B, dim)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, centre: Tensor, scale: Tensor, given: bool, width: int, generator: torch.Generator):
        """
        Args:
            centre, scale: float32 (dim,).
            given: whether there is a source vector; the output starts near it.
        """
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.register_buffer("scale", scale.clone())
        self.given, self.noise = given, max(4, len(centre))
        sizes = [self.noise + given * len(centre), width, width, width, len(centre)]
        layers: list[nn.Module] = []
        for i, o in pairwise(sizes):
            layer = nn.Linear(i, o)
            with torch.no_grad():
                nn.init.xavier_normal_(layer.weight, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
            layers += [layer, nn.LeakyReLU()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        if not self.given:
            return self.centre + self.scale * self.network(noise)
        s = (x - self.centre) / self.scale
        return self.centre + self.scale * (s + self.network(torch.cat([s, noise], 1)))


def trace_rd_gen(
    problem: Problem, betas: Sequence[float], settings: EnergySettings, run: Run
) -> Iterator[RatePoint]:
    """Play the game at each slope; the rate is the discriminator's bound on test vectors with fresh noise.

    Yields:
        RatePoint of kind "estimate".

    Raises:
        InputError: reproductions of a finite alphabet, which no network moves through. LimitError: diverged.
    """
    if problem.alphabet is not None:
        raise InputError(f"{problem.name}: rd-gen makes real numbers, not letters of an alphabet (take l1)")
    for beta in betas:
        channel, law, discriminator, seconds = train_game(problem, beta, settings, run)
        began = time.perf_counter()
        point = measure_game(problem, beta, run, channel, law, discriminator)
        yield replace(point, seconds=seconds + time.perf_counter() - began)


def train_game(
    problem: Problem, beta: float, settings: EnergySettings, run: Run
) -> tuple[NoisyNetwork, NoisyNetwork, Discriminator, float]:
    """Channel and law with weights averaged over the second third of training, a discriminator that had the
    last third for them alone, and the seconds it took."""
    name, device = f"rd-gen-{beta:g}", torch.device(run.device)
    begin = run.generator(name, "weights")
    place = build_energy(problem, 1, begin)
    centre, scale = place.centre, place.scale
    channel = NoisyNetwork(centre, scale, True, settings.width, begin).to(device)
    law = NoisyNetwork(centre, scale, False, settings.width, begin).to(device)
    distance = partial(pair_distance, problem)
    discriminator = Discriminator(centre, scale, settings.discriminator, beta, distance, begin).to(device)
    averaged = {"channel": copy.deepcopy(channel), "law": copy.deepcopy(law)}
    players = [*channel.parameters(), *law.parameters()]
    optimizers = {
        "players": torch.optim.Adam(players, settings.rate / 3, betas=(0.5, 0.9)),
        "discriminator": torch.optim.Adam(discriminator.parameters(), settings.rate / 3, betas=(0.5, 0.9)),
    }
    game = 2 * settings.steps // 3

    def objective(f: NoisyNetwork, g: NoisyNetwork, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        picks = torch.randint(len(problem.train), (settings.batch,), generator=generator)
        x = problem.train[picks].to(device)
        y = f(x, _noise(f, len(x), generator, device))
        marginal = g(x, _noise(g, len(x), generator, device))
        return information_nats(discriminator, x, y, marginal, _SHIFTS, CEILING), distance(x, y).mean()

    def update(step: int, generator: torch.Generator) -> None:
        playing = step < game
        f, g = (channel, law) if playing else (averaged["channel"], averaged["law"])
        for _ in range(_CLIMBS):
            optimizers["discriminator"].zero_grad()
            (-objective(f, g, generator)[0]).backward()
            nn.utils.clip_grad_norm_(discriminator.parameters(), 10.0)
            optimizers["discriminator"].step()
        if not playing:
            return
        optimizers["players"].zero_grad()
        information, d = objective(f, g, generator)
        (information + beta * d).backward()
        nn.utils.clip_grad_norm_(players, 10.0)
        optimizers["players"].step()
        count = max(1, step - game // 2 + 1)
        for key, module in (("channel", channel), ("law", law)):
            for mean, p in zip(averaged[key].parameters(), module.parameters(), strict=True):
                mean.data.lerp_(p.data, 1 / count)

    modules = {"channel": channel, "law": law, "discriminator": discriminator}
    modules |= {f"averaged-{key}": module for key, module in averaged.items()}
    plan = {"problem": problem.name, "distortion": problem.distortion, "train": len(problem.train)}
    seconds = fit(
        name, modules, optimizers, update, settings.steps, run, plan | {"beta": beta} | asdict(settings)
    )
    return averaged["channel"], averaged["law"], discriminator, seconds


@torch.no_grad()
def measure_game(
    problem: Problem,
    beta: float,
    run: Run,
    channel: NoisyNetwork,
    law: NoisyNetwork,
    discriminator: Discriminator,
) -> RatePoint:
    """The record of trained networks, on test vectors with fresh noise."""
    generator = run.generator(f"rd-gen-{beta:g}", "measure")
    x = problem.test.to(run.device)
    y = channel(x, _noise(channel, len(x), generator, x.device))
    marginal = law(x, _noise(law, len(x), generator, x.device))
    bound = float(information_nats(discriminator, x, y, marginal, _TEST_SHIFTS))
    d = pair_distance(problem, x, y).double()
    score = discriminator(x, y).double()
    rate = score - score.mean() + bound
    draws = law(x.new_empty(_LAW_DRAWS, 0), _noise(law, _LAW_DRAWS, generator, x.device))
    partition = torch.cat(
        [
            (-beta * problem.distance(rows, draws)).double().logsumexp(1) - math.log(_LAW_DRAWS)
            for rows in x.split(_ROWS)
        ]
    )
    return upper_point(
        "rd-gen",
        beta,
        (rate + beta * d).cpu(),
        d.cpu(),
        num_samples=len(x),
        saturated=False,
        kind="estimate",
        details={
            "discriminator_bits": bound / math.log(2),
            "generator_lagrangian_bits": -float(partition.mean()) / math.log(2),
        },
    )


def _noise(network: NoisyNetwork, rows: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(rows, network.noise, generator=generator).to(device)
