"""The index codes of what several blocks of a stage share, fitted on random groups of training blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.proposals.joint import JointProposal
from rcccodec.training.groups import random_groups
from rcccodec.training.index_codes import Smoothing, fit_channel_priors, fit_codebook_prior, fit_histograms

HISTOGRAM_GROUPS, HISTOGRAM_SEEDS = 4000, tuple((1 << 33) + (1 << 16) + i for i in range(4))
PRIOR_BLOCKS, GROUPS_PER_BLOCK = 20_000, 4
SMOOTHING = Smoothing(temperature=0.6, hard_share=0.0, fitted_blocks=3000)  # rates are higher: softer counts


@dataclass(frozen=True)
class FittedJointCodes:
    """By coder: ``fitted``, class frequencies as FittedCode takes them; ``levels``, uint8 (N,), a prior's."""

    fitted: dict[str, list[int]]
    levels: dict[str, NDArray[np.uint8]]


def fit_joint_codes(
    coordinates: Tensor,
    one: GeneratorProposal,
    *,
    size: int,
    beta: float,
    num_candidates: int,
    stage: int,
    seed: int,
    coders: Sequence[str] = ("pfr", "orc", "mincost"),
    device: str = "cpu",
) -> FittedJointCodes:
    """Index codes of ``size`` blocks that are chosen together; see `rcccodec.training.index_codes`.

    Blocks are grouped at random, each in several groups, for few blocks make many groups and an index that is
    seldom chosen needs many. Neighbours in a photograph are more alike than such groups; that can cost bits
    but leaves the law as it is.

    Args:
        coordinates: (n, dim) training blocks, at least one. seed: of the codebook that the model ships.
        coders: that priors are wanted for; PFR and ORC come together.
    """
    proposal = JointProposal(one, size)
    common = {"beta": beta, "num_candidates": num_candidates, "stage": stage, "device": device}
    some = random_groups(coordinates, size, min(HISTOGRAM_GROUPS, len(coordinates)))
    fitted = fit_histograms(some[:], proposal, seeds=HISTOGRAM_SEEDS, **common)
    blocks = coordinates[:PRIOR_BLOCKS]
    groups = random_groups(blocks, size, GROUPS_PER_BLOCK * len(blocks))
    levels: dict[str, NDArray[np.uint8]] = {}
    if "mincost" in coders:
        levels["mincost"] = fit_codebook_prior(groups, proposal, seed=seed, **common)
    if {"pfr", "orc"} & set(coders):
        channel = {"fitted": fitted, "smoothing": SMOOTHING, "seed": seed}
        levels |= fit_channel_priors(groups, proposal, **channel, **common)
    return FittedJointCodes(fitted, levels)
