"""Wasserstein gradient descent: R(D) from n particles that move (Yang et al., arXiv 2310.18908).

With particles y_j of mass w_j, at slope beta::

    phi(x) = -ln sum_j w_j exp(-beta d(x, y_j))                  the Lagrangian of x, nats
    psi(y) = -E_x exp(phi(x) - beta d(x, y))                     phi held fixed
    y_j <- y_j - step grad psi(y_j)
    w_j <- w_j (-psi(y_j)),  normalised                          Blahut-Arimoto, of the hybrid form

The mean loss over particles has the gradient grad psi / n; here it is their sum, so each particle sees its
own. For squared error that is 2 beta times (m_j y_j - mean of what y_j serves), m_j = -psi(y_j), and the step
is rate / (2 beta max(1, m_j)): a share of the way to that mean, whose noise later steps average out. Adam,
which would turn that noise into full steps of every component, sets the step for other distortions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rcccodec.errors import InputError
from rcccodec.rd.beta_vae import cosine_rate, draw_batch
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import WassersteinSettings

JITTER = 0.1  # standard deviations: equal particles would never part
DAMPING = 0.05  # exponent of the first weight step: a whole one would follow a mini-batch's noise
_MASS_RANGE = 20.0  # nats between the heaviest particle and the lightest, which must be able to come back
_REPORT_EVERY = 50
_ADAM_SHARE = 0.1  # of the rate, in standard deviations of each component
_MOST_DISTANCES = 1 << 23


class Particles(nn.Module):
    """n weighted reproductions: y = scale * position, begun at jittered source vectors of equal weight.

    position: parameter (n, dim). scale (dim,), log_mass (n,): buffers; ln w sums to one in mass.
    """

    def __init__(self, x: Tensor, count: int, generator: torch.Generator) -> None:
        super().__init__()
        scale = x.std(0, correction=0)
        self.register_buffer("scale", scale.clamp_min(1e-3 * scale.max().clamp_min(1e-6)))
        begin = draw_batch(x, count, generator, "cpu") / self.scale
        self.position = nn.Parameter(begin + JITTER * torch.randn(begin.shape, generator=generator))
        self.register_buffer("log_mass", torch.full((count,), -math.log(count)))

    def forward(self) -> Tensor:
        """The particles, (n, dim)."""
        y: Tensor = self.scale * self.position
        return y

    @property
    def effective(self) -> float:
        """exp of the entropy of the weights: n if they are equal."""
        return math.exp(-float((self.log_mass.exp() * self.log_mass).sum()))


def lagrangian_of(distances: Tensor, log_mass: Tensor, beta: float) -> Tensor:
    """phi(x), nats (B,), of distances (B, n) to particles of mass exp(log_mass)."""
    return -torch.logsumexp(log_mass - beta * distances, 1)


def potential(distances: Tensor, log_mass: Tensor, beta: float) -> Tensor:
    """psi(y_j), (n,), over a batch of distances (B, n); only what d(x, y_j) itself does is differentiated."""
    phi = lagrangian_of(distances, log_mass, beta).detach()
    return -torch.exp(phi[:, None] - beta * distances).mean(0)


def toward_means(
    x: Tensor, y: Tensor, distances: Tensor, log_mass: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """psi (n,) of `potential`, and for squared error -grad psi / (2 beta), (n, dim).

    That is mean_i r_ij (x_i - y_j), with r_ij = exp(phi(x_i) - beta d_ij).
    """
    phi = lagrangian_of(distances, log_mass, beta)
    shares = torch.exp(phi[:, None] - beta * distances) / len(x)
    served = shares.sum(0)
    return -served, shares.T @ x - served[:, None] * y


def trace_wgd(
    problem: Problem, betas: Sequence[float], settings: WassersteinSettings, run: Run
) -> Iterator[RatePoint]:
    """One set of particles a slope, moved over ``problem.train`` and measured on ``problem.test``.

    R is at most log2 of the number of particles, and the record is saturated near it; well below it too, the
    Lagrangian is high where particles are too few for the law or trained on too few vectors.

    Raises:
        InputError: discrete reproductions. LimitError: the descent diverged.

    Invariants: every slope stands alone; R + beta D is on or above the curve's, up to standard errors.
    """
    if problem.alphabet is not None:
        raise InputError(f"{problem.name}: particles move over real values; use ba for a discrete alphabet")
    for beta in betas:
        particles, seconds = move_particles(problem, beta, settings, run)
        yield measure_particles(particles, problem, beta, run, seconds=seconds)


def move_particles(
    problem: Problem, beta: float, settings: WassersteinSettings, run: Run
) -> tuple[Particles, float]:
    """The particles after ``settings.steps``, frozen, on ``run.device``; and the seconds it took."""
    name = f"wgd-{beta:g}"
    particles = Particles(problem.train, settings.particles, run.generator(name, "start")).to(run.device)
    squared = problem.distortion in ("mse", "lp:2")
    optimizer: torch.optim.Optimizer
    if squared:
        rate, optimizer = settings.rate, torch.optim.SGD(particles.parameters(), lr=settings.rate)
    else:
        rate = _ADAM_SHARE * settings.rate
        optimizer = torch.optim.Adam(particles.parameters(), lr=rate, betas=(0.9, 0.99))
    state = {"what": name}

    def update(step: int, generator: torch.Generator) -> None:
        x = draw_batch(problem.train, settings.batch, generator, run.device)
        cosine_rate(optimizer, rate, step, settings.steps)
        optimizer.zero_grad()
        if squared:  # the gradient in closed form: that of centred products drifts in float32
            with torch.no_grad():
                distances = problem.distance(x, particles())
                psi, to_means = toward_means(x, particles(), distances, particles.log_mass, beta)
            particles.position.grad = -to_means / ((-psi).clamp_min(1)[:, None] * particles.scale)
        else:
            distances = problem.distance(x, particles())
            psi = potential(distances, particles.log_mass, beta)
            psi.sum().backward()
        optimizer.step()
        if settings.hybrid:
            damping = DAMPING * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            moved = particles.log_mass + damping * torch.log(-psi.detach()).clamp_min(-20)
            particles.log_mass.copy_(torch.log_softmax(moved.clamp_min(moved.max() - _MASS_RANGE), 0))
        if step % _REPORT_EVERY == 0:
            phi = lagrangian_of(distances.detach(), particles.log_mass, beta)
            state["what"] = f"{name}: R + beta D {float(phi.mean()) / math.log(2):.3f} bits"

    telling = replace(run, progress=lambda _what, done, total: run.progress(state["what"], done, total))
    plan = {"problem": problem.name, "distortion": problem.distortion, "train": list(problem.train.shape)}
    plan |= {"beta": beta, **vars(settings)}
    seconds = fit(name, {"p": particles}, {"p": optimizer}, update, settings.steps, telling, plan)
    return particles.requires_grad_(False), seconds


@torch.no_grad()
def measure_particles(
    particles: Particles, problem: Problem, beta: float, run: Run, *, seconds: float = 0.0
) -> RatePoint:
    """Lagrangian and distortion of the particles on ``problem.test``; nothing random is left."""
    began, parts = time.perf_counter(), []
    y, log_mass = particles(), particles.log_mass.double()
    for x in problem.test.split(max(1, _MOST_DISTANCES // len(y))):
        d = problem.distance(x.to(run.device), y).double()
        weights = torch.softmax(log_mass - beta * d, 1)
        parts.append((lagrangian_of(d, log_mass, beta).cpu(), (weights * d).sum(1).cpu()))
    lagrangian, distortion = (torch.cat(p) for p in zip(*parts, strict=True))
    return upper_point(
        "wgd", beta, lagrangian, distortion, num_samples=len(y),
        seconds=seconds + time.perf_counter() - began,
        details={"effective_particles": particles.effective},
    )  # fmt: skip
