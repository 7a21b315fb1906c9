"""The integer tables of a trained network: what each class is worth, and how classes follow each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.latent.class_code import MOST_UNITS, UNITS_A_BIT, ClassCode
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.prior import SlopePrior, divergences

LEAST_MILLIBITS = 5  # a channel worth less is not sent
ROUNDS = 3  # classes and tables depend on each other
CODE_STEPS, CODE_RATE = 150, 0.1  # of gradient descent on the classes' log-odds
BATCH = 32


@torch.no_grad()
def fit_tables(network: LatentNetwork, x: Tensor, say: Callable[[str], None] = lambda _: None) -> dict[str, Tensor]:
    """Fit the tables on pictures x uint8 (n, h, w, 3).

    Returns:
        ``centre``, ``log_scale`` float16 (slopes, K, M); ``rates_millibits`` int32 (slopes, K, M); ``left``, ``up``
        int16 (slopes, K + 1, K).
    """
    each = [_fit_slope(network, x, k, say) for k in range(len(network.spec.betas))]
    return {name: torch.stack([tables[name] for tables in each]) for name in each[0]}


def _fit_slope(network: LatentNetwork, x: Tensor, slope: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    latents = []
    for some in x.split(BATCH):
        pictures = some.permute(0, 3, 1, 2).float() / 255
        found = network.analysis(pictures, torch.full((len(some),), slope))
        latents += [(m, s) for m, s in zip(*(v.permute(0, 2, 3, 1) for v in found), strict=True)]
    height, width = latents[0][0].shape[:2]
    rows = [(m.reshape(-1, m.shape[2]), s.reshape(-1, s.shape[2])) for m, s in latents]
    centre = network.class_centre[slope].to(torch.float16)
    log_scale = network.class_log_scale[slope].to(torch.float16)
    exact, logits = (centre.float(), log_scale.float()), network.class_logits[slope]
    prior, classes = fit_prior(rows, height, width, exact, logits)
    rates = torch.from_numpy(prior.rates_millibits.astype(np.int32))
    bits = float(rates.sum(1)[torch.from_numpy(classes)].double().mean()) / 1000
    used, sent = len(np.unique(classes)), int((rates > 0).any(0).sum())
    say(f"slope {slope}: {bits:.1f} bits a position, {used} classes, {sent} channels sent")
    left, up = torch.from_numpy(prior.code.left), torch.from_numpy(prior.code.up)
    return {"centre": centre, "log_scale": log_scale, "rates_millibits": rates, "left": left, "up": up}


def fit_prior(
    rows: list[tuple[Tensor, Tensor]], height: int, width: int, exact: tuple[Tensor, Tensor], logits: Tensor
) -> tuple[SlopePrior, NDArray[np.int64]]:
    """The integer tables of given classes, and which of them every position takes, (crops, height, width).

    Args:
        rows: mean and log noise of each crop, float32 (height * width, M), position by position.
        exact: centres and log scales (K, M) as coding uses them.
        logits: (K,) of the classes, where their code starts.
    """
    units = logits.log_softmax(0) / math.log(2) * UNITS_A_BIT / 2
    start = _table(units.repeat(len(units) + 1, 1))
    classes = [divergences(m, s, *exact).argmin(1).view(height, width).numpy() for m, s in rows]
    rates, code = _rates(rows, classes, exact, None), ClassCode(start.numpy(), start.numpy())
    for _ in range(ROUNDS):
        left, up = _fit_code(np.stack(classes), code)
        code = ClassCode(left.numpy(), up.numpy())
        prior = SlopePrior(exact[0], exact[1].exp(), rates.long().numpy(), code)
        classes = [prior.choose_classes(m, s, height, width) for m, s in rows]
        rates = _rates(rows, classes, exact, rates)
    return SlopePrior(exact[0], exact[1].exp(), rates.long().numpy(), code), np.stack(classes)


def _rates(
    rows: list[tuple[Tensor, Tensor]], classes: list[np.ndarray], exact: tuple[Tensor, Tensor], before: Tensor | None
) -> Tensor:
    """Mean divergence of each class and channel, whole millibits; rare classes lean on what their scales say."""
    centre, log_scale = exact
    total, count = torch.zeros_like(centre), torch.zeros(len(centre))
    for (mean, log_noise), chosen in zip(rows, classes, strict=True):
        c = torch.from_numpy(chosen.reshape(-1))
        squares = ((mean - centre[c]).square() + (2 * log_noise).exp()) * (-2 * log_scale[c]).exp()
        nats = 0.5 * (squares - 1) - log_noise + log_scale[c]
        total.index_add_(0, c, nats)
        count += torch.bincount(c, minlength=len(centre))
    every = total.sum(0) / count.sum()
    weight = 8.0
    guess = every.expand_as(total) if before is None else before * (math.log(2) / 1000)
    mean_nats = (total + weight * guess) / (count[:, None] + weight)
    millibits = (1000 / math.log(2) * mean_nats).round().clamp_min(0)
    return torch.where(millibits < LEAST_MILLIBITS, 0, millibits).to(torch.int32)


def _fit_code(classes: np.ndarray, start: ClassCode) -> tuple[Tensor, Tensor]:
    """Log-odds tables under which the classes (n, h, w) of n tiles take fewest bits."""
    count = classes.shape[0]
    k = start.classes
    around = np.full((count, classes.shape[1] + 1, classes.shape[2] + 1), k)
    around[:, 1:, 1:] = classes
    left = torch.from_numpy(around[:, 1:, :-1].reshape(-1).copy())
    up = torch.from_numpy(around[:, :-1, 1:].reshape(-1).copy())
    own = torch.from_numpy(classes.reshape(-1))
    scale = math.log(2) / UNITS_A_BIT
    tables = [
        (torch.from_numpy(t.astype(np.float32)) * scale).requires_grad_() for t in (start.left, start.up)
    ]
    optimizer = torch.optim.Adam(tables, lr=CODE_RATE)
    with torch.enable_grad():
        for _ in range(CODE_STEPS):
            loss = torch.nn.functional.cross_entropy(tables[0][left] + tables[1][up], own)
            loss = loss + sum(t.square().mean() for t in tables) * 1e-4
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _table(tables[0].detach() / scale), _table(tables[1].detach() / scale)


def _table(units: Tensor) -> Tensor:
    return units.round().clamp(-MOST_UNITS, MOST_UNITS).to(torch.int16)
