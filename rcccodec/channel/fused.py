"""Nominees of Gaussian candidates from the fused kernel: no candidate is ever in memory.

    chunk of candidates --> winner and runner-up of every block (rcccodec.kernels.gaussian_search)
    runner-up too near the best of all?  yes: that chunk again in plain torch, for those blocks
                                         no:  the winner is the chunk's only nominee

Nothing waits for the device before the last chunk is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rcccodec import kernels
from rcccodec.channel.distances import chunk_candidates, default_chunk
from rcccodec.channel.nominees import Nominees, merge
from rcccodec.channel.remake import winners
from rcccodec.channel.running import Running
from rcccodec.channel.target import Target, offsets_of
from rcccodec.channel.weights import LogWeights
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import ARRIVAL_STREAM

CHUNK = 1 << 20
_ULP = 2.0**-24  # half a unit in the last place of float32, relative

Plain = Callable[[Target, int, int], Nominees]  # (target, start, stop)


def applies(targets: Sequence[Target], device: torch.device) -> bool:
    """Whether :func:`nominate` can take these targets on this device."""
    exact = all(type(target.proposal) is GaussianProposal for target in targets)
    return exact and all(len(target.x) for target in targets) and kernels.usable(device)


def nominate_all(
    targets: Sequence[Target],
    start: int,
    stop: int,
    seed: int,
    stage: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> list[Nominees]:
    """One target after the other: the kernel makes their candidates as it goes, and keeps none."""

    def plain(target: Target, first: int, end: int) -> Nominees:
        found = Running(target, device, partial(winners, seed=seed, stage=stage, device=device))
        for low in range(first, end, default_chunk(device)):
            count = min(default_chunk(device), end - low)
            found.look(low, chunk_candidates(target.proposal, low, count, seed, stage, device))
        return found.nominees

    nominees = []
    for number, target in enumerate(targets):
        told = None if progress is None else partial(_tell, progress, number, len(targets), stop - start)
        nominees.append(
            nominate(target, start, stop, plain, seed=seed, stage=stage, device=device, progress=told)
        )
    return nominees


def _tell(progress: Callable[[int, int], None], number: int, targets: int, count: int, done: int) -> None:
    progress(number * count + done, targets * count)


def nominate(
    target: Target,
    start: int,
    stop: int,
    plain: Plain,
    *,
    seed: int,
    stage: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
    chunk: int = CHUNK,
) -> Nominees:
    """The candidates start .. stop - 1 that may be the best of a target whose proposal is Gaussian.

    Args:
        plain: the same in plain torch, for blocks whose best candidates are near each other.
        progress: told the number of candidates under way.
        others: as in :func:`rcccodec.channel.search.nominate`; ``device`` runs kernels.

    Returns:
        Nominees; ln W_i differs from that of :class:`LogWeights` in the last bits, as between machines.
    """
    from rcccodec.kernels.gaussian_search import GaussianScores, search_range

    beta, proposal = target.beta, target.proposal
    assert isinstance(proposal, GaussianProposal)
    of_blocks = GaussianScores.of(target.x, proposal, beta, device)
    offsets = _DeviceOffsets(target, device)
    found, last = [], torch.full((), -torch.inf, dtype=torch.float64)
    for first in range(start, stop, chunk):
        end = min(first + chunk, stop)
        offset = offsets(first, end)
        won = search_range(of_blocks, offset.to(torch.float32), start=first, seed=seed, stream=stage)
        exact = offset[(won.indices - first).clamp_min(0)]
        found.append((won.scores.double(), won.runners_up.double(), won.indices, exact))
        last = offset[-1]
        if progress is not None:
            progress(end - start)
    if not found:
        return Nominees.none(len(target.x))
    scores, seconds, columns, exact = (torch.stack(part).cpu() for part in zip(*found, strict=True))

    norms = beta * target.x.cpu().double().square().sum(dim=1)  # what the kernel leaves out
    relative = _ULP * (64 + proposal.latent_dim)
    errors, second_errors = (relative * (1 + 4 * norms + part.abs()) for part in (scores, seconds))
    scores, seconds = scores + norms, seconds + norms
    ceilings = (scores + errors).amin(dim=0)
    crowded = seconds - second_errors <= ceilings  # False where infinite, here and below
    which, rows = ((scores - errors <= ceilings) & ~crowded).nonzero(as_tuple=True)
    at = (which, rows)
    highest = float(last) if target.rising else -torch.inf
    parts = [Nominees(rows, columns[at], scores[at], errors[at], exact[at], ceilings, highest)]
    for number in crowded.any(dim=1).nonzero()[:, 0].tolist():
        first = start + number * chunk
        end = min(first + chunk, stop)
        rows = crowded[number].nonzero()[:, 0]
        parts.append(_of_rows(plain, target, rows, first, end, offsets(first, end).cpu()))
    return merge(parts)


def _of_rows(plain: Plain, target: Target, rows: Tensor, start: int, stop: int, offsets: Tensor) -> Nominees:
    """Plain nominees of some blocks only; ``offsets`` of the candidates start .. stop - 1."""
    part = replace(target, x=target.x[rows], offsets=lambda a, b: offsets[a - start : b - start])
    found = plain(part, start, stop)
    ceilings = torch.full((len(target.x),), torch.inf, dtype=torch.float64)
    ceilings[rows] = found.ceilings
    return replace(found, rows=rows[found.rows], ceilings=ceilings)


class _DeviceOffsets:
    """Offsets of a target, float64 on the device; arrival times are made there, costs are copied there.

    Sums of arrival times are kept for every range's start, so a range can be asked for again.
    """

    def __init__(self, target: Target, device: torch.device) -> None:
        self._target, self._device = target, device
        self._reached = 0
        self._sums = {0: torch.zeros((), dtype=torch.float64, device=device)}  # of the gaps before a start

    def __call__(self, start: int, stop: int) -> Tensor:
        if not isinstance(self._target.offsets, LogWeights):
            return offsets_of(self._target, start, stop).to(self._device)
        while start not in self._sums:
            self._arrivals(self._reached, min(start, self._reached + CHUNK))
        return torch.log(self._arrivals(start, stop))

    def _arrivals(self, start: int, stop: int) -> Tensor:
        from rcccodec.kernels.arrivals import gaps

        weights, count = self._target.offsets, stop - start
        assert isinstance(weights, LogWeights)
        steps = gaps(weights.seed, start, count, ARRIVAL_STREAM + weights.stage, self._device)
        if weights.coder == "orc":
            left = weights.num_candidates - start
            places = torch.arange(left, left - count, -1, dtype=torch.float64, device=self._device)
            steps *= weights.num_candidates / places
        arrivals = torch.cumsum(steps, dim=0) + self._sums[start]
        self._sums[stop] = arrivals[-1].clone()
        self._reached = max(self._reached, stop)
        return arrivals
