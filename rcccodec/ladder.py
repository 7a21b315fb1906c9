"""Which rung of a model's ladder: by slope, by quality, by a target that real encodes must meet."""

import math
from collections.abc import Callable, Sequence

from rcccodec.codec import Encoded
from rcccodec.errors import LimitError

Encode = Callable[[int], Encoded]  # compress at this rung


def rungs_by_rate(rates_bpp: Sequence[float]) -> list[int]:
    """Rung numbers from the cheapest to the best, by the model's own rates."""
    return sorted(range(len(rates_bpp)), key=lambda rung: rates_bpp[rung])


def rung_of_slope(betas: Sequence[float], beta: float) -> int:
    """The rung whose last slope is nearest to ``beta`` in ratio; of two the lower, of equal ones the last.

    Raises:
        LimitError: ``beta`` is not a positive number.
    """
    if not (beta > 0 and math.isfinite(beta)):
        raise LimitError(f"beta {beta:g}: must be a positive number")
    return min(range(len(betas)), key=lambda rung: (abs(math.log(betas[rung] / beta)), betas[rung], -rung))


def rung_of_quality(rates_bpp: Sequence[float], quality: float) -> int:
    """The rung at ``quality`` percent of the way from the cheapest (0) to the best (100).

    Raises:
        LimitError: ``quality`` is not within 0 to 100.
    """
    if not 0 <= quality <= 100:
        raise LimitError(f"quality {quality:g}: must be 0 to 100")
    return rungs_by_rate(rates_bpp)[math.floor(quality / 100 * (len(rates_bpp) - 1) + 0.5)]


def encode_to_bits(encode: Encode, rates_bpp: Sequence[float], target_bits: int) -> Encoded:
    """The highest rung whose whole file has at most ``target_bits`` bits, tried from the best downwards.

    Raises:
        LimitError: not even the cheapest rung is small enough; the message says how small it gets.
    """
    smallest = math.inf
    for rung in reversed(rungs_by_rate(rates_bpp)):
        encoded = encode(rung)
        if 8 * encoded.report.file_bytes <= target_bits:
            return encoded
        smallest = min(smallest, 8 * encoded.report.file_bytes)
    raise LimitError(f"target of {target_bits} bits: the smallest file this model makes of it has {smallest}")


def encode_to_psnr(encode: Encode, rates_bpp: Sequence[float], target_psnr_db: float) -> Encoded:
    """The cheapest rung that reaches ``target_psnr_db``, tried from the cheapest upwards.

    Raises:
        LimitError: not even the best rung reaches it; the message says how far it gets.
    """
    best_db = -math.inf
    for rung in rungs_by_rate(rates_bpp):
        encoded = encode(rung)
        reached_db = math.inf if encoded.report.psnr_db is None else encoded.report.psnr_db
        if reached_db >= target_psnr_db:
            return encoded
        best_db = max(best_db, reached_db)
    raise LimitError(
        f"target of {target_psnr_db:g} dB: the best this model reaches on it is {best_db:.2f} dB"
    )
