"""What a processor can do at most, and what a generator asks of it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31}


def seconds(
    work: Callable[[], Any], device: str, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of ``repeats`` calls after a first one that is not counted, the device waited for."""
    taken = []
    for _ in range(repeats + 1):
        began = clock()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(clock() - began)
    return taken[1:]


def spread(taken: list[float]) -> dict[str, Any]:
    """Median, least, most and number of repeats, seconds."""
    return {"s": statistics.median(taken), "s_min": min(taken), "s_max": max(taken), "repeats": len(taken)}


def peak_rates(device: str, repeats: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Multiply-adds counted twice: FLOP/s of square matrix products by precision; bytes/s of a copy.

    On a GPU ``tf32`` is float32 with its inputs rounded, and ``float32`` is without that.
    """
    kind = "cuda" if device.startswith("cuda") else "cpu"
    side = _MATRIX_SIDE[kind]
    rates = {}
    before = torch.backends.cuda.matmul.allow_tf32
    for name in ("float32", "bfloat16", "float64") + (("tf32",) if kind == "cuda" else ()):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        best = min(seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, repeats, clock))
        rates[f"{name}_flops"] = 2 * side**3 / best
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.zeros(_COPIED_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(seconds(lambda: target.copy_(source), device, repeats, clock))
    rates["copy_bytes_per_s"] = 2 * len(source) / best
    return rates


def flops_per_candidate(network: nn.Module, latent_dim: int) -> int:
    """Twice the multiply-adds of the layers, products with padding or of cropped outputs left out."""
    counted = []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = layer.weight.numel()
        if isinstance(layer, nn.Linear):
            counted.append(weights)
            return
        up = isinstance(layer, nn.ConvTranspose2d)
        small, large = (inputs[0], output) if up else (output, inputs[0])
        pairs = 1
        for axis in (0, 1):
            kernel, stride, margin = (p[axis] for p in (layer.kernel_size, layer.stride, layer.padding))
            steps = range(small.shape[2 + axis])
            reached = [stride * i + k - margin for i in steps for k in range(kernel)]
            pairs *= sum(0 <= at < large.shape[2 + axis] for at in reached)
        counted.append(weights // (layer.kernel_size[0] * layer.kernel_size[1]) * pairs)

    kinds = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, kinds)]
    like = next(network.parameters())
    with torch.no_grad():
        network(torch.zeros(1, latent_dim, dtype=like.dtype, device=like.device))
    for hook in hooks:
        hook.remove()
    return 2 * sum(counted)
