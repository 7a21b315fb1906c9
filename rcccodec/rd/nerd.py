"""The NERD estimate of R(D) from a proposal: an upper bound on held-out blocks, with Monte-Carlo errors.

`trace_nerd` learns the proposal too::

    beta-VAE --> generator and encoder tuned on nerd-rcc eq. 11, its expectation by importance sampling
             --> "nerd": N fresh candidates from the prior, the same for all vectors; R <= log2 N
             --> "nerd-is": M fresh draws a vector around the encoder's posterior; no such ceiling
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rcccodec.bundle import load_model
from rcccodec.channel.distances import CentredBlocks, chunk_candidates, default_chunk
from rcccodec.distortion import Distortion, parse_distortion
from rcccodec.proposals import Proposal
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.beta_vae import paired_distortion
from rcccodec.rd.importance import estimate_importance
from rcccodec.rd.nerd_law import learn_encoder, learn_nerd
from rcccodec.rd.point import RatePoint, is_saturated, upper_point
from rcccodec.rd.problem import Problem, check_dim
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BetaVaeSettings, NerdSettings

CEILING_BITS = 0.1


def trace_nerd(
    problem: Problem,
    betas: Sequence[float],
    settings: NerdSettings,
    run: Run,
    *,
    vae: BetaVaeSettings | None = None,
) -> Iterator[RatePoint]:
    """Two records a slope, of one law of reproductions: ``nerd``, flagged when saturated, and ``nerd-is``.

    With ``settings.model`` the generator is a trained bundle's and only an encoder is learned for it.

    Args:
        vae: of the warm start; a finished one in ``run.folder`` is used.

    Raises:
        InputError: discrete reproductions, or a bundle whose generators make something else. ModelError: no
        such bundle. LimitError: a training diverged.

    Invariants: every slope stands alone; all candidates and draws of the records are fresh, all vectors are
    of ``problem.test``; both Lagrangians are on or above the curve's, up to standard errors.
    """
    check_dim(problem, "nerd")
    paired = paired_distortion(problem)
    vae = vae or BetaVaeSettings()
    model = load_model(settings.model, for_images=False) if settings.model else None
    for beta in betas:
        if model is None:
            learned = learn_nerd(problem, beta, settings, run, vae=vae)
        else:
            learned = learn_encoder(problem, beta, settings, run, model, vae=vae)
        generator = run.generator("nerd-test", beta)
        seeds = torch.randint(1 << 62, (settings.codebooks,), generator=generator).tolist()
        plain = estimate_nerd(
            problem.test, learned.proposal, beta=beta, num_candidates=settings.candidates,
            seeds=tuple(seeds), device=run.device, distortion=problem.distortion,
        )  # fmt: skip
        weighed = estimate_importance(
            problem.test.to(run.device), learned.decode, learned.posterior, paired, beta=beta,
            draws=settings.draws, repeats=settings.codebooks, generator=generator,
            seconds=learned.seconds,
        )  # fmt: skip
        weighed = replace(weighed, details={**weighed.details, **learned.details})
        plain = replace(plain, seconds=plain.seconds + learned.seconds, details=learned.details)
        yield beside_importance(plain, weighed)
        yield weighed


def beside_importance(plain: RatePoint, weighed: RatePoint) -> RatePoint:
    """The plain record, saturated too where the importance form of the same law says so.

    Its own rate cannot: close to log2 N it is held down by the very ceiling. It is saturated if its
    Lagrangian is over ``CEILING_BITS`` above the other's, or log2 N is too close to the other's rate.
    """
    over = plain.lagrangian_bits - weighed.lagrangian_bits
    hidden = over > CEILING_BITS or is_saturated(plain.num_samples, weighed.rate_bits)
    details = {**plain.details, "over_importance_bits": over}
    return replace(plain, saturated=plain.saturated or hidden, details=details)


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
