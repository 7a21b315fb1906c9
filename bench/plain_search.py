"""The paper's algorithm, written straightforwardly, and the authors' generator with random weights."""

import math

import numpy as np
import torch
from dahuffman import HuffmanCodec
from torch import Tensor, nn

from rcccodec.proposals.generator import Dcgan, GeneratorSpec, build_generator

IMAGES_A_CODEBOOK = 100  # as the authors draw them
_CANDIDATES_AT_ONCE = 1000


def random_dcgan(width: int, latent_dim: int, seed: int) -> Dcgan:
    """An untrained generator whose candidates differ: norms set on its own draws, logits of spread 2."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(GeneratorSpec("dcgan", (32, 32, 1), latent_dim, width))
        for norm in generator.norm:
            norm.momentum = 1.0
        z = torch.randn(512, latent_dim)
        with torch.no_grad():
            generator.train()(z)
            logits = torch.logit(generator.eval()(z).double()).float()
            generator.up[-1].weight.mul_(2 / float(logits.std()))
    return generator


def zipf_huffman(num_candidates: int, rate_bits: float) -> HuffmanCodec:
    """The paper's code over K = 1 .. N (NERD-RCC, after eq. 27)."""
    exponent = 1 + 1 / (rate_bits + math.log2(math.e) / math.e + 1)
    return HuffmanCodec.from_frequencies({k: k**-exponent for k in range(1, num_candidates + 1)})


@torch.no_grad()
def plain_search(x: Tensor, network: nn.Module, beta: float, num_candidates: int, seed: int) -> np.ndarray:
    """0-based indices (B,) of blocks x (B, dim) that share a codebook, in float32 (eq. 30, 36)."""
    generator = torch.Generator(x.device).manual_seed(seed)
    z = torch.randn(num_candidates, network.latent_dim, generator=generator, device=x.device)
    y = torch.cat([network(part) for part in z.split(_CANDIDATES_AT_ONCE)])
    gaps = torch.empty(num_candidates, device=x.device).exponential_(generator=generator)
    scores = beta * torch.cdist(x, y).square() + torch.log(torch.cumsum(gaps, 0))
    return scores.argmin(dim=1).cpu().numpy()


def plain_bytes(x: Tensor, network: nn.Module, code: HuffmanCodec, beta: float, n: int, seed: int) -> bytes:
    """The indices of blocks x (B, dim) as the paper codes them, a codebook for each group of them."""
    groups = [
        plain_search(part, network, beta, n, seed + g) for g, part in enumerate(x.split(IMAGES_A_CODEBOOK))
    ]
    return code.encode((np.concatenate(groups) + 1).tolist())
