"""Proposals Q_Y: things that turn common randomness into candidates."""

from typing import Protocol

from torch import Tensor


class Proposal(Protocol):
    """A sampler of Q_Y whose draws are a function of standard-normal latents.

    Invariant: row j of the result depends on row j of ``z`` only, so any candidate can be made alone.
    """

    @property
    def dim(self) -> int:
        """Length of one flattened candidate."""

    @property
    def latent_dim(self) -> int:
        """Number of standard normals a candidate consumes."""

    def candidates(self, z: Tensor) -> Tensor:
        """Map latents (n, latent_dim) to candidates (n, dim) of the same dtype and device."""
