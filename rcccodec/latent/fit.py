"""The integer tables of a trained network: what each class is worth, and how classes follow each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.latent.chunk_codes import fit_frequencies
from rcccodec.latent.chunks import MARGIN_BITS, cut
from rcccodec.latent.class_code import MOST_UNITS, UNITS_A_BIT, ClassCode, neighbours
from rcccodec.latent.codec import Target
from rcccodec.latent.network import CLASS_DISCOUNT, LatentNetwork
from rcccodec.latent.prior import SlopePrior, divergences
from rcccodec.latent.spec import LATENT_STRIDE

LEAST_MILLIBITS = 5  # a channel worth less is not sent
CLASSES = 256  # of the tables: more than a network is trained with, which saves bits at no cost to it
EM_ROUNDS, REVIVALS = 16, range(2, 12, 2)
CODE_ROUNDS = 3  # classes and their code depend on each other
OTHERS_WEIGHT = 4.0  # positions of everything else in a class's moments, so that rare ones stay reasonable
RATE_WEIGHT = 8.0  # the same for rates
LEAST_COUNT = 20  # positions of a class that is alive
LEAST_VARIANCE = 1e-4
BATCH = 16
CHUNK_BUDGETS, CODE_CHUNKS = (8, 10, 12, 14), 480
_SMOOTHING, _SHARE = (5.0, 20.0, 60.0), (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Rows = tuple[Tensor, Tensor]  # mean and log noise, (positions, M) each


@torch.no_grad()
def fit_tables(
    network: LatentNetwork, x: Tensor, classes: int = CLASSES, say: Callable[[str], None] = lambda _: None
) -> dict[str, Tensor]:
    """Fit the tables on square pictures of one tile each, x uint8 (n, 256, 256, 3).

    Returns:
        ``centre``, ``log_scale`` float16 (slopes, K, M); ``rates_millibits`` int32 (slopes, K, M);
        ``left``, ``up`` int16 (slopes, K + 1, K).
    """
    each = [_fit_slope(network, x, k, classes, say) for k in range(len(network.spec.betas))]
    return {name: torch.stack([tables[name] for tables in each]) for name in each[0]}


def _fit_slope(
    network: LatentNetwork, x: Tensor, slope: int, classes: int, say: Callable[[str], None]
) -> dict[str, Tensor]:
    batches = []
    for some in x.split(BATCH):
        pictures = some.permute(0, 3, 1, 2).float() / 255
        found = network.analysis(pictures, torch.full((len(some),), slope))
        batches.append([v.permute(0, 2, 3, 1).reshape(-1, v.shape[1]) for v in found])
    mean, log_noise = (torch.cat(parts) for parts in zip(*batches, strict=True))
    side = x.shape[1] // LATENT_STRIDE
    centre, log_scale, chosen = _em(network, (mean, log_noise), slope, classes)
    centre, log_scale = centre.to(torch.float16), log_scale.to(torch.float16)
    exact = centre.float(), log_scale.float()
    prior, grids = fit_prior((mean, log_noise), (side, side), exact, chosen)
    code, rates = prior.code, torch.from_numpy(prior.rates_millibits.astype(np.int32))
    chosen = torch.from_numpy(grids.reshape(-1))
    bits = float(rates.sum(1)[chosen].double().mean()) / 1000
    lengths = float(np.mean([8 * len(code.encode(grid)) for grid in grids[:32]])) / side**2
    say(
        f"slope {slope}: {bits:.1f} bits a position and {lengths:.2f} for its class, "
        f"of {len(chosen.unique())}; "
        f"{int((rates > 0).any(0).sum())} channels sent"
    )
    tables = {"centre": centre, "log_scale": log_scale, "rates_millibits": rates}
    return tables | {"left": torch.from_numpy(code.left), "up": torch.from_numpy(code.up)}


def fit_prior(
    rows: Rows, size: tuple[int, int], exact: tuple[Tensor, Tensor], chosen: Tensor | None = None
) -> tuple[SlopePrior, NDArray[np.int64]]:
    """The integer tables of given classes, and which of them every position takes, (tiles, height, width).

    Args:
        rows: of tiles of one ``size`` (height, width), one after the other, position by position.
        exact: centres and log scales (K, M) as coding uses them.
        chosen: (positions,), the classes to start from; the cheapest when None.
    """
    (mean, log_noise), (height, width), count = rows, size, len(exact[0])
    if chosen is None:
        chosen = _cheapest(rows, *exact, torch.zeros(count))[1]
    rates = _rates(rows, chosen, exact, None)
    grids = chosen.view(-1, height, width).numpy()
    for _ in range(CODE_ROUNDS):
        code = fit_class_code(grids, count)
        prior = SlopePrior(exact[0], exact[1].exp(), rates.long().numpy(), code)
        tiles = zip(mean.split(height * width), log_noise.split(height * width), strict=True)
        grids = np.stack([prior.choose_classes(m, s, height, width) for m, s in tiles])
        rates = _rates(rows, torch.from_numpy(grids.reshape(-1)), exact, rates)
    return SlopePrior(exact[0], exact[1].exp(), rates.long().numpy(), code), grids


def _em(network: LatentNetwork, rows: Rows, slope: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hard EM from the network's classes, doubled: centres, log scales (K, M), classes (positions,)."""
    mean, log_noise = rows
    square = mean.square() + (2 * log_noise).exp()
    centre, log_scale = network.class_centre[slope], network.class_log_scale[slope]
    log_share = network.class_logits[slope].log_softmax(0)
    while len(centre) < classes:
        centre = torch.cat([centre, centre])
        log_scale = torch.cat([log_scale + 0.1, log_scale - 0.1])
        log_share = torch.cat([log_share, log_share]) - math.log(2)
    centre, log_scale, log_share = centre[:classes], log_scale[:classes], log_share[:classes]
    every = mean.mean(0), square.mean(0)
    for step in range(EM_ROUNDS + 1):
        cost, chosen = _cheapest(rows, centre, log_scale, log_share)
        if step == EM_ROUNDS:
            return centre, log_scale, chosen
        count = torch.bincount(chosen, minlength=classes).float()
        first = torch.zeros_like(centre).index_add_(0, chosen, mean) + OTHERS_WEIGHT * every[0]
        second = torch.zeros_like(centre).index_add_(0, chosen, square) + OTHERS_WEIGHT * every[1]
        centre = first / (count[:, None] + OTHERS_WEIGHT)
        variance = second / (count[:, None] + OTHERS_WEIGHT) - centre.square()
        log_scale = 0.5 * variance.clamp_min(LEAST_VARIANCE).log()
        log_share = ((count + 1) / (count + 1).sum()).log()
        if step in REVIVALS:  # a class that nobody takes becomes half of one that costs most
            total = torch.zeros(classes).index_add_(0, chosen, cost)
            dead = (count < LEAST_COUNT).nonzero()[:, 0]
            dear = total.argsort(descending=True)[: len(dead)]
            centre[dead], log_scale[dead] = centre[dear], log_scale[dear] + 0.15
            log_scale[dear] -= 0.15
            log_share[dear] -= math.log(2)
            log_share[dead] = log_share[dear]
    raise AssertionError


