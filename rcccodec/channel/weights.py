"""Weights W_i of Poisson functional representation and ordered random coding (NERD-RCC eq. 28).

One set of arrival times serves all blocks of a job, as one codebook does. Seen over a random seed, each block
still gets a sample of its channel and the rate guarantee; within one job the blocks share the seed's luck, so
their choices are not independent given the sources and an average over blocks does not average that luck out.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from rcccodec.randomness import ARRIVAL_STREAM, exponentials

Coder = Literal["pfr", "orc"]


def log_weights(
    coder: Coder, num_candidates: int, *, seed: int, stage: int = 0, chunk: int = 4096
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(start, ln W_start .. )`` in chunks, in order, in constant memory.

    PFR: ``W_i = sum_{j<=i} X_j``. ORC: ``W_i = sum_{j<=i} N / (N - j + 1) X_j``. X_j ~ Exp(1), j, i from 1.

    Args:
        coder: "pfr" or "orc".
        num_candidates: N; PFR's weights do not depend on it, it only ends the stream.
        seed: unsigned 64-bit.
        stage: arrival times come from stream ``ARRIVAL_STREAM + stage``.
        chunk: candidates a step.

    Yields:
        start: 0-based index of the first weight; float64 (n,) natural logs, nondecreasing, on the CPU.

    Invariants: bit-identical for every chunk; all finite.
    """
    if coder not in ("pfr", "orc"):
        raise ValueError(f"coder must be 'pfr' or 'orc', got {coder!r}")
    total = 0.0
    for start in range(0, num_candidates, chunk):
        count = min(chunk, num_candidates - start)
        gaps = exponentials(seed, start, count, ARRIVAL_STREAM + stage)
        if coder == "orc":
            remaining = torch.arange(
                num_candidates - start, num_candidates - start - count, -1, dtype=torch.float64
            )
            gaps *= num_candidates / remaining
        gaps[0] += total  # so that the running sum adds in the same order whatever the chunk
        arrivals = torch.cumsum(gaps, dim=0)
        total = float(arrivals[-1])
        yield start, torch.log(arrivals)
