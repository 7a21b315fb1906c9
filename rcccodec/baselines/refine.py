"""An encoder that looks for better latents than the rounded ones; the decoder is the same.

Coordinate descent on R + beta D: each latent in turn tries its two neighbours, for all codes at once. The
one-shot codes of the literature do without; the option is there so that a competitor that searches, as the
codec does, can be compared with it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rcccodec.baselines.block import BlockNtc
from rcccodec.baselines.ntc import Ntc, VectorNtc
from rcccodec.baselines.tables import Symbols, Tables


@torch.no_grad()
def refine(
    network: Ntc | BlockNtc | VectorNtc, tables: Tables, x: Tensor, symbols: Symbols, slope: int, passes: int
) -> Symbols:
    """Latents of codes x (n, dim) with R + beta D no higher than those of ``symbols`` (n, latent_dim).

    Args:
        tables: of the latents. slope: its number. passes: over all latents; ends early when nothing changes.

    Invariant: a code's Lagrangian, in ideal code lengths, never rises.
    """
    dim = network.spec.latent_dim
    beta = network.spec.betas[slope]
    slopes = torch.full((len(x),), slope)
    rows = np.arange(slope * dim, (slope + 1) * dim, dtype=np.int32)
    best = symbols.copy()

    def distortion(y: Symbols) -> np.ndarray:
        made = network.synthesis(torch.from_numpy(y).float(), slopes)
        return (x - made).square().sum(1).double().numpy()

    distortions = distortion(best)
    for _ in range(passes):
        changed = False
        for j in range(dim):
            row = np.full(len(x), rows[j])
            if (best[:, j] == best[0, j]).all() and tables.bits(best[:, j], row).max() < 0.01:
                continue  # a latent that nobody uses
            for step in (-1, 1):
                trial = best.copy()
                trial[:, j] += step
                saved_bits = tables.bits(best[:, j], row) - tables.bits(trial[:, j], row)
                trial_distortions = distortion(trial)
                better = saved_bits * math.log(2) + beta * (distortions - trial_distortions) > 1e-9
                best[better] = trial[better]
                distortions[better] = trial_distortions[better]
                changed |= bool(better.any())
        if not changed:
            break
    return best
