"""Which precision makes a first, coarse pass over candidates fastest: a property of the processor."""

from __future__ import annotations

import torch


def coarse_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """torch.bfloat16 where the processor multiplies matrices in it (on GPUs from Ampere on, on x86 with
    AVX512-BF16 or AMX), else torch.float32: bfloat16 would be emulated there, and slower."""
    place = torch.device(device)
    if place.type == "cuda":
        fast = torch.cuda.get_device_capability(place)[0] >= 8
    elif place.type == "cpu" and torch.backends.mkldnn.is_available():
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: may be gone one day
        fast = any(getattr(torch.cpu, ask, bool)() for ask in asks)
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
