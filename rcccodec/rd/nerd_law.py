"""The laws of reproductions that NERD's two forms measure: learned from a beta-VAE, or of a trained bundle.

Both are tuned on eq. 11 of nerd-rcc, its expectation taken by importance sampling from the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rcccodec.bundle import AnyModel, Model
from rcccodec.errors import InputError
from rcccodec.proposals import Proposal
from rcccodec.proposals.generator import Generator, GeneratorProposal
from rcccodec.rd.beta_vae import (
    Encoder,
    cosine_rate,
    draw_batch,
    fit_beta_vae,
    largest_step,
    paired_distortion,
    principal_axes,
)
from rcccodec.rd.importance import Decode, Posterior, importance_loss
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import BetaVaeSettings, NerdSettings

_REPORT_EVERY = 50


@dataclass(frozen=True)
class Learned:
    """A law of reproductions as the two estimates need it; ``seconds`` it took to learn, in all."""

    proposal: Proposal
    decode: Decode
    posterior: Posterior
    seconds: float
    details: Mapping[str, float]


@dataclass(frozen=True)
class DecoderProposal:
    """Any map from latents (n, latent_dim) to reproductions (n, dim), seen as a Proposal."""

    decode: Decode
    latent_dim: int
    dim: int

    def candidates(self, z: Tensor) -> Tensor:
        return self.decode(z)


def learn_nerd(
    problem: Problem, beta: float, settings: NerdSettings, run: Run, *, vae: BetaVaeSettings
) -> Learned:
    """A law for one slope: the beta-VAE's, tuned on ``problem.train``. ``settings.model`` is not looked at.

    Raises:
        InputError: discrete reproductions. LimitError: a training diverged.
    """
    network, before_s = fit_beta_vae(problem, beta, vae, run)
    network.requires_grad_(True)
    tuning_s = _tune(problem, beta, settings, vae, run, network, network.decode, network.posterior, 0)
    proposal = DecoderProposal(network.decode, network.latents, problem.dim)
    return Learned(proposal, network.decode, network.posterior, before_s + tuning_s, {})


def learn_encoder(
    problem: Problem, beta: float, settings: NerdSettings, run: Run, model: AnyModel, *, vae: BetaVaeSettings
) -> Learned:
    """A bundle's generator at the nearest slope it was trained for, and an encoder learned for it.

    Raises:
        InputError: it has no generator of whole vectors. LimitError: the training diverged.
    """
    found = _nearest_generator(model, beta, problem.dim)
    if found is None:
        raise InputError(f"model {model.name}: it has no generator of vectors of {problem.dim} values")
    generator, at = found
    low, high = generator.spec.slope_range
    at = min(max(beta, low), high) if high > low else at
    network = generator.at_slope(at).float().to(run.device).requires_grad_(False)

    def decode(z: Tensor) -> Tensor:
        y: Tensor = network(z)
        return network.mean + y @ network.basis if hasattr(network, "basis") else y

    start = run.generator("nerd-encoder", beta, "start")
    encoder = Encoder(principal_axes(problem.train), network.latent_dim, math.inf, vae, start).to(run.device)
    seconds = _tune(problem, beta, settings, vae, run, encoder, decode, encoder, vae.steps, model.sha256)
    proposal = GeneratorProposal(generator.at_slope(at), run.device)
    return Learned(proposal, decode, encoder, seconds, {"generator_beta": at})


def _nearest_generator(model: AnyModel, beta: float, dim: int) -> tuple[Generator, float] | None:
    """Of the stages that draw a whole vector, the one whose slope is nearest, with that slope."""
    stages = [r.stages[0] for r in model.rungs if len(r.stages) == 1] if isinstance(model, Model) else []
    fitting = [s for s in stages if s.generator.dim == dim]
    if not fitting:
        return None
    nearest = min(fitting, key=lambda s: abs(math.log(s.beta / beta)))
    return nearest.generator, nearest.beta


def _tune(
    problem: Problem,
    beta: float,
    settings: NerdSettings,
    vae: BetaVaeSettings,
    run: Run,
    module: nn.Module,
    decode: Decode,
    posterior: Posterior,
    single: int,
    bundle: str = "",
) -> float:
    """Minimise L over ``module``: ``single`` steps with one draw, then ``settings.steps`` with several.

    Returns:
        Seconds it took.
    """
    paired = paired_distortion(problem)
    name = f"nerd-encoder-{beta:g}" if single else f"nerd-{beta:g}"
    rate, steps = (vae.rate if single else settings.rate), single + settings.steps
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    state = {"what": name}

    def update(step: int, generator: torch.Generator) -> None:
        x = draw_batch(problem.train, settings.batch, generator, run.device)
        cosine_rate(optimizer, rate, step, steps)
        loss, value, distortion = importance_loss(
            x, decode, posterior, paired, beta=beta, draws=settings.tuning if step >= single else 1,
            generator=generator,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), largest_step(problem.dim))
        optimizer.step()
        if step % _REPORT_EVERY == 0:
            bits, reached = float(value - beta * distortion) / math.log(2), float(distortion)
            state["what"] = f"{name}: R {bits:.2f} bits, D {reached:.3g}"

    telling = replace(run, progress=lambda _what, done, total: run.progress(state["what"], done, total))
    plan = {"problem": problem.name, "distortion": problem.distortion, "train": list(problem.train.shape)}
    plan |= {"beta": beta, "vae": vars(vae), "bundle": bundle}
    plan |= {k: getattr(settings, k) for k in ("steps", "tuning", "batch", "rate")}
    seconds = fit(name, {"learned": module}, {"learned": optimizer}, update, steps, telling, plan)
    module.eval().requires_grad_(False)
    return seconds