def _cheapest(rows: Rows, centre: Tensor, log_scale: Tensor, log_share: Tensor) -> tuple[Tensor, Tensor]:
    parts = [
        (divergences(m, s, centre, log_scale) - CLASS_DISCOUNT * log_share).min(1)
        for m, s in zip(*(v.split(1 << 14) for v in rows), strict=True)
    ]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def _rates(rows: Rows, chosen: Tensor, exact: tuple[Tensor, Tensor], before: Tensor | None) -> Tensor:
    """Mean divergence of each class and channel, whole millibits, int32 (K, M)."""
    centre, log_scale = exact
    total = torch.zeros_like(centre)
    for m, s, c in zip(*(v.split(1 << 14) for v in (*rows, chosen)), strict=True):
        squares = ((m - centre[c]).square() + (2 * s).exp()) * (-2 * log_scale[c]).exp()
        total.index_add_(0, c, 0.5 * (squares - 1) - s + log_scale[c])
    count = torch.bincount(chosen, minlength=len(centre))[:, None]
    guess = (total.sum(0) / count.sum()).expand_as(total) if before is None else before * (math.log(2) / 1000)
    nats = (total + RATE_WEIGHT * guess) / (count + RATE_WEIGHT)
    millibits = (1000 / math.log(2) * nats).round().clamp_min(0)
    return torch.where(millibits < LEAST_MILLIBITS, 0, millibits).to(torch.int32)


