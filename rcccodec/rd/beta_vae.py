"""The beta-VAE's upper bound on R(D), and the networks that other estimators start from.

x --> standardise, rotate --> linear + perceptron --> mean, log scale of q(z|x)
z --> linear + perceptron --> y = f(z)        (through a sigmoid for images)

R = E KL(q(z|x) || N(0, I)) nats,  D = E d(x, f(z)),  R(D) <= R:  Ballé et al. 2017, Alemi et al. 2018.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.distortion import paired
from rcccodec.errors import InputError
from rcccodec.rd.point import RatePoint, upper_point
from rcccodec.rd.problem import Problem, check_dim
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import BetaVaeSettings

TEST_DRAWS = 8  # of z, for each test vector
_AXES = 256  # principal axes the encoder sees
_ROWS = 10_000  # training vectors that mean and axes are taken from
_REPORT_EVERY = 50
PairedDistortion = Callable[[Tensor, Tensor], Tensor]
Axes = tuple[Tensor, Tensor, Tensor]  # mean, basis, variances


def paired_distortion(problem: Problem) -> PairedDistortion:
    """d(x, y) of rows that belong together: (..., dim) and (..., dim), which broadcast, to (...).

    Differentiable in y; equal to the diagonal of ``problem.distance``.

    Raises:
        InputError: the distortion has no gradient (Hamming).
    """
    name = problem.distortion
    if name == "hamming" or problem.alphabet is not None:
        raise InputError(f"{problem.name}: a network with real outputs needs real reproductions")
    return paired(name)


class Perceptron(nn.Module):
    """Linear map plus a residual SiLU perceptron whose output begins at zero; depth 0 is the linear map."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        self.skip = _linear(inputs, outputs, 0.0, generator)
        sizes = [inputs] + [width] * depth
        self.layers = nn.ModuleList(_linear(a, b, 1 / math.sqrt(a), generator) for a, b in pairwise(sizes))
        if depth:
            self.last = _linear(width, outputs, 0.0, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        y: Tensor = self.skip(x)
        if not len(self.layers):
            return y
        h = x
        for i, layer in enumerate(self.layers):
            a = functional.silu(layer(h))
            h = a if i == 0 else h + a
        return y + self.last(h)


class Encoder(nn.Module):
    """q(z|x) = N(mean, diag exp(2 log scale)) from the leading principal coefficients of x.

    Begins at the posterior of the linear Gaussian model (probabilistic PCA) with this variance of the noise,
    1 / (2 beta) for squared error; at the prior if it is infinite.
    """

    def __init__(
        self, axes: Axes, latents: int, noise: float, settings: BetaVaeSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        mean, basis, variances = axes
        basis, variances = basis[:_AXES], variances[:_AXES]
        spread = (variances + 1e-4 * variances[0].clamp_min(1e-12)).sqrt()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("whiten", (basis / spread[:, None]).T.contiguous())
        self.net = Perceptron(len(basis), 2 * latents, settings.width, settings.depth, generator)
        signal, level = _channels(variances, latents, noise)
        k = len(signal)
        with torch.no_grad():
            i = torch.arange(k)
            self.net.skip.weight[i, i] = signal / variances[:k].clamp_min(1e-12) * spread[:k]
            self.net.skip.bias[latents : latents + k] = 0.5 * torch.log(level)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log scales (n, latents) of vectors (n, dim)."""
        mean, log_scale = self.net((x - self.mean) @ self.whiten).chunk(2, dim=1)
        return mean, log_scale.clamp(-9, 2)


class BetaVae(nn.Module):
    """An encoder and a decoder; the prior is N(0, I)."""

    def __init__(self, encoder: Encoder, decoder: Decoder, latents: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.latents = encoder, decoder, latents

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log scales (n, latents), natural, of q(z|x) for vectors x (n, dim)."""
        found: tuple[Tensor, Tensor] = self.encoder(x)
        return found

    def decode(self, z: Tensor) -> Tensor:
        """Reproductions (n, dim) of latents (n, latents)."""
        y: Tensor = self.decoder(z)
        return y

    def bound(self, x: Tensor, noise: Tensor, paired: PairedDistortion) -> tuple[Tensor, Tensor]:
        """KL in nats and distortion, (n,) each, of vectors x (n, dim) and standard normals (n, latents)."""
        mean, log_scale = self.posterior(x)
        kl = 0.5 * (mean.square() + torch.exp(2 * log_scale) - 1 - 2 * log_scale).sum(1)
        return kl, paired(x, self.decode(mean + noise * log_scale.exp()))


class Decoder(nn.Module):
    """y = f(z); begins at the principal axes, scaled as reverse water-filling does for a Gaussian."""

    def __init__(
        self, axes: Axes, latents: int, noise: float, image: bool, settings: BetaVaeSettings,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        mean, basis, variances = axes
        self.image = image
        self.net = Perceptron(latents, len(mean), settings.width, settings.depth, generator)
        signal, _ = _channels(variances, latents, noise)
        with torch.no_grad():
            self.net.skip.weight[:, : len(signal)] = (basis[: len(signal)] * signal[:, None]).T
            self.net.skip.bias.copy_(torch.logit(mean.clamp(0.01, 0.99)) if image else mean)
            if image:
                self.net.skip.weight.mul_(4)  # the sigmoid's slope is 1/4 at most

    def forward(self, z: Tensor) -> Tensor:
        """(n, latents) to (n, dim)."""
        y: Tensor = self.net(z)
        return torch.sigmoid(y) if self.image else y


def train_beta_vae(problem: Problem, beta: float, settings: BetaVaeSettings, run: Run) -> BetaVae:
    """Minimise E KL(q(z|x) || p(z)) + beta E d(x, f(z)) in nats over ``problem.train``.

    A finished checkpoint ``beta-vae-BETA`` of the same problem and settings is used as it is.

    Returns:
        The networks on ``run.device``, frozen.

    Raises:
        InputError: discrete reproductions. LimitError: the training diverged. ModelError, OutputError: of
        checkpoints.
    """
    return fit_beta_vae(problem, beta, settings, run)[0]


def fit_beta_vae(problem: Problem, beta: float, settings: BetaVaeSettings, run: Run) -> tuple[BetaVae, float]:
    """`train_beta_vae`, and the seconds it took, those before a stop included."""
    check_dim(problem, "beta-VAE")
    paired = paired_distortion(problem)
    name = f"beta-vae-{beta:g}"
    vae = untrained(problem, beta, settings, run).to(run.device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=settings.rate)
    state = {"what": name}

    def update(step: int, generator: torch.Generator) -> None:
        x = draw_batch(problem.train, settings.batch, generator, run.device)
        noise = torch.randn((len(x), vae.latents), generator=generator).to(run.device)
        kl, d = vae.bound(x, noise, paired)
        rate, distortion = kl.mean(), d.mean()
        cosine_rate(optimizer, settings.rate, step, settings.steps)
        optimizer.zero_grad()
        (rate + beta * distortion).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), largest_step(problem.dim))
        optimizer.step()
        if step % _REPORT_EVERY == 0:
            bits, reached = float(rate.detach()) / math.log(2), float(distortion.detach())
            state["what"] = f"{name}: R {bits:.2f} bits, D {reached:.3g}"

    telling = replace(run, progress=lambda _what, done, total: run.progress(state["what"], done, total))
    plan = {"problem": problem.name, "distortion": problem.distortion, "train": list(problem.train.shape)}
    plan |= {"beta": beta, **vars(settings)}
    seconds = fit(name, {"vae": vae}, {"vae": optimizer}, update, settings.steps, telling, plan)
    return vae.eval().requires_grad_(False), seconds


def trace_vae(
    problem: Problem, betas: Sequence[float], settings: BetaVaeSettings, run: Run
) -> Iterator[RatePoint]:
    """One network a slope: R = E KL, D = E d on ``problem.test`` with fresh z.

    Raises:
        InputError: discrete reproductions. LimitError: a training diverged.

    Invariants: every slope stands alone; R + beta D is on or above R(D) + beta D, up to standard errors.
    """
    paired_distortion(problem)
    for beta in betas:
        vae, seconds = fit_beta_vae(problem, beta, settings, run)
        yield measure_vae(vae, problem, beta, run, seconds=seconds)


@torch.no_grad()
def measure_vae(
    vae: BetaVae, problem: Problem, beta: float, run: Run, *, draws: int = TEST_DRAWS, seconds: float = 0.0
) -> RatePoint:
    """KL and distortion on ``problem.test``: ``draws`` fresh z a vector."""
    began = time.perf_counter()
    paired, place = paired_distortion(problem), torch.device(run.device)
    generator = run.generator("vae-test", beta)
    rates, distortions = [], []
    for _ in range(draws):
        parts = [
            vae.bound(x.to(place), torch.randn((len(x), vae.latents), generator=generator).to(place), paired)
            for x in problem.test.split(1024)
        ]
        rates.append(torch.cat([kl for kl, _ in parts]).double().cpu())
        distortions.append(torch.cat([d for _, d in parts]).double().cpu())
    d = torch.stack(distortions)
    return upper_point(
        "vae", beta, torch.stack(rates) + beta * d, d, num_samples=0, saturated=False,
        seconds=seconds + time.perf_counter() - began,
    )  # fmt: skip


def untrained(problem: Problem, beta: float, settings: BetaVaeSettings, run: Run) -> BetaVae:
    """The networks as training finds them, on the CPU: a function of the seed and the slope."""
    generator = run.generator("beta-vae", beta, "start")
    axes, noise = principal_axes(problem.train), 1 / (2 * beta)
    encoder = Encoder(axes, settings.latents, noise, settings, generator)
    decoder = Decoder(axes, settings.latents, noise, problem.shape is not None, settings, generator)
    return BetaVae(encoder, decoder, settings.latents)


def cosine_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Set the learning rate of ``step`` (from 0): a short warm-up, then a cosine that ends at zero."""
    warm = min(1.0, (step + 1) / max(1, min(100, steps // 10)))
    for group in optimizer.param_groups:
        group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def draw_batch(x: Tensor, batch: int, generator: torch.Generator, device: str) -> Tensor:
    """Rows of x (n, dim), drawn with replacement: (batch, dim) on ``device``."""
    return x[torch.randint(len(x), (batch,), generator=generator)].to(device)


def principal_axes(x: Tensor) -> Axes:
    """Mean (dim,), orthonormal axes (dim, dim) and falling variances (dim,) of up to 10,000 rows; float32."""
    sample = x[:: max(1, len(x) // _ROWS)].double()
    mean = sample.mean(0)
    centred = sample - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(sample))
    return mean.float(), vectors.flip(1).T.contiguous().float(), values.flip(0).clamp_min(0).float()


def _channels(variances: Tensor, latents: int, noise: float) -> tuple[Tensor, Tensor]:
    """Of the leading axes: the signal's scale, and the share of variance that is noise."""
    kept = variances[:latents]
    return (kept - noise).clamp_min(0).sqrt(), (noise / kept.clamp_min(1e-30)).clamp_max(1)


def largest_step(dim: int) -> float:
    """Norm at which a gradient is cut: the losses are sums over components."""
    return 100.0 * math.sqrt(dim)


def _linear(inputs: int, outputs: int, std: float, generator: torch.Generator) -> nn.Linear:
    """A layer drawn from ``generator``; torch's own start uses the global random state."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight.normal_(0, std, generator=generator)
    return layer
