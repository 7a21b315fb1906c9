"""The searches of a rung, stage after stage: an address for every block; and the blocks at addresses.

An encoder's side is `choose`, a decoder's `blocks_at`; between two stages the encoder takes off what a
decoder will make, so both see the same residuals.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from rcccodec.channel import Target, channel_target, cost_target, select
from rcccodec.channel.distances import default_chunk
from rcccodec.channel.nominees import NoCandidate
from rcccodec.errors import ModelError
from rcccodec.images import to_channels
from rcccodec.index_code import IndexCode
from rcccodec.joint import MAX_JOINT_BLOCKS, split_count, to_addresses
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.proposals.joint import JointProposal
from rcccodec.randomness import standard_normals
from rcccodec.settings import Settings
from rcccodec.threads import Tell, each_alone, one_thread
from rcccodec.tiles import from_blocks, pad_to_multiple, to_blocks

NO_INDICES = np.empty(0, np.int64)
_MADE_AT_ONCE = 512  # candidates
MAX_VALUE = 1e9  # of a candidate, in units of the range of pixels: sums of stages must stay finite
Progress = Callable[[int, int], None]  # (candidates scored, candidates to score)
Search = Callable[..., tuple[list[np.ndarray], float]]  # what `choose` is, or does the same


def choose(
    sources: list[np.ndarray],
    counts: list[list[int]],
    settings: Settings,
    decoders: list[GeneratorProposal],
    device: str,
    progress: Progress | None,
) -> tuple[list[np.ndarray], float]:
    """Choose a candidate for every block: int64 addresses per stage, all images; and the certified share.

    ``counts``: blocks of every group and stage; no index is shared across groups.
    """
    channels, stages = settings.model.channels, settings.step.stages
    rests = [
        pad_to_multiple(to_channels(x, channels)[0].astype(np.float32) / 255, *settings.tile) for x in sources
    ]
    chosen, certified = [], []
    for s, stage in enumerate(stages):
        proposal = decoders[s] if device == "cpu" else stage.proposal(device)
        x = _coordinates(rests, proposal, stage.block, device)
        parts = _parts(settings, s, [row[s] for row in counts])
        targets = [
            _target(x[torch.from_numpy(which)], proposal, size, stage.beta, s, settings, code)
            for size, code, which in parts
        ]
        draws = max(size for size, _, _ in parts)
        try:
            selections = select(
                targets,
                settings.num_candidates,
                settings.seed,
                s,
                chunk=max(1, default_chunk(device, proposal.dim) // draws),
                device=device,
                progress=_shifted(progress, s * settings.num_candidates, len(stages)),
            )
        except NoCandidate as error:
            raise ModelError(f"model {settings.model.name}, stage {s}: {error}") from error
        addresses = np.zeros(len(x), np.int64)
        for (size, _, which), found in zip(parts, selections, strict=True):
            indices = found.indices.numpy()
            addresses[which] = to_addresses(
                *((indices, NO_INDICES) if size > 1 else (NO_INDICES, indices)), size
            )
            certified.append(np.repeat(found.certified.numpy(), size))
        chosen.append(addresses)
        if s + 1 < len(stages):
            rests = _subtract(rests, decoders[s], addresses, stage.block, settings.seed, s)
    return chosen, float(np.concatenate(certified).mean())


def _coordinates(
    rests: list[np.ndarray], proposal: GeneratorProposal, block: tuple[int, int], device: str
) -> torch.Tensor:
    """What is searched for, float32 (blocks, dim): an image's does not depend on the images beside it."""
    with one_thread():
        return torch.cat(
            [proposal.analyse(torch.from_numpy(to_blocks(rest, block)).to(device)).cpu() for rest in rests]
        )


def _parts(settings: Settings, stage: int, counts: list[int]) -> list[tuple[int, IndexCode, np.ndarray]]:
    """The parts of a stage: blocks an index, its code, and which of all blocks, bool (blocks,).

    ``counts``: blocks of every group.
    """
    size, code, shared_code = (of_stages[stage] for of_stages in settings.tables)
    shared = [np.arange(n) < split_count(n, size)[0] * size for n in counts]
    is_shared = np.concatenate(shared)
    parts = [(1, code, ~is_shared)]
    if shared_code is not None:
        parts.append((size, shared_code, is_shared))
    return [part for part in parts if part[2].any()]


def _target(
    x: torch.Tensor,
    one: GeneratorProposal,
    size: int,
    beta: float,
    stage: int,
    settings: Settings,
    code: IndexCode,
) -> Target:
    """What to search for: an index for each ``size`` rows of x. Draw 0 of a shared one is a block's own."""
    proposal = one if size == 1 else JointProposal(one, size)
    x = x.reshape(-1, proposal.dim)
    if settings.coder == "mincost":
        cost = partial(_cost_nats, code)  # of a range at a time: memory must not grow with N
        return cost_target(x, proposal, beta=beta, cost_nats=cost)
    return channel_target(
        x, proposal, beta=beta, coder=settings.coder, seed=settings.seed,
        num_candidates=settings.num_candidates, stage=stage,
    )  # fmt: skip


def _cost_nats(code: IndexCode, start: int, stop: int) -> np.ndarray:
    return math.log(2) * code.lengths_bits(np.arange(start, stop))


def _subtract(
    rests: list[np.ndarray],
    proposal: GeneratorProposal,
    addresses: np.ndarray,
    block: tuple[int, int],
    seed: int,
    stage: int,
) -> list[np.ndarray]:
    """What is left of padded float images (h, w, c) after the candidates that a decoder will make."""
    left, first = [], 0
    for rest in rests:
        height, width, channels = rest.shape
        last = first + height // block[0] * (width // block[1])
        y = blocks_at(proposal, addresses[first:last], seed, stage)
        left.append(rest - from_blocks(y, block, (height, width), channels).astype(np.float32))
        first = last
    return left


def blocks_at(proposal: GeneratorProposal, addresses: np.ndarray, seed: int, stage: int) -> np.ndarray:
    """The blocks at ``addresses`` as every decoder makes them: float64 on the CPU, (n, block_dim).

    Raises:
        ModelError: a value that is not finite, or beyond any picture's.

    Invariant: the same to the bit for any number of threads.
    """
    unique, inverse = np.unique(addresses, return_inverse=True)
    made = np.empty((len(unique), proposal.block_dim))
    draws = unique % MAX_JOINT_BLOCKS

    @torch.inference_mode()
    def make(part: np.ndarray, _tell: Tell) -> None:
        draw = int(draws[part[0]])
        k = torch.from_numpy(unique[part] // MAX_JOINT_BLOCKS)
        z = standard_normals(seed, k, (draw + 1) * proposal.latent_dim, stage)
        y = proposal.candidates(z[:, draw * proposal.latent_dim :].double())
        made[part] = proposal.synthesise(y).numpy()

    parts: list[np.ndarray] = []
    for draw in np.unique(draws):
        which = np.flatnonzero(draws == draw)
        parts += np.array_split(which, -(-len(which) // _MADE_AT_ONCE))
    each_alone(make, parts)
    if not np.abs(made).max(initial=0) < MAX_VALUE:
        raise ModelError(f"stage {stage} of the model makes values that no picture has")
    return made[inverse.reshape(-1)]


def _shifted(progress: Progress | None, offset: int, stages: int) -> Progress | None:
    return None if progress is None else lambda done, n: progress(offset + done, stages * n)