def fit_class_code(classes: NDArray[np.int64], count: int) -> ClassCode:
    """A code of ``count`` classes for tiles (n, h, w) of them.

    p(c | l, u) ~ p(c) [p(c | l) p(c | u) / p(c)^2]^share, conditionals leaning on p(c); how much they lean
    and the share, which stands for what both neighbours say twice, are those that fit every fifth tile best.
    """
    held_out = np.arange(len(classes)) % 5 == 4
    if held_out.all() or not held_out.any():
        held_out = np.zeros(len(classes), bool)
    trained, tested = classes[~held_out], classes[held_out] if held_out.any() else classes
    best = min(
        product(_SMOOTHING, _SHARE),
        key=lambda pair: _length_bits(_class_code(trained, count, *pair), tested),
    )
    return _class_code(classes, count, *best)


def _class_code(classes: NDArray[np.int64], count: int, smoothing: float, share: float) -> ClassCode:
    left, up = neighbours(classes, count)
    own = classes.reshape(-1)
    prior = (np.bincount(own, minlength=count) + 0.5) / (len(own) + 0.5 * count)
    tables = []
    for near in (left.reshape(-1), up.reshape(-1)):
        pairs = np.zeros((count + 1, count))
        np.add.at(pairs, (near, own), 1)
        conditional = (pairs + smoothing * prior) / (pairs.sum(1, keepdims=True) + smoothing)
        units = UNITS_A_BIT * (np.log2(prior) / 2 + share * np.log2(conditional / prior))
        tables.append(np.clip(np.rint(units), -MOST_UNITS, MOST_UNITS).astype(np.int16))
    return ClassCode(*tables)


def _length_bits(code: ClassCode, classes: NDArray[np.int64]) -> float:
    left, up = neighbours(classes, code.classes)
    return float(code.lengths_bits_of(left, up, classes).sum())


def fit_chunk_codes(
    targets: Sequence[Target],
    budgets: Sequence[int] = CHUNK_BUDGETS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, list[int]]]:
    """Class frequencies of the index codes of chunks, by coder and budget in bits.

    Args:
        targets: tiles of all slopes, of which the first chunks are taken.
    """
    codes: dict[str, dict[str, list[int]]] = {}
    for coder, margin in MARGIN_BITS.items():
        codes[coder] = {}
        for budget in budgets:
            parts = [_chunks(t, budget, CODE_CHUNKS // len(targets) + 1) for t in targets]
            ends = np.cumsum([0, *(len(linear) for linear, _, _ in parts)])
            starts = np.concatenate(
                [*(c[:-1] + e for (_, _, c), e in zip(parts, ends, strict=False)), ends[-1:]]
            )
            codes[coder][str(budget)] = fit_frequencies(
                np.concatenate([linear for linear, _, _ in parts]),
                np.concatenate([quadratic for _, quadratic, _ in parts]),
                starts,
                coder=coder,
                num_candidates=1 << (budget + margin),
                seeds=range(1, 5),
            )
        say(f"index codes of chunks: {coder}")
    return codes


def _chunks(target: Target, budget: int, count: int) -> tuple[NDArray, NDArray, NDArray[np.int64]]:
    starts = cut(target.rates, 1000 * budget)[: count + 1]
    return target.linear[: starts[-1]], target.quadratic[: starts[-1]], starts
