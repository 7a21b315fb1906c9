"""What a compressed file cost and what it kept, beside what theory says of its model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

SATURATION_BITS = 3.0  # a search of N candidates follows the channel only if log2 N exceeds R by about this


@dataclass(frozen=True)
class Report:
    """Costs counted from the file, quality measured on the decoded images.

    A "block" here is one block of one stage; where N allows it, several share an index.

    file_bytes, payload_bits: counted from the file. bpp: whole-file bits a pixel.
    psnr_db: over all pixels and channels; None if nothing was lost.
    distortion: summed squared error a block, pixels in [0, 1], of the decoded 8-bit image.
    rate_bits_per_block: payload bits a block.
    rd_estimate_bits: the model's held-out rate R, mean over the blocks.
    guarantee_bits: mean of R + log2(R + 1) + 5 (NERD-RCC eq. 25), of an index, shared among its blocks. It
    bounds an expectation over random seeds, for blocks like those of training, coded with an exact channel
    simulation; not every file.
    certified_fraction: share of blocks whose PFR choice no further candidate can change, None for others.
    encode_s: seconds, without loading the model.
    model: its name. beta: slope of the rung, nats per unit of squared error.
    margin_bits: least log2 N - R of an index over the stages.
    """

    file_bytes: int
    payload_bits: int
    bpp: float
    psnr_db: float | None
    distortion: float
    blocks: int
    rate_bits_per_block: float
    rd_estimate_bits: float
    guarantee_bits: float
    certified_fraction: float | None
    log2_num_candidates: float
    encode_s: float
    model: str
    rung: int
    beta: float
    margin_bits: float

    @property
    def saturated(self) -> bool:
        """Whether N is too small for the rate (design: log2 N - R < 3 bits)."""
        return self.margin_bits < SATURATION_BITS

    def as_json(self) -> dict[str, float | int | str | None]:
        """The documented keys of ``rcc compress --json``, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)[:15]}


def guarantee_bits(rate_bits: float) -> float:
    """Expected bits an index costs at most at rate R, R + log2(R + 1) + 5 (NERD-RCC eq. 25)."""
    return rate_bits + math.log2(rate_bits + 1) + 5


def measure(
    *,
    file_bytes: int,
    payload_bytes: int,
    sources: Sequence[np.ndarray],
    decoded: Sequence[np.ndarray],
    indices: Sequence[tuple[int, int, float]],
    num_candidates: int,
    certified_fraction: float | None,
    encode_s: float,
    model: str,
    rung: int,
    beta: float,
) -> Report:
    """Fill in a Report from uint8 images and what they decode to.

    Args:
        sources, decoded: uint8, pairwise of one shape.
        indices: all that are sent, as (how many, blocks an index, R of such an index in bits).
        others: as in `Report`.
    """
    sent = [(count, size, rate) for count, size, rate in indices if count]
    blocks = sum(count * size for count, size, _ in sent)
    error = sum(
        float(np.square(x.astype(np.float64) - y).sum()) for x, y in zip(sources, decoded, strict=True)
    )
    mean_error = error / sum(x.size for x in sources)
    return Report(
        file_bytes=file_bytes,
        payload_bits=8 * payload_bytes,
        bpp=8 * file_bytes / sum(x.shape[0] * x.shape[1] for x in sources),
        psnr_db=10 * math.log10(255**2 / mean_error) if mean_error else None,
        distortion=error / 255**2 / blocks,
        blocks=blocks,
        rate_bits_per_block=8 * payload_bytes / blocks,
        rd_estimate_bits=sum(count * rate for count, _, rate in sent) / blocks,
        guarantee_bits=sum(count * guarantee_bits(rate) for count, _, rate in sent) / blocks,
        certified_fraction=certified_fraction,
        log2_num_candidates=math.log2(num_candidates),
        encode_s=encode_s,
        model=model,
        rung=rung,
        beta=beta,
        margin_bits=math.log2(num_candidates) - max(rate for _, _, rate in sent),
    )
