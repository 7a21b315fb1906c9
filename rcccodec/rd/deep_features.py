"""A distortion between hidden units: squared error of features of a small network (lossy-rates, section 6.3).

The features are the code of a denoising autoencoder trained on the problem's own data: nothing is downloaded
and no labels are needed. The paper takes a convolutional network's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit

FEATURES, WIDTH, STEPS, BATCH, RATE = 64, 256, 1000, 128, 1e-3
NOISE = 0.5  # standard deviations of a component


class FeatureMap(nn.Module):
    """x (..., dim) to features (..., 64), scaled so that their variances sum to those of x in training."""

    mean: Tensor
    spread: Tensor
    scale: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("spread", x.var(0, correction=0).mean().sqrt().clamp_min(1e-6))
        self.register_buffer("scale", torch.ones(()))
        self.layers = nn.Sequential(
            nn.Linear(x.shape[1], WIDTH), nn.SiLU(), nn.Linear(WIDTH, FEATURES), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layers((x - self.mean) / self.spread)


def train_features(problem: Problem, run: Run) -> tuple[FeatureMap, float]:
    """Train the autoencoder; the weights are a function of the data and ``run.seed``.

    Returns:
        The features, without gradients, and the seconds of training.
    """
    x, device = problem.train, run.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.generator("initial", "features").initial_seed())
        features = FeatureMap(x).to(device)
        back = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, x.shape[1])).to(device)
    optimizer = torch.optim.Adam([*features.parameters(), *back.parameters()], RATE)

    def update(step: int, generator: torch.Generator) -> None:
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)].to(device)
        noise = torch.randn(batch.shape, generator=generator).to(device)
        wanted = (batch - features.mean) / features.spread
        optimizer.zero_grad(set_to_none=True)
        (back(features.layers(wanted + NOISE * noise)) - wanted).square().mean().backward()
        optimizer.step()

    plan = {"problem": [problem.name, *x.shape], "features": FEATURES, "width": WIDTH, "steps": STEPS}
    modules = {"features": features, "back": back}
    seconds = fit("ais-features", modules, {"all": optimizer}, update, STEPS, run, plan)
    features.eval().requires_grad_(False)
    some = x[:10_000].to(device)
    with torch.no_grad():
        total = features.layers((some - features.mean) / features.spread).var(0).sum()
        features.scale.copy_((some.var(0).sum() / total).sqrt())
    return features, seconds
