"""One answer of any estimator of R(D): a point, or a line that the curve lies above."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from rcccodec.report import SATURATION_BITS

Kind = Literal["upper", "lower", "exact", "estimate"]


@dataclass(frozen=True)
class RatePoint:
    """What an estimator found at slope beta, in bits a source vector (image, block, sequence).

    ``kind`` says how it stands to R(D):

        exact     (D, R) is on the curve
        upper     (D, R) is on or above it, up to the standard errors
        lower     R(D) >= lagrangian - beta D / ln 2 for every D; (D, R) itself may be NaN
        estimate  neither is promised

    Attributes:
        method: the estimator's name.
        beta: -dR/dD, nats per unit of distortion.
        rate_bits, distortion: of the point; distortion as the problem measures it.
        lagrangian_bits: R + beta D / ln 2.
        rate_se_bits, distortion_se, lagrangian_se_bits: standard errors over data, or NaN.
        lagrangian_se_samples_bits: over repetitions with fresh samples (codebooks, chains); or NaN.
        num_blocks: source vectors it was measured on, none of them trained on; 0 if none were needed.
        num_repeats: repetitions with fresh samples.
        num_samples: N of a codebook, particles, chains, k of a dual bound; 0 if there is no such number.
        saturated: the number of samples is too small for the rate to be trusted (see the method).
        seconds: it took, training included.
        details: what else the method can say, by name with units (``gap_bits``, ``acceptance``).
    """

    method: str
    kind: Kind
    beta: float
    rate_bits: float
    distortion: float
    lagrangian_bits: float
    rate_se_bits: float = math.nan
    distortion_se: float = math.nan
    lagrangian_se_bits: float = math.nan
    lagrangian_se_samples_bits: float = math.nan
    num_blocks: int = 0
    num_repeats: int = 1
    num_samples: int = 0
    saturated: bool = False
    seconds: float = 0.0
    details: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is null."""
        values = asdict(self) | {"details": {k: _finite(v) for k, v in self.details.items()}}
        return {k: _finite(v) for k, v in values.items()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RatePoint:
        """The inverse of `as_json`; null is NaN.

        Raises:
            TypeError: unknown or missing fields.
        """
        details = {k: math.nan if v is None else v for k, v in values.get("details", {}).items()}
        return RatePoint(
            **{k: math.nan if v is None else v for k, v in values.items()} | {"details": details}
        )


def is_saturated(num_samples: int, rate_bits: float) -> bool:
    """log2 N - R < 3 bits: an estimate from N samples cannot exceed log2 N (nerd-rcc III-A)."""
    return math.log2(num_samples) - rate_bits < SATURATION_BITS


def standard_error(values: Tensor) -> float:
    """Standard deviation / sqrt(n) of values (n,); NaN for one."""
    return float(values.double().std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def upper_point(
    method: str,
    beta: float,
    lagrangian_nats: Tensor,
    distortion: Tensor,
    *,
    num_samples: int,
    saturated: bool | None = None,
    seconds: float = 0.0,
    details: Mapping[str, float] | None = None,
    kind: Kind = "upper",
) -> RatePoint:
    """The record of per-vector values of repetitions.

    Args:
        lagrangian_nats, distortion: float64 (repeats, B) or (B,); R = lagrangian - beta D vector by vector.
        saturated: `is_saturated` if None.
    """
    lagrangian, d = (x.double().reshape(-1, x.shape[-1]) for x in (lagrangian_nats, distortion))
    rate, ln2 = lagrangian - beta * d, math.log(2)
    rate_bits = float(rate.mean()) / ln2
    return RatePoint(
        method=method,
        kind=kind,
        beta=beta,
        rate_bits=rate_bits,
        distortion=float(d.mean()),
        lagrangian_bits=float(lagrangian.mean()) / ln2,
        rate_se_bits=standard_error(rate.mean(0)) / ln2,
        distortion_se=standard_error(d.mean(0)),
        lagrangian_se_bits=standard_error(lagrangian.mean(0)) / ln2,
        lagrangian_se_samples_bits=standard_error(lagrangian.mean(1)) / ln2,
        num_blocks=lagrangian.shape[1],
        num_repeats=lagrangian.shape[0],
        num_samples=num_samples,
        saturated=is_saturated(num_samples, rate_bits) if saturated is None else saturated,
        seconds=seconds,
        details=details or {},
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
