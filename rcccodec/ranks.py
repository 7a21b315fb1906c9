"""Processes that ``torchrun`` started: which of them this one is, and what they do together.

search:    every rank nominates from its range of the candidates; all get all nominees and decide alike
training:  every rank draws its own batch; gradients are averaged, so the networks stay the same
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

WAIT_S = 1800  # for the slowest rank
_STREAM_STEP = 0x9E3779B97F4A7C15  # odd: ranks never share a seed


@dataclass(frozen=True)
class Ranks:
    """``size`` processes, of which this is number ``rank``; one that is alone talks to nobody.

    All ranks must call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """This rank's range of 0 .. count - 1: its first and the next rank's first."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def stream_seed(self, seed: int) -> int:
        """A seed of its own for every rank, in [0, 2^63); the first keeps ``seed``."""
        return (seed + self.rank * _STREAM_STEP) % (1 << 63) if self.rank else seed

    def gather(self, value: Value) -> list[Value]:
        """What all ranks gave, in their order."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first_of(self, value: Value | None) -> Value:
        """What the first rank gave."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        import torch.distributed as dist

        values = [value if self.is_first else None]
        dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set."""
        return flag if self.size == 1 else bool(self._sum(torch.tensor([float(flag)]))[0] > 0)

    def mean(self, *values: float) -> tuple[float, ...]:
        """Means over the ranks; not finite as soon as one is not."""
        if self.size == 1:
            return values
        return tuple((self._sum(torch.tensor(values, dtype=torch.float64)) / self.size).tolist())

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks; one that a rank lacks counts as zero there."""
        if self.size == 1:
            return
        parameters = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        absent = self._sum(torch.tensor([float(p.grad is None) for p in parameters])).tolist()
        flat = self._sum(torch.cat([grad.flatten() for grad in grads])) / self.size
        pieces = flat.split([grad.numel() for grad in grads])
        for p, missing, piece in zip(parameters, absent, pieces, strict=True):
            if missing < self.size:
                p.grad = piece.view_as(p)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first rank's."""
        if self.size > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    @staticmethod
    def _sum(tensor: Tensor) -> Tensor:
        import torch.distributed as dist

        dist.all_reduce(tensor)
        return tensor


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun's environment speaks of, connected; one alone where there is none.

    Every rank takes the GPU of its local number, where there are any.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(seconds=WAIT_S))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


ALONE = Ranks()
_SEARCHING: ContextVar[Ranks] = ContextVar("ranks that share a search", default=ALONE)


@contextmanager
def shared_search(ranks: Ranks) -> Iterator[None]:
    """Searches inside are shared by ``ranks``, all of which must make the same ones."""
    token = _SEARCHING.set(ranks)
    try:
        yield
    finally:
        _SEARCHING.reset(token)


def searching() -> Ranks:
    """The ranks that share searches here."""
    return _SEARCHING.get()
