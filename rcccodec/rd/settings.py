"""Sizes of every estimator: the defaults finish on two cores; `--set METHOD.NAME=VALUE` changes one.

This module imports nothing heavy, so that the command line can print it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from rcccodec.errors import InputError

_CHOICES = {"ais.model": ("vae", "gan", "aae"), "ais.distance": ("problem", "features")}
_MAY_BE_ZERO = ("vae.depth=", "nerd.steps=")


@dataclass(frozen=True)
class BetaVaeSettings:
    """beta-VAE: bound E KL(q(z|x) || p(z)) + beta E d(x, f(z))."""

    latents: int = 32
    width: int = 512  # hidden units
    depth: int = 2  # hidden layers; 0: linear maps, which are enough for a Gaussian source
    steps: int = 4000
    batch: int = 64
    rate: float = 2e-3  # of learning


@dataclass(frozen=True)
class NerdSettings:
    """NERD: -E log of a mean over N candidates, and the same by importance sampling from an encoder."""

    candidates: int = 32768  # N
    codebooks: int = 2  # repetitions
    draws: int = 512  # M importance samples a vector
    steps: int = 500  # of tuning generator and encoder, after the beta-VAE
    tuning: int = 8  # importance samples a vector while tuning
    batch: int = 64  # vectors
    rate: float = 3e-4  # of learning; the encoder for a bundle takes that of the beta-VAE
    model: str = ""  # a trained bundle whose generator is used; only an encoder is learned then


@dataclass(frozen=True)
class WassersteinSettings:
    """Wasserstein gradient descent of particles, with Blahut-Arimoto steps on their weights if hybrid."""

    particles: int = 1000
    steps: int = 500
    batch: int = 2000  # source vectors a step
    rate: float = 0.5  # of the first steps: a share of the way for squared error, see wasserstein.py
    hybrid: bool = True


@dataclass(frozen=True)
class BlahutArimotoSettings:
    """Blahut-Arimoto on all binary words, on a grid of a one-dimensional law, or on samples (Y = X)."""

    samples: int = 5000  # training vectors that are source and reproductions
    grid: int = 4001  # most candidates for a law of one dimension
    tolerance: float = 1e-5  # bits between upper and lower value, words and grids
    spread: float = 1e-2  # the same, samples
    rounds: int = 2000
    memory: int = 1024  # MiB of distances kept; if there are more, they are made again in every pass


@dataclass(frozen=True)
class SandwichSettings:
    """Lower bound from the dual problem, upper bound of a beta-VAE."""

    draws: int = 1024  # k source vectors a draw of C_k; no bound passes log2 k bits
    steps: int = 300  # of training the network that corrects u
    evaluations: int = 20  # independent draws of C_k for the interval
    width: int = 64  # of that network
    rate: float = 2e-3  # of learning
    ascent: int = 30  # steps of the search for the supremum from every start


@dataclass(frozen=True)
class EnergySettings:
    """Discriminative Blahut-Arimoto with one energy network, Langevin dynamics and a discriminator."""

    width: int = 64  # energy network
    discriminator: int = 128  # its width
    steps: int = 1500
    batch: int = 256  # chains of the channel, and of the law
    rate: float = 3e-3  # of learning
    langevin: int = 10  # transitions a training step
    step: float = 0.1  # of Langevin, at first; the paper's chains keep it
    adjusted: bool = True  # Metropolis rule and chains that persist; false: the paper's chains and its rate
    distributions: int = 500  # from law to channel, when measuring
    chains: int = 1  # a test vector
    burn: int = 300  # transitions before measuring


@dataclass(frozen=True)
class AnnealingSettings:
    """Annealed importance sampling of a generative model's curve."""

    model: str = "vae"  # vae, gan, aae
    latents: int = 10
    width: int = 256
    depth: int = 3  # hidden layers; 1 is the shallow model
    training: int = 3000  # steps
    chains: int = 16
    images: int = 20
    distributions: int = 1000  # on the way to the largest slope, about
    leapfrog: int = 5
    gaps: int = 2  # slopes at which simulated data bound the error from both sides
    distance: str = "problem"  # or features: squared error between hidden units of a small network
    batch: int = 128  # of training
    rate: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """All of them."""

    vae: BetaVaeSettings = BetaVaeSettings()
    nerd: NerdSettings = NerdSettings()
    wgd: WassersteinSettings = WassersteinSettings()
    ba: BlahutArimotoSettings = BlahutArimotoSettings()
    sandwich: SandwichSettings = SandwichSettings()
    dba: EnergySettings = EnergySettings()
    ais: AnnealingSettings = AnnealingSettings()


def with_setting(settings: Settings, text: str) -> Settings:
    """Settings with one of them changed.

    Args:
        text: ``METHOD.NAME=VALUE``, as in ``ais.chains=40``.

    Raises:
        InputError: no such setting, or a value of the wrong kind or not positive.
    """
    name, equals, value = text.partition("=")
    method, dot, key = name.partition(".")
    if not (equals and dot and method in {f.name for f in fields(Settings)}):
        raise InputError(f"--set {text}: expected METHOD.NAME=VALUE, METHOD one of {_names(Settings)}")
    old = getattr(settings, method)
    if key not in {f.name for f in fields(old)}:
        raise InputError(f"--set {text}: {method} has the settings {_names(type(old))}")
    return replace(settings, **{method: replace(old, **{key: _parse(text, value, type(getattr(old, key)))})})


def describe() -> list[str]:
    """One line a method: its settings and their defaults."""
    lines = []
    for f in fields(Settings):
        group = getattr(Settings(), f.name)
        words = ", ".join(f"{g.name}={getattr(group, g.name)}" for g in fields(group))
        lines.append(f"{f.name}: {words}")
    return lines


def _parse(text: str, value: str, kind: type[Any]) -> Any:
    if kind is str:
        choices = _CHOICES.get(text.partition("=")[0])
        if choices and value not in choices:
            raise InputError(f"--set {text}: one of {', '.join(choices)}")
        return value
    if kind is bool:
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise InputError(f"--set {text}: true or false")
    try:
        number = kind(value)
    except ValueError:
        raise InputError(
            f"--set {text}: {value!r} is not {'a whole' if kind is int else 'a'} number"
        ) from None
    if number == 0 and text.startswith(_MAY_BE_ZERO):
        return number
    if not 0 < number < float("inf"):
        raise InputError(f"--set {text}: must be positive")
    return number


def _names(group: type[Any]) -> str:
    return ", ".join(f.name for f in fields(group))
