"""Generative models whose curves annealing measures: VAE, GAN with gradient penalty, adversarial autoencoder.

Fully connected, from codes z ~ N(0, I) to flattened images or vectors (lossy-rates, appendix C.1). All are
trained on squared error or adversaries, whatever distortion their curve is then asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.errors import InputError
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import AnnealingSettings

CRITIC_STEPS = 2  # for each step of the GAN's generator
PENALTY = 10.0  # of the critic's gradient (Gulrajani et al. 2017)


@dataclass(frozen=True)
class GaussianPrior:
    """N(0, I) on k latents."""

    latents: int

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Codes float32 (*shape, k)."""
        return torch.randn((*shape, self.latents), generator=generator)

    def energy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """-log density up to a constant, (...), and its gradient, (..., k)."""
        return z.square().sum(-1) / 2, z


class Decoder(nn.Module):
    """Codes (..., k) to reproductions (..., dim): sigmoid pixels for images, else standardised vectors."""

    mean: Tensor
    scale: Tensor

    def __init__(self, latents: int, width: int, depth: int, x: Tensor, is_image: bool) -> None:
        super().__init__()
        self.is_image = is_image
        self.layers = mlp(latents, width, depth, x.shape[1])
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("scale", x.std(0, correction=0).clamp_min(1e-3))
        if is_image:  # start at the mean image
            self.layers[-1].bias.data = torch.logit(x.mean(0), eps=0.01)

    def forward(self, z: Tensor) -> Tensor:
        y = self.layers(z)
        return torch.sigmoid(y) if self.is_image else self.mean + self.scale * y


