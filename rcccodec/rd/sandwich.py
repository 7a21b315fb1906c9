"""Sandwich bounds (Yang and Mandt, ICLR 2022): a beta-VAE above R(D), the dual problem below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rcccodec.rd.beta_vae import trace_vae
from rcccodec.rd.dual_bound import split_vectors, trace_lower_bound
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem, check_dim
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BetaVaeSettings, SandwichSettings


def trace_sandwich(
    problem: Problem,
    betas: Sequence[float],
    settings: SandwichSettings,
    vae: BetaVaeSettings,
    run: Run,
) -> Iterator[RatePoint]:
    """For every slope ``sandwich-upper``, a point, and ``sandwich-lower``, a line (see `dual_bound`).

    Discrete reproductions have no beta-VAE: then there is the line alone. The upper point is measured on
    ``problem.test``; the line on that and on a part of train, as if both followed one law.

    Raises:
        InputError: too few vectors. LimitError: a training diverged. ModelError, OutputError: of checkpoints.

    Invariants: every slope stands alone; the line's Lagrangian is at most the exact one with confidence 99 %,
    wherever the suprema were found.
    """
    check_dim(problem, "sandwich")
    split_vectors(problem, settings, run)  # refuses before the training
    for beta in betas:
        if problem.alphabet is None:
            (upper,) = trace_vae(problem, (beta,), vae, run)
            yield replace(upper, method="sandwich-upper")
        yield trace_lower_bound(problem, beta, settings, run)
