"""Which function answers for which method's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import Settings

METHODS = {
    "exact": "closed forms, and bounds in closed form",
    "ba": "Blahut-Arimoto on the law's grid, or on samples",
    "nerd": "NERD, from N candidates and by importance sampling",
    "wgd": "Wasserstein gradient descent of particles",
    "vae": "beta-VAE",
    "sandwich": "beta-VAE above, dual bound below",
    "dba": "discriminative Blahut-Arimoto with an energy network",
    "rdgen": "generator, channel network and discriminator",
    "ais": "annealed importance sampling of a generative model",
}
WHOLE_CURVE = ("ais",)  # one run gives all slopes; with the others every slope stands alone


def trace(
    method: str, problem: Problem, betas: Sequence[float], settings: Settings, run: Run
) -> Iterator[RatePoint]:
    """Points of one method at these slopes, as they come.

    Raises:
        InputError: the method does not fit the problem. KeyError: no such method.
    """
    if method == "exact":
        from rcccodec.rd.exact import trace_exact

        return trace_exact(problem, betas, run)
    if method == "ba":
        from rcccodec.rd.ba import trace_ba

        return trace_ba(problem, betas, settings.ba, run)
    if method == "nerd":
        from rcccodec.rd.nerd import trace_nerd

        return trace_nerd(problem, betas, settings.nerd, run, vae=settings.vae)
    if method == "wgd":
        from rcccodec.rd.wasserstein import trace_wgd

        return trace_wgd(problem, betas, settings.wgd, run)
    if method == "vae":
        from rcccodec.rd.beta_vae import trace_vae

        return trace_vae(problem, betas, settings.vae, run)
    if method == "sandwich":
        from rcccodec.rd.sandwich import trace_sandwich

        return trace_sandwich(problem, betas, settings.sandwich, settings.vae, run)
    if method == "dba":
        from rcccodec.rd.dba import trace_dba

        return trace_dba(problem, betas, settings.dba, run)
    if method == "rdgen":
        from rcccodec.rd.rd_gen import trace_rd_gen

        return trace_rd_gen(problem, betas, settings.dba, run)
    if method == "ais":
        from rcccodec.rd.ais import trace_ais

        return trace_ais(problem, betas, settings.ais, run)
    raise KeyError(method)


def settings_of(method: str, settings: Settings) -> dict[str, Any]:
    """The settings that a method's points depend on, as plain values."""
    groups = {"nerd": ("nerd", "vae"), "sandwich": ("sandwich", "vae"), "rdgen": ("dba",), "exact": ()}
    return {group: asdict(getattr(settings, group)) for group in groups.get(method, (method,))}
