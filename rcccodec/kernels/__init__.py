"""Triton kernels, for CUDA devices where Triton is installed; everything also exists in plain torch.

usable              whether the kernels of a device are to be used; the one place that chooses
launching_on        the device that a launch goes to
latents             `rcccodec.randomness.standard_normals`
arrivals            `rcccodec.randomness.exponentials`
gaussian_search     the search over the exact Gaussian proposal

Nothing here imports Triton but the modules of kernels themselves, which are imported where they are called.
"""

import importlib.util
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch


def usable(device: torch.device) -> bool:
    """True on CUDA where Triton is installed and its latents are, bit for bit, those of plain torch.

    ``RCC_KERNELS=0`` in the environment turns all kernels off.
    """
    return device.type == "cuda" and os.environ.get("RCC_KERNELS") != "0" and _passes(str(device))


def launching_on(device: str | torch.device) -> AbstractContextManager[None]:
    """Within it kernels go to this device; Triton itself looks at the current one, not at its arguments."""
    place = torch.device(device)
    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()


@lru_cache(maxsize=8)
def _passes(device: str) -> bool:
    """Compare some latents once a process: a compiler that errs must not change the common randomness."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from rcccodec.kernels.latents import normals
        from rcccodec.randomness import plain_normals  # which imports this module

        k = torch.cat([torch.arange(first, first + 50, device=device) for first in (0, (1 << 32) - 25)])
        seed, dim, stream = (1 << 63) + 5, 27, 3
        if torch.equal(normals(seed, k, dim, stream), plain_normals(seed, k, dim, stream)):
            return True
        cause = "its latents differ"
    except Exception as error:  # of the compiler, the driver or the device: plain torch may still work
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"Triton's kernels are not used on {device}: {cause}", RuntimeWarning, stacklevel=3)
    return False
