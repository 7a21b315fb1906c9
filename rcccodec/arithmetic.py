"""Which arithmetic float32 means while a search runs.

Torch lets cuDNN round the inputs of float32 convolutions to ten bits of mantissa (TF32) unless it is told
otherwise, and a caller may have allowed the like for matrix products, or autocast. A search counts on errors
of 2^-18.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_SWITCHES = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
)
_lock = Lock()
_before: list[str] = []  # the caller's settings, while any search runs
_running = 0


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products are float32 inside, whatever the caller has allowed; his settings come back after.

    The settings are the process's: searches on several threads count as one.
    """
    global _running
    with _lock:
        if not _running:
            _before[:] = [switch.fp32_precision for switch in _SWITCHES]
            for switch in _SWITCHES:
                switch.fp32_precision = "ieee"
        _running += 1
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                for switch, value in zip(_SWITCHES, _before, strict=True):
                    switch.fp32_precision = value
