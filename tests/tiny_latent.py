"""A small latent model in the real bundle format, whose transforms are near a Haar transform and its inverse.

Position means and their differences are the first twelve latents, the rest are next to nothing, and every
weight has a random part, so that all of them matter. Two slopes; quality and rate rise from one to the other.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rcccodec.bundle import load_model
from rcccodec.latent.codec import Target, analyse_picture, make_target
from rcccodec.latent.fit import fit_chunk_codes, fit_tables
from rcccodec.latent.model import LatentModel, assemble, bundle_files, stored_network
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.payload import Channel
from rcccodec.latent.spec import LatentSpec
from rcccodec.latent.transforms import PEDESTAL
from rcccodec.latent.windows import tiles_of

JITTER = 0.0002  # of the weights
BETAS = (8.0, 60.0)
SPEC = LatentSpec((32, 32, 3), BETAS, 24, 16, 8)
HAAR = 0.5 * torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])


def tiny_latent_model(folder: Path) -> Path:
    """Write the bundle to ``folder``."""
    network = stored_network(haar_network())
    pictures = torch.from_numpy(np.stack([smooth_picture(256, 256, seed) for seed in range(6)]))
    tables = fit_tables(network, pictures, classes=16)
    model = assemble(network, tables)
    codes = fit_chunk_codes(_targets(model, pictures[:2].numpy()), budgets=(6, 8))
    card = {
        "name": "tiny",
        "source": "nothing",
        "held_out": [{"beta": beta, "rate_bpp": 0.1 * beta} for beta in BETAS],
        "default_rung": 1,
        "default_seed": 3,
        "chunk_codes": codes,
    }
    folder.mkdir(parents=True)
    for name, data in bundle_files(card, model, tables).items():
        (folder / name).write_bytes(data)
    return folder


def load_tiny(folder: Path) -> LatentModel:
    """The loaded bundle."""
    model = load_model(folder)
    assert isinstance(model, LatentModel)
    return model


def smooth_picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (h, w, 3): coarse random colours, drawn soft, and more or less noise."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, -(-height // 64) + 2, -(-width // 64) + 2, generator=random)
    made = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    rough = torch.rand(-(-height // 64), -(-width // 64), generator=random) ** 4 * 0.12
    rough = rough.repeat_interleave(64, 0).repeat_interleave(64, 1)[:height, :width]
    made = made + rough * torch.randn(3, height, width, generator=random)
    return (255 * made.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def haar_network() -> LatentNetwork:
    """Transforms as the head of this module says, and classes of a few pictures."""
    random = torch.Generator().manual_seed(7)
    network = LatentNetwork(SPEC).eval().requires_grad_(False)
    for name, value in network.named_parameters():
        if name.startswith(("g_a.", "g_s.")):
            value.copy_(_start(name, value) + JITTER * torch.randn(value.shape, generator=random))
    slopes = torch.tensor(BETAS)[:, None].expand_as(network.log_gain)
    network.log_gain.copy_(0.5 * (slopes / BETAS[0]).log())
    network.log_gain_back.copy_(-network.log_gain)
    pictures = np.stack([smooth_picture(128, 128, seed) for seed in range(50, 62)])
    network.fit_classes(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    return network


def random_network(spec: LatentSpec = SPEC, seed: int = 0) -> LatentNetwork:
    """Transforms of large random weights, which use the whole of their kernels and of the range of pixels."""
    torch.manual_seed(seed)
    network = LatentNetwork(spec).eval().requires_grad_(False)
    for name, value in network.named_parameters():
        if name.startswith("g_") and value.dim() == 4:
            value.copy_(torch.randn_like(value) * 2 / (value[0].numel() ** 0.5))
        elif name.endswith("gamma"):
            value.copy_((0.1 * torch.rand_like(value)).sqrt())
    last = network.g_s[-1]
    last.weight.div_(4 * network.synthesis(torch.randn(1, spec.latent_dim, 8, 8), torch.tensor([0])).std())
    last.bias.fill_(0.5)
    return network


def _start(name: str, value: Tensor) -> Tensor:
    """Of a parameter of the transforms, without its random part."""
    if name.endswith("beta"):
        return torch.ones_like(value)
    if name.endswith("gamma"):
        return torch.full_like(value, PEDESTAL**0.5)
    start = torch.zeros_like(value)
    if value.dim() == 1:
        return start
    for channel in range(3):
        if name == "g_a.6.weight":
            start[channel:12:3, channel, 2:4, 2:4] = 8 * HAAR.view(4, 2, 2)
        elif name == "g_s.0.weight":
            start[channel:12:3, channel, 2:4, 2:4] = HAAR.view(4, 2, 2) / 8
        else:
            start[channel, channel, 2:4, 2:4] = 0.25 if name.startswith("g_a.") else 1.0
    return start


def _targets(model: LatentModel, pictures: np.ndarray) -> list[Target]:
    targets = []
    for slope, prior in enumerate(model.priors):
        for x in pictures:
            latents = analyse_picture(model, x, slope)
            (place,) = tiles_of(*latents.mean.shape[1:])
            channel = Channel("trellis", 64, 0)
            targets.append(make_target(prior, latents, place, latents.classes[0], channel, 1.0))
    return targets


def rewrite(folder: Path, **fields: object) -> None:
    """Change fields of the bundle's model.json."""
    card = json.loads((folder / "model.json").read_bytes())
    (folder / "model.json").write_text(json.dumps(card | fields))
