"""Pictures through a latent model: pixels -> latents -> classes and dimensions -> payload, and back.

    x -> mean, noise -> class of every position -> prior of every dimension -> path or indices -> bytes
    bytes -> classes -> when each dimension is read -> z -> y = centre + scale z -> pixels

`rcccodec.codec` puts the payloads into a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.errors import ModelError
from rcccodec.latent import trellis
from rcccodec.latent.chunk_codes import costs_nats
from rcccodec.latent.chunks import MARGIN_BITS, choose
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import (
    CHUNK_STREAM,
    Channel,
    Tile,
    chunks_of,
    rates_of,
    tile_values,
    write_tile,
)
from rcccodec.latent.prior import SlopePrior
from rcccodec.latent.windows import analyse, synthesise, tiles_of
from rcccodec.threads import Tell, each_alone, one_thread

TILES_AT_ONCE = 24  # searched together
MAX_MEAN = 1e9  # of a latent: its square times the steepest precision is still a float32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Latents:
    """A picture as the analysis sees it at one slope, and the classes it takes.

    ``mean``, ``log_noise``: float32 (M, rows, columns). ``classes``: of each tile, int64 (h, w).
    """

    slope: int
    mean: Tensor
    log_noise: Tensor
    classes: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class Coded:
    """A picture's part of a payload, and where its bits go.

    ``y``: latents that a decoder makes of it, float32 (M, rows, columns). ``divergence_bits``: of the
    posterior from the priors that were chosen, what the channel costs at the least. ``expected_bits``: what
    the tables say of it.
    """

    data: bytes
    y: Tensor
    class_bytes: int
    dimension_bytes: int
    divergence_bits: float
    expected_bits: float


def analyse_picture(model: LatentModel, x: NDArray[np.uint8], slope: int) -> Latents:
    """Latents and classes of a picture x uint8 (h, w, 3).

    Raises: ModelError: weights so large that latents overflow.
    """
    mean, log_noise = analyse(model.network, torch.from_numpy(np.require(x, requirements="CW")), slope)
    if not (mean.abs().max() < MAX_MEAN and log_noise.isfinite().all()):
        raise ModelError(f"model {model.name}: its latents of this image are not finite, or too large")
    prior = model.priors[slope]

    def cheapest(place: tuple[int, int, int, int], _tell: Tell) -> NDArray[np.int64]:
        return prior.choose_classes(_rows(mean, place), _rows(log_noise, place), *place[2:])

    return Latents(slope, mean, log_noise, tuple(each_alone(cheapest, tiles_of(*mean.shape[1:]))))


def trellis_bytes(model: LatentModel, latents: Latents, gain: float) -> int:
    """Bytes that a picture takes in a trellis, known before the search."""
    prior = model.priors[latents.slope]
    total = 0
    for place, classes in zip(tiles_of(*latents.mean.shape[1:]), latents.classes, strict=True):
        target = make_target(prior, latents, place, classes, Channel("trellis", 2, 0), gain)
        bits = trellis.schedule(target.rates, target.measure).num_bits
        size = len(prior.code.encode(classes))
        total += 1 + size + (1 if size < 128 else 2) + -(-bits // 8)
    return total


def encode_picture(
    model: LatentModel,
    latents: Latents,
    channel: Channel,
    *,
    gain: float = 1.0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Coded:
    """Search and write all tiles of a picture.

    Args:
        gain: of a trellis, bits to spend for each bit of divergence.
        progress: told (bits done, bits in all).
    """
    prior = model.priors[latents.slope]
    places = tiles_of(*latents.mean.shape[1:])
    y = torch.empty_like(latents.mean)
    data, class_bytes, dimension_bytes, divergence, expected = bytearray(), 0, 0, 0.0, 0
    millibits = sum(int(rates_of(prior, c).sum()) for c in latents.classes)
    done, total = 0, max(1, int((gain if channel.coder == "trellis" else 1.0) * millibits) // 1000)
    for first in range(0, len(places), TILES_AT_ONCE):
        some = range(first, min(first + TILES_AT_ONCE, len(places)))
        targets = [make_target(prior, latents, places[t], latents.classes[t], channel, gain) for t in some]

        def tell(bits: int) -> None:
            nonlocal done
            done += bits
            if progress is not None:
                progress(min(done, total), total)

        symbols = search(targets, channel, device, tell)
        for t, target, found in zip(some, targets, symbols, strict=True):
            tile = Tile(target.measure, latents.classes[t], found)
            written, of_classes, of_dimensions = write_tile(prior, channel, tile)
            data += written
            class_bytes, dimension_bytes = class_bytes + of_classes, dimension_bytes + of_dimensions
            put_tile(y, places[t], tile_latents(prior, channel, tile))
            divergence += target.divergence_nats
            expected += int(target.rates.sum())
    return Coded(bytes(data), y, class_bytes, dimension_bytes, divergence / math.log(2), expected / 1000)


@dataclass(frozen=True)
class Target:
    """What to search for: -ln q/p = quadratic z^2 + linear z of a tile's dimensions that are sent, in order.

    ``rates``: int64 (n,), millibits. ``divergence_nats``: of all channels. ``measure``: see `Tile`.
    """

    linear: NDArray[np.float32]
    quadratic: NDArray[np.float32]
    rates: NDArray[np.int64]
    divergence_nats: float
    measure: int


@one_thread()
def make_target(
    prior: SlopePrior,
    latents: Latents,
    place: tuple[int, int, int, int],
    classes: NDArray[np.int64],
    channel: Channel,
    gain: float,
) -> Target:
    """What to search for in the tile at ``place``; a path gets ``gain`` bits a bit of divergence."""
    mean, log_noise = _rows(latents.mean, place), _rows(latents.log_noise, place)
    c = torch.from_numpy(classes.reshape(-1))
    centre, scale = prior.centre[c], prior.scale[c]
    rates = rates_of(prior, classes)
    sent = torch.from_numpy(rates > 0)
    # a posterior wider than its prior says nothing
    precision = torch.maximum((-2 * log_noise).exp(), scale.pow(-2))
    linear = -(scale * (mean - centre) * precision)[sent]
    quadratic = 0.5 * (scale.square() * precision - 1)[sent]
    nats = (
        0.5 * (((mean - centre).square() + (2 * log_noise).exp()) * scale.pow(-2) - 1)
        - log_noise
        + scale.log()
    )
    divergence = float(nats.double().sum())
    expected = float(rates.sum()) * math.log(2) / 1000
    if channel.coder != "trellis":
        measure = 4 * (channel.log2_states - MARGIN_BITS[channel.coder])
    else:
        measure = round(trellis.GAIN_ONE * gain * divergence / expected) if expected else trellis.GAIN_ONE
    measure, spent = min(max(measure, 1), 255), rates[rates > 0]
    if channel.coder == "trellis":
        shrunk = torch.from_numpy(trellis.shrinkage(spent, measure))
        linear, quadratic = shrunk * linear, shrunk.square() * quadratic
    return Target(linear.numpy(), quadratic.numpy(), spent, divergence, measure)


def search(
    targets: list[Target], channel: Channel, device: str, tell: Callable[[int], None]
) -> list[NDArray]:
    """The best path, or the chosen indices, of every target."""
    if channel.coder == "trellis":
        return list(
            trellis.search(
                [t.linear for t in targets],
                [t.quadratic for t in targets],
                [trellis.schedule(t.rates, t.measure) for t in targets],
                log2_states=channel.log2_states,
                seed=channel.seed,
                device=device,
                progress=tell,
            )
        )
    cuts = [chunks_of(t.rates, t.measure) for t in targets]
    ends = np.cumsum([0, *(len(t.rates) for t in targets)])
    starts = np.concatenate([*(cut[:-1] + end for (cut, _), end in zip(cuts, ends, strict=False)), ends[-1:]])
    bits = np.concatenate([each for _, each in cuts])
    spent = sum(int(t.rates.sum()) for t in targets) // 1000
    told = 0

    def share(done: int, of: int) -> None:
        nonlocal told
        tell(spent * done // of - told)
        told = spent * done // of

    costs = {}
    if channel.coder == "mincost":
        cost_nats, kinds = costs_nats(bits, channel.codes, channel.num_candidates)
        costs = {"cost_nats": cost_nats, "kinds": kinds}
    indices = choose(
        np.concatenate([t.linear for t in targets]),
        np.concatenate([t.quadratic for t in targets]),
        starts,
        coder=channel.coder,
        num_candidates=channel.num_candidates,
        seed=channel.seed,
        stream=CHUNK_STREAM,
        device=device,
        progress=share,
        **costs,
    )
    return np.split(indices, np.cumsum([len(cut) - 1 for cut, _ in cuts])[:-1])


def tile_latents(prior: SlopePrior, channel: Channel, tile: Tile) -> Tensor:
    """Latents (M, h, w) that a tile's symbols stand for."""
    c = torch.from_numpy(tile.classes.reshape(-1))
    sent = torch.from_numpy(rates_of(prior, tile.classes) > 0)
    y = prior.centre[c]
    y[sent] += prior.scale[c][sent] * torch.from_numpy(tile_values(prior, channel, tile))
    return y.T.reshape(-1, *tile.classes.shape)


def decode_picture(
    model: LatentModel,
    slope: int,
    y: Tensor,
    size: tuple[int, int],
    region: tuple[int, int, int, int] | None = None,
) -> NDArray[np.uint8]:
    """Pixels uint8 (h, w, 3) of latents, or of a region of theirs."""
    top, left, height, width = region or (0, 0, *size)
    return synthesise(model.network, y, slope, (height, width), (top, left)).numpy()


def _rows(values: Tensor, place: tuple[int, int, int, int]) -> Tensor:
    """(positions, M) of a tile of (M, rows, columns)."""
    top, left, height, width = place
    return values[:, top : top + height, left : left + width].reshape(len(values), -1).T


def put_tile(y: Tensor, place: tuple[int, int, int, int], tile: Tensor) -> None:
    """Put latents (M, h, w) at ``place`` (top, left, height, width) of y (M, rows, columns), in place."""
    top, left, height, width = place
    y[:, top : top + height, left : left + width] = tile
