"""The NERD estimate of R(D) from a proposal: an upper bound on held-out blocks, with Monte-Carlo errors.

`trace_nerd` learns the proposal too::

    beta-VAE --> generator and encoder tuned on nerd-rcc eq. 11, its expectation by importance sampling
             --> "nerd": N fresh candidates from the prior, the same for all vectors; R <= log2 N
             --> "nerd-is": M fresh draws a vector around the encoder's posterior; no such ceiling
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rcccodec.bundle import Model, load_model
from rcccodec.channel.distances import CentredBlocks, chunk_candidates, default_chunk
from rcccodec.distortion import Distortion, parse_distortion
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
from rcccodec.rd.importance import Decode, Posterior, estimate_importance, importance_loss
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import BetaVaeSettings, NerdSettings

_REPORT_EVERY = 50


def trace_nerd(
    problem: Problem,
    betas: Sequence[float],
    settings: NerdSettings,
    run: Run,
    *,
    vae: BetaVaeSettings | None = None,
) -> Iterator[RatePoint]:
    """Two records a slope, of one law of reproductions: ``nerd`` and ``nerd-is``.

    With ``settings.model`` the generator is a trained bundle's and only an encoder is learned for it.

    Args:
        vae: of the warm start; a finished one in ``run.folder`` is used.

    Raises:
        InputError: discrete reproductions, or a bundle whose generators make something else. ModelError: no
        such bundle. LimitError: a training diverged.

    Invariants: every slope stands alone; all candidates and draws of the records are fresh, all vectors are
    of ``problem.test``; both Lagrangians are on or above the curve's, up to standard errors.
    """
    paired = paired_distortion(problem)
    vae = vae or BetaVaeSettings()
    model = load_model(settings.model, for_images=False) if settings.model else None
    for beta in betas:
        if model is None:
            learned = learn_nerd(problem, beta, settings, run, vae=vae)
        else:
            learned = _with_encoder(problem, beta, settings, vae, run, model, settings.model)
        generator = run.generator("nerd-test", beta)
        seeds = torch.randint(1 << 62, (settings.codebooks,), generator=generator).tolist()
        plain = estimate_nerd(
            problem.test, learned.proposal, beta=beta, num_candidates=settings.candidates,
            seeds=tuple(seeds), device=run.device, distortion=problem.distortion,
        )  # fmt: skip
        yield replace(plain, seconds=plain.seconds + learned.seconds, details=learned.details)
        weighed = estimate_importance(
            problem.test.to(run.device), learned.decode, learned.posterior, paired, beta=beta,
            draws=settings.draws, repeats=settings.codebooks, generator=generator,
            seconds=learned.seconds,
        )  # fmt: skip
        yield replace(weighed, details={**weighed.details, **learned.details})


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


def estimate_nerd(
    x: Tensor,
    proposal: Proposal,
    *,
    beta: float,
    num_candidates: int,
    seeds: tuple[int, ...],
    stage: int = 0,
    device: str = "cpu",
    distortion: str = "mse",
) -> RatePoint:
    """L = -E_x log (1/N) sum_j exp(-beta d(x, y_j)), D = E_x sum_j w_j d_j, R = L - beta D (nats).

    nerd-rcc eq. 11 and 8, with w = softmax(-beta d) over the candidates.

    Args:
        x: (B, block_dim) float32 blocks that the proposal was not trained on.
        proposal: a GeneratorProposal, or any Proposal whose candidates are the blocks themselves.
        beta: slope, nats per unit of summed squared error.
        num_candidates: N, drawn anew for each of ``seeds``.
        distortion: ``mse``, or ``lp:P`` as in rcccodec.distortion.

    Returns:
        RatePoint; the codebooks' log sums are averaged, so Jensen's bias stays that of one codebook of N.

    Raises:
        ValueError: beta or N not positive, no blocks or no seeds. InputError: an unknown distortion.
    """
    if not 0 < beta < math.inf or num_candidates < 1 or not len(x) or not seeds:
        raise ValueError("estimate_nerd needs beta > 0 and at least one candidate, block and seed")
    began = time.perf_counter()
    measure = None if distortion == "mse" else parse_distortion(distortion)
    coordinates, left_out = x, torch.zeros(len(x), dtype=torch.float64)
    if isinstance(proposal, GeneratorProposal) and proposal.is_linear:
        if measure is None:
            coordinates = proposal.analyse(x)
            left_out = (x - proposal.synthesise(coordinates)).double().square().sum(1)
        else:
            proposal = _InPixels(proposal)
    log_means, distortions = zip(
        *(
            _one_codebook(coordinates, proposal, beta, num_candidates, seed, stage, device, measure)
            for seed in seeds
        ),
        strict=True,
    )
    d = torch.stack(distortions) + left_out  # (codebooks, B)
    lagrangian = -torch.stack(log_means) + beta * left_out
    return upper_point(
        "nerd", beta, lagrangian, d, num_samples=num_candidates, seconds=time.perf_counter() - began
    )


class _InPixels:
    """A linear generator whose candidates are blocks: other distortions do not survive a rotation."""

    def __init__(self, linear: GeneratorProposal) -> None:
        self.linear = linear
        self.dim, self.latent_dim = linear.block_dim, linear.latent_dim

    def candidates(self, z: Tensor) -> Tensor:
        return self.linear.synthesise(self.linear.candidates(z))


def _one_codebook(
    x: Tensor,
    proposal: Proposal,
    beta: float,
    num_candidates: int,
    seed: int,
    stage: int,
    device: str,
    measure: Distortion | None,
) -> tuple[Tensor, Tensor]:
    """ln (1/N) sum_j exp(-beta d_j) and the posterior mean of d, float64 (B,), streamed over candidates."""
    place = torch.device(device)
    frame = CentredBlocks(x, place)
    highest = torch.full((len(x),), -torch.inf, device=place)  # of the logits so far
    mass = torch.zeros(len(x), dtype=torch.float64, device=place)
    moment = torch.zeros(len(x), dtype=torch.float64, device=place)
    norms = frame.square_norms.float()[:, None]
    chunk = default_chunk(place)
    for start in range(0, num_candidates, chunk):
        count = min(chunk, num_candidates - start)
        y = frame.centre(chunk_candidates(proposal, start, count, seed, stage, place))
        for rows, scores in frame.tiles(y, y.square().sum(1), -2.0):
            distances = (scores + norms[rows]).clamp_min_(0) if measure is None else measure(frame.x[rows], y)
            top = torch.maximum(highest[rows], -beta * distances.amin(1))
            shrink = torch.exp(highest[rows] - top).double()
            weights = torch.exp(-beta * distances - top[:, None])
            mass[rows] = mass[rows] * shrink + weights.sum(1)
            moment[rows] = moment[rows] * shrink + (weights * distances).sum(1)
            highest[rows] = top
    log_mean = highest.double() + torch.log(mass) - math.log(num_candidates)
    return log_mean.cpu(), (moment / mass).cpu()


def _with_encoder(
    problem: Problem,
    beta: float,
    settings: NerdSettings,
    vae: BetaVaeSettings,
    run: Run,
    model: object,
    name: str,
) -> Learned:
    """A bundle's generator at the nearest slope it was trained for, and an encoder learned for it."""
    found = _nearest_generator(model, beta, problem.dim)
    if found is None:
        raise InputError(f"{name}: it has no generator of vectors of {problem.dim} values")
    generator, at = found
    low, high = generator.spec.slope_range
    at = min(max(beta, low), high) if high > low else at
    network = generator.at_slope(at).float().to(run.device).requires_grad_(False)

    def decode(z: Tensor) -> Tensor:
        y: Tensor = network(z)
        return network.mean + y @ network.basis if hasattr(network, "basis") else y

    start = run.generator("nerd-encoder", beta, "start")
    encoder = Encoder(principal_axes(problem.train), network.latent_dim, math.inf, vae, start).to(run.device)
    sha256 = model.sha256 if isinstance(model, Model) else ""
    seconds = _tune(problem, beta, settings, vae, run, encoder, decode, encoder, vae.steps, sha256)
    proposal = GeneratorProposal(generator.at_slope(at), run.device)
    return Learned(proposal, decode, encoder, seconds, {"generator_beta": at})


def _nearest_generator(model: object, beta: float, dim: int) -> tuple[Generator, float] | None:
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
