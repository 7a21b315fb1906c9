"""NERD generators: networks that push standard-normal latents forward to candidates y = G(z).

    z (n, latent_dim) --> network --> coordinates (n, num_coordinates) --> synthesise --> y (n, dim)

``coordinates`` are orthonormal (or the pixels themselves), so that squared distances can be taken in them and
the search never needs the pixels of a losing candidate.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rcccodec.proposals.inference import InferenceForm, inference_form
from rcccodec.proposals.networks import Dcgan, FullyConnected, Generator, Mlp, Patches, build_generator
from rcccodec.proposals.spec import (
    MAX_DIM,
    MAX_FEATURES,
    MAX_LATENTS,
    PATCH_SIDE,
    PATCH_STRIDE,
    GeneratorSpec,
)

__all__ = [
    "MAX_DIM",
    "MAX_FEATURES",
    "MAX_LATENTS",
    "PATCH_SIDE",
    "PATCH_STRIDE",
    "Dcgan",
    "FullyConnected",
    "Generator",
    "GeneratorProposal",
    "GeneratorSpec",
    "Mlp",
    "Patches",
    "build_generator",
]


class GeneratorProposal:
    """A trained generator at one slope, seen as a Proposal in its own coordinates.

    ``dim`` counts coordinates. ``analyse`` takes blocks (n, block_dim) there, ``synthesise`` takes
    coordinates back; squared distances to a block differ from those of pixels by a constant of the block.

    Invariants: row j of ``candidates`` depends on row j of ``z`` only; synthesise(analyse(y)) = y for any
    candidate y;
    ||x - synthesise(c)||^2 = ||analyse(x) - c||^2 + ||x - synthesise(analyse(x))||^2.
    """

    def __init__(self, plain: Generator, device: str | torch.device = "cpu") -> None:
        exact = copy.deepcopy(plain).to(device="cpu", dtype=torch.float64)
        self._forms = {torch.float64: inference_form(exact).to(device)}
        self.latent_dim = plain.latent_dim
        self.block_dim = plain.dim
        self.is_linear = hasattr(plain, "basis")
        self.dim = len(plain.basis) if self.is_linear else plain.dim

    @torch.no_grad()
    def candidates(self, z: Tensor) -> Tensor:
        """Coordinates (n, dim) of the candidates of latents z (n, latent_dim), in the type of z.

        float64 is what decoders make, float32 what a search scores; bfloat16 is for a coarse pass whose
        winners are made again: latents, weights and results are rounded to it, sums are not.
        """
        form = self._form(z.dtype)
        rows = form.rows_per_pass(z)
        if len(z) <= rows:
            y: Tensor = form(z)
            return y
        y = torch.empty(len(z), self.dim, dtype=z.dtype, device=z.device)
        for first in range(0, len(z), rows):
            y[first : first + rows] = form(z[first : first + rows])
        return y

    @torch.no_grad()
    def analyse(self, x: Tensor) -> Tensor:
        """Coordinates (n, dim) of the blocks x (n, block_dim), on the device of x."""
        if not self.is_linear:
            return x
        mean, basis = self._frame(x)
        return (x - mean) @ basis.T

    @torch.no_grad()
    def synthesise(self, coordinates: Tensor) -> Tensor:
        """Blocks (n, block_dim) from coordinates (n, dim), on the device of the coordinates."""
        if not self.is_linear:
            return coordinates
        mean, basis = self._frame(coordinates)
        return mean + coordinates @ basis

    def _frame(self, like: Tensor) -> tuple[Tensor, Tensor]:
        form = self._form(like.dtype)
        return form.mean.to(like.device), form.basis.to(like.device)

    def _form(self, dtype: torch.dtype) -> InferenceForm:
        """The network in this type, made at its first use: a decoder never needs but one."""
        if dtype not in self._forms:
            self._forms[dtype] = copy.deepcopy(self._forms[torch.float64]).to(dtype)
        return self._forms[dtype]
