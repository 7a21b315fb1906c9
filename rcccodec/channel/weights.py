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
from rcccodec.threads import one_thread

Coder = Literal["pfr", "orc"]

_ARRIVALS_PER_PASS = 1 << 16


class LogWeights:
    """ln W_i of any range of candidates: ``weights(start, stop)`` -> float64 (stop - start,), on the CPU.

    PFR: ``W_i = sum_{j<=i} X_j``. ORC: ``W_i = sum_{j<=i} N / (N - j + 1) X_j``. X_j ~ Exp(1), j, i from 1.

    Args:
        coder: "pfr" or "orc".
        num_candidates: N; PFR's weights do not depend on it.
        seed: unsigned 64-bit.
        stage: arrival times come from stream ``ARRIVAL_STREAM + stage``.

    The running sum is kept where the last range ended: ranges asked for in order cost each arrival once, a
    range further on costs the arrivals between, an earlier one all from the first.

    Invariants: nondecreasing; all finite; bit-identical whatever ranges were asked for before, and for any
    number of threads.
    """

    def __init__(self, coder: Coder, num_candidates: int, *, seed: int, stage: int = 0) -> None:
        if coder not in ("pfr", "orc"):
            raise ValueError(f"coder must be 'pfr' or 'orc', got {coder!r}")
        self.coder, self.num_candidates, self.seed, self.stage = coder, num_candidates, seed, stage
        self._reached, self._total = 0, 0.0

    @one_thread()
    def __call__(self, start: int, stop: int) -> Tensor:
        if start < self._reached:
            self._reached, self._total = 0, 0.0
        while self._reached < start:
            self._arrivals(min(start - self._reached, _ARRIVALS_PER_PASS))
        return torch.log(self._arrivals(stop - start))

    def _arrivals(self, count: int) -> Tensor:
        if count <= 0:
            return torch.empty(0, dtype=torch.float64)
        gaps = exponentials(self.seed, self._reached, count, ARRIVAL_STREAM + self.stage)
        if self.coder == "orc":
            left = self.num_candidates - self._reached
            gaps *= self.num_candidates / torch.arange(left, left - count, -1, dtype=torch.float64)
        gaps[0] += self._total  # so that the running sum adds in the same order whatever the ranges
        arrivals = torch.cumsum(gaps, dim=0)
        self._reached, self._total = self._reached + count, float(arrivals[-1])
        return arrivals


def log_weights(
    coder: Coder, num_candidates: int, *, seed: int, stage: int = 0, chunk: int = 4096
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(start, ln W_start .. )`` of :class:`LogWeights` in chunks, in order, in constant memory."""
    weights = LogWeights(coder, num_candidates, seed=seed, stage=stage)
    for start in range(0, num_candidates, chunk):
        yield start, weights(start, min(start + chunk, num_candidates))
