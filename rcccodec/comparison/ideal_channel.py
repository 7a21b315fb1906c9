"""What a model of latents would cost and keep if its channel cost the divergence alone: a bound, no files.

    rate        sum of D(N(mean, noise^2) || N(centre, scale^2)), and the bits of the classes
    distortion  of y ~ N(mean, noise^2), drawn; y = centre where a channel is not sent

A trellis spends about these bits and gets a worse y for them: how far its curve lies from this one is what
its search costs.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import KEPT_PICTURES, BitsSplit, Curve, Point, ms_ssim, squared_errors
from rcccodec.images import from_float, to_channels
from rcccodec.latent.codec import Latents, analyse_picture, decode_picture, make_target
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Channel
from rcccodec.latent.windows import tiles_of

_ANY_CHANNEL = Channel("trellis", 64, 0)


def ideal_curve(
    images: ImageSet,
    model: LatentModel,
    done: Callable[[Curve, Point], None] = lambda _curve, _point: None,
) -> Curve:
    """The bound at every rung; a point's ``split`` has neither search nor framing."""
    how = (
        "divergence and classes alone, latents drawn from their posteriors: what an ideal channel would cost"
    )
    curve = Curve(f"{model.name}-ideal", f"{model.name}, ideal channel", how, (), "bound", True, model.sha256)
    points = []
    for rung, one in enumerate(model.rungs):
        generator = torch.Generator().manual_seed(rung)
        made = [_draw(model, np.array(x), rung, generator) for x in images.images]
        decoded = [y for _, _, y in made]
        divergence, classes = (np.array([each[i] for each in made]) for i in (0, 1))
        points.append(
            Point(
                setting=f"rung {rung}",
                payload_bits=divergence + classes,
                file_bits=divergence + classes,
                squared_error=squared_errors(images.images, decoded),
                samples=np.array([x.size for x in images.images], dtype=np.float64),
                encode_s=None,
                decode_s=None,
                ms_ssim=ms_ssim(images.images, decoded),
                pictures=tuple(decoded[:KEPT_PICTURES]),
                beta=one.beta,
                rung=rung,
                split=BitsSplit(float(divergence.mean()), 0.0, float(classes.mean()), 0.0),
            )
        )
        done(curve, points[-1])
    return replace(curve, points=tuple(points))


def _draw(
    model: LatentModel, x: np.ndarray, rung: int, generator: torch.Generator
) -> tuple[float, float, np.ndarray]:
    """Bits of divergence, bits of classes, and pixels of drawn latents."""
    prior = model.priors[rung]
    latents = analyse_picture(model, to_channels(x, 3)[0], rung)
    nats, class_bits = 0.0, 0
    for place, classes in zip(tiles_of(*latents.mean.shape[1:]), latents.classes, strict=True):
        nats += make_target(prior, latents, place, classes, _ANY_CHANNEL, 1.0).divergence_nats
        class_bits += 8 * len(prior.code.encode(classes))
    pixels = decode_picture(model, rung, _sample(model, latents, generator), x.shape[:2])
    return nats / math.log(2), class_bits, from_float(pixels / 255, grey=True) if x.ndim == 2 else pixels


def _sample(model: LatentModel, latents: Latents, generator: torch.Generator) -> torch.Tensor:
    """Latents (M, rows, columns) from the posteriors, whose noise is at most the prior's scale."""
    prior, mean = model.priors[latents.slope], latents.mean
    chosen = torch.zeros(mean.shape[1:], dtype=torch.long)
    for (top, left, height, width), classes in zip(tiles_of(*mean.shape[1:]), latents.classes, strict=True):
        chosen[top : top + height, left : left + width] = torch.from_numpy(classes)
    centre, scale = (table[chosen].permute(2, 0, 1) for table in (prior.centre, prior.scale))
    sent = torch.from_numpy(prior.rates_millibits > 0)[chosen].permute(2, 0, 1)
    noise = torch.minimum(latents.log_noise.exp(), scale)
    return torch.where(sent, mean + noise * torch.randn(mean.shape, generator=generator), centre)