def mlp(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """``depth`` hidden layers of leaky ReLUs."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(width if depth else inputs, outputs))


def train_decoder(problem: Problem, settings: AnnealingSettings, run: Run) -> tuple[Decoder, float]:
    """Train ``settings.model`` on ``problem.train``.

    Returns:
        The decoder, in evaluation mode and without gradients, and the seconds of training.

    Raises:
        InputError: no such model. LimitError: the training diverged.
    """
    if settings.model not in TRAINERS:
        raise InputError(f"ais: model {settings.model!r}: expected one of {', '.join(TRAINERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.generator("initial", settings.model).initial_seed())
        x, is_image = problem.train, problem.shape is not None
        decoder = Decoder(settings.latents, settings.width, settings.depth, x, is_image)
        modules, optimizers, update = TRAINERS[settings.model](decoder, x, settings, run.device)
    name = f"ais-{settings.model}{settings.latents}-{settings.depth}x{settings.width}"
    plan = {"problem": [problem.name, *x.shape]} | {
        key: getattr(settings, key)
        for key in ("model", "latents", "width", "depth", "training", "batch", "rate")
    }
    seconds = fit(name, modules, optimizers, update, settings.training, run, plan)
    return decoder.eval().requires_grad_(False), seconds


Trainer = tuple[
    dict[str, nn.Module], dict[str, torch.optim.Optimizer], Callable[[int, torch.Generator], None]
]


class LogVariance(nn.Module):
    """The VAE's one decoder variance, learned."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(-2.0))


def vae(decoder: Decoder, x: Tensor, settings: AnnealingSettings, device: str) -> Trainer:
    """ELBO with x ~ N(f(z), v I), v one number that is learned with the rest."""
    dim, k = x.shape[1], settings.latents
    encoder, log_v = mlp(dim, settings.width, settings.depth, 2 * k), LogVariance()
    modules = _on(device, encoder=encoder, decoder=decoder, variance=log_v)
    optimizer = _adam(modules, settings.rate)

    def update(step: int, generator: torch.Generator) -> None:
        _decay(optimizer, settings, step)
        batch = _batch(x, settings.batch, generator, device)
        mean, log_sd = encoder((batch - decoder.mean) / _spread(decoder)).chunk(2, 1)
        z = mean + log_sd.exp() * _noise((len(batch), k), generator, device)
        kl = (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1) / 2
        error = (decoder(z) - batch).square().sum(1)
        nll = dim / 2 * (math.log(2 * math.pi) + log_v.value) + error / (2 * log_v.value.exp())
        _descend(optimizer, (kl + nll).mean())

    return modules, {"all": optimizer}, update


def gan(decoder: Decoder, x: Tensor, settings: AnnealingSettings, device: str) -> Trainer:
    """Wasserstein GAN with gradient penalty; the critic is as deep as the decoder, and steps more often."""
    critic = mlp(x.shape[1], settings.width, settings.depth, 1)
    modules = _on(device, decoder=decoder, critic=critic)
    rate = settings.rate / 2
    generates = torch.optim.Adam(decoder.parameters(), rate, (0.5, 0.9))
    judges = torch.optim.Adam(critic.parameters(), rate, (0.5, 0.9))

    def update(step: int, generator: torch.Generator) -> None:
        _decay(generates, settings, step, rate)
        _decay(judges, settings, step, rate)
        shape = (settings.batch, settings.latents)
        for _ in range(CRITIC_STEPS):
            real = _batch(x, settings.batch, generator, device)
            with torch.no_grad():
                fake = decoder(_noise(shape, generator, device))
            mix = torch.rand((settings.batch, 1), generator=generator).to(device)
            penalty = gradient_penalty(critic, fake + mix * (real - fake))
            _descend(judges, critic(fake).mean() - critic(real).mean() + PENALTY * penalty)
        _descend(generates, -critic(decoder(_noise(shape, generator, device))).mean())

    return modules, {"decoder": generates, "critic": judges}, update


def aae(decoder: Decoder, x: Tensor, settings: AnnealingSettings, device: str) -> Trainer:
    """Squared error of an autoencoder whose codes a discriminator cannot tell from the prior's."""
    dim, k = x.shape[1], settings.latents
    encoder, judge = mlp(dim, settings.width, settings.depth, k), mlp(k, settings.width, 2, 1)
    modules = _on(device, encoder=encoder, decoder=decoder, judge=judge)
    codes = _adam({"e": encoder, "d": decoder}, settings.rate)
    judges = torch.optim.Adam(judge.parameters(), settings.rate, (0.5, 0.99))
    total = float(x.var(0, correction=0).sum())  # so that the two losses are of one size for any source

    def update(step: int, generator: torch.Generator) -> None:
        _decay(codes, settings, step)
        _decay(judges, settings, step)
        batch = _batch(x, settings.batch, generator, device)
        z = encoder((batch - decoder.mean) / _spread(decoder))
        prior = _noise(z.shape, generator, device)
        real, fake = judge(prior), judge(z.detach())
        _descend(judges, functional.softplus(-real).mean() + functional.softplus(fake).mean())
        error = (decoder(z) - batch).square().sum(1).mean() / total
        _descend(codes, error + 0.1 * functional.softplus(-judge(z)).mean())

    return modules, {"codes": codes, "judge": judges}, update


TRAINERS = {"vae": vae, "gan": gan, "aae": aae}


def gradient_penalty(critic: nn.Module, x: Tensor) -> Tensor:
    """E (||grad_x critic(x)||_2 - 1)^2 over the rows of x (n, dim), to be differentiated in the weights."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (slope.square().sum(1).clamp_min(1e-12).sqrt() - 1).square().mean()


def _spread(decoder: Decoder) -> Tensor:
    """What inputs are divided by: one number for images, so that pixels at the edge do not matter most."""
    return decoder.scale.square().mean().sqrt() if decoder.is_image else decoder.scale


def _on(device: str, **modules: nn.Module) -> dict[str, nn.Module]:
    return {name: module.to(device) for name, module in modules.items()}


def _adam(modules: dict[str, nn.Module], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for m in modules.values() for p in m.parameters()], rate)


def _decay(
    optimizer: torch.optim.Optimizer, settings: AnnealingSettings, step: int, rate: float | None = None
) -> None:
    """Half a cosine, to a fiftieth."""
    part = (1 + math.cos(math.pi * step / settings.training)) / 2
    for group in optimizer.param_groups:
        group["lr"] = (rate or settings.rate) * (0.02 + 0.98 * part)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _batch(x: Tensor, size: int, generator: torch.Generator, device: str) -> Tensor:
    return x[torch.randint(len(x), (size,), generator=generator)].to(device)


def _noise(shape: tuple[int, ...], generator: torch.Generator, device: str) -> Tensor:
    return torch.randn(shape, generator=generator).to(device)
