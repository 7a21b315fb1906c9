"""A Gaussian channel in place of CompressAI's EntropyBottleneck: latents are sent without a quantiser.

    y --> N(y, noise^2) --> y_hat             noise learned, one for each channel
    |
    +--> class of each position: N(centre, scale^2) for every channel of y_hat

    string = L (1 byte) | tile ... tile       tiles of 16x16 positions, row by row
    tile   = length of classes (varint) | classes (`class_code`) | bits of the path of a trellis of 2^L states

Bytes are divided by integers alone, so that a string can be read on any device; its latents are those of the
encoder up to the rounding of one multiplication and one addition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rcccodec.container import varint
from rcccodec.errors import FormatError, ModelError
from rcccodec.latent import trellis
from rcccodec.latent.class_code import ClassCode
from rcccodec.latent.classes import fit_classes
from rcccodec.latent.fit import fit_prior
from rcccodec.latent.payload import Reader
from rcccodec.latent.prior import SlopePrior, divergences
from rcccodec.latent.windows import TILE, tiles_of

FIRST_NOISE = 12**-0.5  # that of rounding to integers
FIRST_SCALES = (0.3, 10.0)  # of the first and the last class
LEAST_LOG2_STATES = 2
TILES_AT_ONCE = 24  # searched together
MOST_NATS = 40.0  # of one element; what is above is shared by the position, for float32 ends at exp(-87)
CLIPPED_NATS = 80.0
_NO_TABLES = -1


class GaussianChannel(nn.Module):
    """An entropy model without rounding, called as EntropyBottleneck is.

    Args:
        channels: M of the latents (n, M, h, w).
        classes: K, 1 to 256, that a position can choose from.
        hard: whether in training, too, a position is charged for its cheapest class; otherwise the rate is
            -log sum_c pi_c exp(-divergence_c), never more.
        log2_states: L, 2 to 20, of the trellis when coding; each more doubles the time and saves some rate.
        seed: of the common randomness, below 2^63; it is saved with the weights.

    Its life: ``fit_classes(y)``, training as with any other, ``fit(y)``, ``compress``, ``decompress``.
    ``CompressionModel.update`` and ``aux_loss`` pass over it: there is nothing for them to do, nor for an
    auxiliary optimiser. Train on, and ``fit`` is due again; strings of before keep to the weights of before.
    """

    seed: Tensor
    rates_millibits: Tensor
    left: Tensor
    up: Tensor

    def __init__(
        self, channels: int, classes: int = 64, *, hard: bool = False, log2_states: int = 12, seed: int = 0
    ) -> None:
        super().__init__()
        if channels < 1 or not 1 <= classes <= 256 or not 0 <= seed < 1 << 63:
            raise ValueError(f"{channels} channels, {classes} classes, seed {seed}")
        if not LEAST_LOG2_STATES <= log2_states <= trellis.MAX_LOG2_STATES:
            raise ValueError(f"a trellis of 2^{log2_states} states")
        self.channels, self.classes, self.hard, self.log2_states = channels, classes, hard, log2_states
        first, last = (math.log(scale) for scale in FIRST_SCALES)
        self.log_noise = nn.Parameter(torch.full((channels,), math.log(FIRST_NOISE)))
        self.class_logits = nn.Parameter(torch.zeros(classes))
        self.class_centre = nn.Parameter(torch.zeros(classes, channels))
        self.class_log_scale = nn.Parameter(torch.linspace(first, last, classes)[:, None].repeat(1, channels))
        self.register_buffer("seed", torch.tensor(seed))
        self.register_buffer(
            "rates_millibits", torch.full((classes, channels), _NO_TABLES, dtype=torch.int32)
        )
        for name in ("left", "up"):
            self.register_buffer(name, torch.zeros(classes + 1, classes, dtype=torch.int16))

    def forward(self, y: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """What a receiver sees of latents y (n, M, h, w), and ``likelihoods``, shaped so too.

        -sum log2 likelihoods is the rate in bits: of each element its divergence from the position's class
        and an equal share of the class's own code length. It is soft in training only, and unless ``hard``.
        """
        training = self.training if training is None else training
        with torch.autocast(y.device.type, enabled=False):
            y = y.float()
            noise = self.log_noise.exp()[:, None, None]
            nats = self._nats(_rows(y), soft=training and not self.hard)
            nats = nats.view(len(y), *y.shape[2:], -1).permute(0, 3, 1, 2)
            return y + noise * torch.randn_like(y), torch.exp(-nats)

    def _nats(self, mean: Tensor, soft: bool) -> Tensor:
        """Rates (positions, M) of rows of y.

        With r = softmax(-cost) held fixed, sum_c r_c (cost_c + ln r_c) has value and gradient of
        -log sum_c exp(-cost_c).
        """
        log_noise, centre, log_scale = self.log_noise.expand_as(mean), self.class_centre, self.class_log_scale
        lengths = -self.class_logits.log_softmax(0)
        with torch.no_grad():
            cost = divergences(mean, log_noise, centre, log_scale) + lengths
            r = cost.neg().softmax(1)
            if not soft:
                r = nn.functional.one_hot(cost.argmin(1), self.classes).to(r.dtype)
        precision = (-2 * log_scale).exp()
        square = (mean.square() + (2 * log_noise).exp()) * (r @ precision) - 2 * mean * (
            r @ (centre * precision)
        )
        element = 0.5 * (square + r @ (centre.square() * precision + 2 * log_scale) - 1) - log_noise
        share = (r * lengths + torch.xlogy(r, r)).sum(1, keepdim=True) / self.channels
        excess = (element - MOST_NATS).clamp_min(0)
        nats = element - excess + excess.mean(1, keepdim=True) + share
        return nats - (nats - CLIPPED_NATS).clamp_min(0).detach()

    def loss(self) -> Tensor:
        """0: nothing here needs an auxiliary loss."""
        return self.log_noise.new_zeros(())

    @torch.no_grad()
    def fit_classes(self, y: Tensor, rounds: int = 6) -> None:
        """Start the classes, before training, from latents y (n, M, h, w): hard EM."""
        rows = _rows(y.float())
        centre, log_scale, logits = fit_classes(rows, self.log_noise.expand_as(rows), self.classes, rounds)
        self.class_centre.copy_(centre)
        self.class_log_scale.copy_(log_scale)
        self.class_logits.copy_(logits)

    @torch.no_grad()
    def fit(self, y: Tensor) -> None:
        """Make the integer tables that coding needs, after training, from latents y (n, M, h, w) of pictures.

        Latents of more than 16x16 positions are cut into tiles of 16x16; what is left at the edges is not
        used.
        """
        height, width = (min(TILE, side) for side in y.shape[2:])
        tiles = (
            y.detach().float().cpu().unfold(2, height, height).unfold(3, width, width)
        )  # (n, M, a, b, h, w)
        mean = tiles.permute(0, 2, 3, 4, 5, 1).reshape(-1, self.channels)
        exact = self.class_centre.cpu(), self.class_log_scale.cpu()
        prior, _ = fit_prior((mean, self.log_noise.cpu().expand_as(mean)), (height, width), exact)
        self.rates_millibits.copy_(torch.from_numpy(prior.rates_millibits))
        self.left.copy_(torch.from_numpy(prior.code.left))
        self.up.copy_(torch.from_numpy(prior.code.up))

    def update(self, force: bool = False) -> bool:
        """False: the tables are there, made by ``fit``.

        Raises:
            ModelError: they are not.
        """
        self._check_fitted()
        return False

    def compress(self, y: Tensor) -> list[bytes]:
        """A string for each item of latents y (n, M, h, w).

        Raises:
            ModelError: ``fit`` was not called.
        """
        return self.encode(y)[0]

    @torch.no_grad()
    def encode(self, y: Tensor) -> tuple[list[bytes], Tensor]:
        """As ``compress``; also the latents that ``decompress`` will make of the strings."""
        prior = self._prior()
        places = tiles_of(*y.shape[2:])
        strings, y_hat = [bytearray([self.log2_states]) for _ in y], torch.empty_like(y, dtype=torch.float32)
        jobs = [(i, place) for i in range(len(y)) for place in places]
        for first in range(0, len(jobs), TILES_AT_ONCE):
            some = jobs[first : first + TILES_AT_ONCE]
            means = [_rows(_cut(y, i, place).float()[None]).cpu() for i, place in some]
            noise = self.log_noise.cpu()
            classes = [
                prior.choose_classes(m, noise.expand_as(m), *place[2:])
                for m, (_, place) in zip(means, some, strict=True)
            ]
            targets = [_target(prior, m, noise, c) for m, c in zip(means, classes, strict=True)]
            linear, quadratic, schedules = zip(*targets, strict=True)
            paths = trellis.search(
                linear,
                quadratic,
                schedules,
                log2_states=self.log2_states,
                seed=int(self.seed),
                device=str(y.device),
            )
            for (i, place), c, bits in zip(some, classes, paths, strict=True):
                written = prior.code.encode(c)
                strings[i] += varint(len(written)) + written + np.packbits(bits).tobytes()
                _cut(y_hat, i, place).copy_(self._latents(prior, c, bits, self.log2_states))
        return [bytes(s) for s in strings], y_hat

    @torch.no_grad()
    def decompress(self, strings: Sequence[bytes], size: Sequence[int]) -> Tensor:
        """Latents float32 (n, M, h, w) of strings; ``size`` is (h, w).

        Raises:
            FormatError: bytes that ``compress`` does not write. ModelError: ``fit`` was not called.
        """
        prior = self._prior()
        y = torch.empty(len(strings), self.channels, *size, device=self.log_noise.device)
        for i, string in enumerate(strings):
            reader = Reader(bytes(string))
            log2_states = reader.take(1)[0]
            if not LEAST_LOG2_STATES <= log2_states <= trellis.MAX_LOG2_STATES:
                raise FormatError(f"a trellis of 2^{log2_states} states")
            for place in tiles_of(*size):
                c = prior.code.decode(reader.take(reader.length()), *place[2:])
                num_bits = _schedule(prior, c).num_bits
                bits = np.unpackbits(np.frombuffer(reader.take(-(-num_bits // 8)), np.uint8))
                if bits[num_bits:].any():
                    raise FormatError("corrupt string: bits after the end of a tile")
                _cut(y, i, place).copy_(self._latents(prior, c, bits[:num_bits], log2_states))
            reader.finish()
        return y

    def _latents(
        self, prior: SlopePrior, classes: NDArray[np.int64], bits: NDArray[np.uint8], log2_states: int
    ) -> Tensor:
        """y (M, h, w) of a tile."""
        c = torch.from_numpy(classes.reshape(-1))
        y, sent = prior.centre[c], torch.from_numpy(_rates(prior, classes) > 0)
        z = trellis.values(bits, _schedule(prior, classes), log2_states=log2_states, seed=int(self.seed))
        y[sent] += prior.scale[c][sent] * torch.from_numpy(z)
        return y.T.reshape(self.channels, *classes.shape)

    def _prior(self) -> SlopePrior:
        self._check_fitted()
        centre, scale = (
            self.class_centre.detach().float().cpu(),
            self.class_log_scale.detach().float().exp().cpu(),
        )
        code = ClassCode(self.left.cpu().numpy(), self.up.cpu().numpy())
        return SlopePrior(centre, scale, self.rates_millibits.cpu().numpy().astype(np.int64), code)

    def _check_fitted(self) -> None:
        if int(self.rates_millibits.min()) == _NO_TABLES:
            raise ModelError("this GaussianChannel has no tables: call fit(latents) after training")


def _target(
    prior: SlopePrior, mean: Tensor, log_noise: Tensor, classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], trellis.Schedule]:
    """-ln q/p = quadratic z^2 + linear z of a tile's dimensions, up to a constant; and when they are read."""
    c = torch.from_numpy(classes.reshape(-1))
    centre, scale = prior.centre[c], prior.scale[c]
    precision = torch.maximum(
        (-2 * log_noise).exp(), scale.pow(-2)
    )  # noise wider than its prior says nothing
    sent = torch.from_numpy(_rates(prior, classes) > 0)
    linear = -(scale * (mean - centre) * precision)[sent]
    quadratic = (0.5 * (scale.square() * precision - 1))[sent]
    return linear.numpy(), quadratic.clamp_min(0).numpy(), _schedule(prior, classes)


def _rates(prior: SlopePrior, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    return prior.rates_millibits[classes.reshape(-1)]


def _schedule(prior: SlopePrior, classes: NDArray[np.int64]) -> trellis.Schedule:
    rates = _rates(prior, classes)
    return trellis.schedule(rates[rates > 0])


def _cut(y: Tensor, item: int, place: tuple[int, int, int, int]) -> Tensor:
    """A view of one tile, (M, h, w)."""
    top, left, height, width = place
    return y[item, :, top : top + height, left : left + width]


def _rows(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
