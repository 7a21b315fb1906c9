"""The record between the two halves of a search: which candidates of a range may be the best.

    range of candidates -> Nominees --\\
    range of candidates -> Nominees ---> merge -> decide
    range of candidates -> Nominees --/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


class NoCandidate(ValueError):
    """Some block has no candidate of finite score: the proposal's values are not finite, or far too large."""


@dataclass(frozen=True)
class Nominees:
    """Of one target and some candidates, those whose exact score may be the lowest of their block.

    rows, columns: int64 (n,), block and candidate. scores, errors: float64 (n,), nats; the exact score is
    within ``errors`` of ``scores``. offsets: float64 (n,), the exact offset of the candidate.
    ceilings: float64 (B,), no less than the exact score of the block's best candidate, +inf if it has none.
    last: the highest of the offsets where they rise, -inf before the first.

    Invariants: the best candidate of every block is among them; nominees of several ranges, merged in any
    order, decide as those of the whole. All tensors are on the CPU.
    """

    rows: Tensor
    columns: Tensor
    scores: Tensor
    errors: Tensor
    offsets: Tensor
    ceilings: Tensor
    last: float

    @staticmethod
    def none(num_blocks: int) -> Nominees:
        """Of no candidates at all."""
        index, value = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        ceilings = torch.full((num_blocks,), torch.inf, dtype=torch.float64)
        return Nominees(index, index, value, value, value, ceilings, -torch.inf)

    def taken(self, which: Tensor) -> Nominees:
        """Only the entries ``which``, bool (n,) or int64 positions."""
        parts = (part[which] for part in (self.rows, self.columns, self.scores, self.errors, self.offsets))
        return Nominees(*parts, self.ceilings, self.last)

    def pruned(self) -> Nominees:
        """Without those that cannot win."""
        return self.taken(self.scores - self.errors <= self.ceilings[self.rows])


def merge(parts: list[Nominees]) -> Nominees:
    """Nominees of all the candidates of ``parts``, which are of one target and share no candidate.

    Raises:
        ValueError: no parts, or of different numbers of blocks.
    """
    if len({part.ceilings.shape for part in parts}) != 1:
        raise ValueError("nominees to merge must be of the same blocks")
    names = ("rows", "columns", "scores", "errors", "offsets")
    joined = (torch.cat([getattr(part, name) for part in parts]) for name in names)
    ceilings = reduce(torch.minimum, (part.ceilings for part in parts))
    return Nominees(*joined, ceilings, max(part.last for part in parts)).pruned()


def lowest(rows: Tensor, columns: Tensor, scores: Tensor, num_blocks: int) -> Tensor:
    """Positions of the smallest score of every row, (num_blocks,); lowest column at ties.

    Raises:
        NoCandidate: some row has no entry.
    """
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(scores[order], stable=True)]
    order = order[torch.argsort(rows[order], stable=True)]
    first = torch.ones(order.numel(), dtype=torch.bool)
    first[1:] = rows[order][1:] != rows[order][:-1]
    if int(first.sum()) != num_blocks:
        raise NoCandidate("some block has no candidate of finite score")
    return order[first]
