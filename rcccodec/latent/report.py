"""What a picture's file cost, where its bits went, and what it kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class LatentReport:
    """Costs counted from the file, quality measured on the decoded images.

    file_bytes, payload_bits: counted from the file. bpp: whole-file bits a pixel.
    psnr_db: over all pixels and channels; None if nothing was lost.
    class_bits, dimension_bits, framing_bits: of the file: side information, what is sent through the
    channel, and all else (header, lengths, checksums).
    divergence_bits: of the posteriors from the priors that the classes name: its least cost.
    expected_bits: the same by the model's tables.
    positions: 16x16 pixels each. coder, log2_num_candidates: of a trellis, L.
    encode_s: seconds, without loading the model. model, rung, beta: its name, number and value of the slope.
    """

    file_bytes: int
    payload_bits: int
    bpp: float
    psnr_db: float | None
    class_bits: int
    dimension_bits: int
    framing_bits: int
    divergence_bits: float
    expected_bits: float
    positions: int
    coder: str
    log2_num_candidates: float
    encode_s: float
    model: str
    rung: int
    beta: float

    @property
    def saturated(self) -> bool:
        """Never: chunks are cut to what N allows, and a trellis has as many candidates as its bits allow."""
        return False

    def as_json(self) -> dict[str, float | int | str | None]:
        """The documented keys of ``rcc compress --json``, in order."""
        return asdict(self)


def psnr_db(sources: Sequence[np.ndarray], decoded: Sequence[np.ndarray]) -> float | None:
    """Over all pixels and channels of uint8 images; None if they are equal."""
    error = sum(
        float(np.square(x.astype(np.float64) - y).sum()) for x, y in zip(sources, decoded, strict=True)
    )
    mean_error = error / sum(x.size for x in sources)
    return 10 * math.log10(255**2 / mean_error) if mean_error else None
