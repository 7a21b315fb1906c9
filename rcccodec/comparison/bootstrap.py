"""Bootstrap intervals over images: every codec of a comparison is resampled with the same images."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
LEAST_IMAGES = 5  # below it an interval says nothing


def resampled_shares(num_images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray | None:
    """Shares of the images in each resample, (resamples, n), rows sum to 1; None below five images."""
    if num_images < LEAST_IMAGES:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    equal = np.full(num_images, 1 / num_images)
    return generator.multinomial(num_images, equal, size=resamples) / num_images


def interval95(values: np.ndarray) -> list[float]:
    """2.5 and 97.5 percent points of (resamples,)."""
    return [float(v) for v in np.percentile(values, (2.5, 97.5))]


def interval_of(
    shares: np.ndarray | None, statistic: Callable[[np.ndarray], np.ndarray]
) -> list[float] | None:
    """The interval of a function of shares (resamples, n) -> (resamples,); None where there are no shares."""
    return None if shares is None else interval95(statistic(shares))
