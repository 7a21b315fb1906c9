"""Standard errors of means, None where one value says nothing about its spread."""

import math
from collections.abc import Sequence

import numpy as np


def standard_error(values: Sequence[float] | np.ndarray) -> float | None:
    """Standard error of the mean of independent ``values``."""
    count = len(values)
    return float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else None
