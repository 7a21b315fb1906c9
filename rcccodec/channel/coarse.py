"""How far candidates in reduced precision mislead: measured on the job itself, then allowed for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rcccodec.proposals import Proposal
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.proposals.joint import JointProposal
from rcccodec.proposals.precision import coarse_dtype

CALIBRATION_ROWS, CALIBRATION_COLUMNS = 512, 256
SAFETY = 2.0  # times the largest error seen in the calibration
SUSPECT = 0.75  # an error above this share of what was allowed for means that the calibration was too kind


class CalibrationError(Exception):
    """A coarse score was further off than is compatible with the calibration."""


@dataclass(frozen=True)
class CoarseError:
    """``|d' - d| <= reach (sqrt(min(d, d')) + reach)``, d' the squared distance to a coarse candidate.

    d' - d = 2 <x - y, y - y'> + |y - y'|^2, so the error goes with the distance; ``reach`` would be twice
    |y - y'| if that always pointed at the block, and is far less because it does not. 0: not coarse.
    """

    reach: float

    def of_distance(self, distance: Tensor) -> Tensor:
        """Bound on the error of squared distances, where either of d and d' is ``distance`` or less."""
        return self.reach * (distance.clamp_min(0.0).sqrt() + self.reach)


EXACT = CoarseError(0.0)


def calibrate(x: Tensor, coarse: Tensor, fine: Tensor) -> CoarseError:
    """From blocks x (B, dim) and the same candidates (n, dim) in both precisions, all in one frame."""
    x = x[:: -(-len(x) // CALIBRATION_ROWS)].to(torch.float64)
    far, near = (
        x.square().sum(1)[:, None] - 2 * x @ y.double().T + y.double().square().sum(1) for y in (coarse, fine)
    )
    lesser = torch.minimum(far, near).clamp_min(0.0)
    # the least reach with |d' - d| <= reach sqrt(d) + reach^2
    reach = (lesser + 4 * (far - near).abs()).sqrt() / 2 - lesser.sqrt() / 2
    return CoarseError(SAFETY * float(reach.max()))


def coarse_precision(proposal: Proposal, device: torch.device) -> torch.dtype:
    """The type in which a first pass over the candidates is fastest; else float32."""
    return coarse_dtype(device) if isinstance(proposal, GeneratorProposal | JointProposal) else torch.float32
