"""Where classes start: hard EM on latents."""

from __future__ import annotations

import torch
from torch import Tensor

from rcccodec.latent.prior import divergences

WEIGHT_OF_ALL = 4.0  # positions of everything else in every class, so that rare ones stay reasonable
LEAST_VARIANCE = 1e-4


@torch.no_grad()
def fit_classes(
    mean: Tensor, log_noise: Tensor, classes: int, rounds: int, discount: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian classes for posteriors N(mean, noise^2), begun from bands of energy.

    Args:
        mean, log_noise: float32 (positions, M).
        discount: factor on a class's log-odds when positions choose.

    Returns:
        Centres and log scales (classes, M), logits (classes,).
    """
    energy = (mean.square() / mean.square().mean(0).clamp_min(1e-12)).mean(1)
    chosen = energy.argsort().argsort() * classes // len(energy)
    for _ in range(rounds):
        centre, log_scale, logits = _refit(mean, log_noise, chosen, classes)
        chosen = (divergences(mean, log_noise, centre, log_scale) - discount * logits).argmin(1)
    return _refit(mean, log_noise, chosen, classes)


def _refit(mean: Tensor, log_noise: Tensor, chosen: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.bincount(chosen, minlength=classes).float()
    second = mean.square() + (2 * log_noise).exp()
    centre, square = (
        (
            torch.zeros(classes, mean.shape[1], device=mean.device).index_add_(0, chosen, moment)
            + WEIGHT_OF_ALL * moment.mean(0)
        )
        / (count[:, None] + WEIGHT_OF_ALL)
        for moment in (mean, second)
    )
    log_scale = 0.5 * (square - centre.square()).clamp_min(LEAST_VARIANCE).log()
    return centre, log_scale, ((count + 1) / (count + 1).sum()).log()
