"""A finished model, taken up again: its stages lent to a longer one, or its index codes fitted anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rcccodec.bundle import Model, Stage, load_model, read_card
from rcccodec.errors import ModelError
from rcccodec.proposals.generator import Generator


@dataclass(frozen=True)
class Kept:
    """The model and its ``model.json``; new stages code what the last stage of its last rung leaves."""

    card: dict[str, Any]
    model: Model

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The deepest rung's."""
        return self.model.rungs[-1].stages

    @property
    def generators(self) -> list[Generator]:
        """One a stage, in the bundle's order."""
        return [stage.generator for stage in self.stages]

    def priors(self) -> dict[str, NDArray[np.uint8]]:
        """Levels (N,) of every prior, by the names that ``card`` gives them."""
        levels = {}
        for fields, rung in zip(self.card["rungs"], self.model.rungs, strict=True):
            for record, stage in zip(fields["stages"], rung.stages, strict=True):
                names = record.get("priors", {"mincost": record.get("prior")})
                levels |= {names[coder]: prior.levels for coder, prior in stage.priors.items()}
                if stage.joint is not None:
                    names = record["joint"]["priors"]
                    levels |= {names[coder]: prior.levels for coder, prior in stage.joint.priors.items()}
        return levels


def keep(path: Path) -> Kept:
    """Load the model at ``path`` to go on from.

    Raises:
        ModelError: missing, damaged, not for images, or of rungs that do not build on one another.
    """
    kept = Kept(read_card(path), load_model(path))
    numbers = [record["generator"] for record in kept.card["rungs"][-1]["stages"]]
    if numbers != list(range(len(kept.card["generators"]))):
        raise ModelError(f"{path}: its last rung does not use all its stages, so none can follow")
    if any("mincost" not in stage.priors for stage in kept.stages):
        raise ModelError(f"{path}: no prior for min-cost coding, which later stages build on")
    return kept
