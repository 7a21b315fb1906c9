"""Several blocks as one: candidates of a product law Q_Y^g, which one index chooses together."""

from __future__ import annotations

from torch import Tensor

from rcccodec.proposals.generator import GeneratorProposal


class JointProposal:
    """``size`` independent draws of a proposal, end to end, as one candidate.

    Candidate k's draw number p comes from its latents p L .. (p + 1) L - 1, L those of one draw; draw 0 is
    candidate k of the proposal itself. The squared error of ``size`` blocks, laid end to end, is the sum of
    theirs, so a search over this proposal simulates the product of their channels.

    Invariant: row j of ``candidates`` depends on row j of ``z`` only.
    """

    def __init__(self, one: GeneratorProposal, size: int) -> None:
        self.one, self.size = one, size
        self.dim, self.latent_dim = size * one.dim, size * one.latent_dim

    def candidates(self, z: Tensor) -> Tensor:
        """Coordinates (n, size * dim) for latents z (n, size * L)."""
        return self.one.candidates(z.reshape(-1, self.one.latent_dim)).reshape(len(z), -1)
