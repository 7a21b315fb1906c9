"""What test_ranks.py runs as two processes: ``torchrun two_ranks.py FOLDER`` leaves results of each there."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from test_trainer import PLANS, pixels

from rcccodec.channel import select_channel, select_with_cost
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.ranks import Ranks, joined, shared_search
from rcccodec.training.trainer import train

TRAINED = ("warm", "cold", "fixed D", "dcgan")


def selections() -> dict[str, torch.Tensor]:
    """Indices, scores and certificates of several searches; one has fewer candidates than ranks."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((40, 6), generator=generator)
    proposal = GaussianProposal(np.full(6, 1.2), 1.5)
    common = {"beta": 1.5, "seed": 7, "chunk": 100}
    found = {
        f"{coder} {n}": select_channel(x, proposal, coder=coder, num_candidates=n, **common)
        for coder in ("pfr", "orc")
        for n in (1, 2, 1001)
    }
    found["mincost"] = select_with_cost(x, proposal, cost_nats=torch.linspace(0, 9, 1001), **common)
    return {
        f"{name} {part}": getattr(one, part)
        for name, one in found.items()
        for part in ("indices", "scores", "certified")
    }


@dataclass(frozen=True)
class Watched(Ranks):
    """Ranks that note gradients before and after averaging, and the weights that training ends with."""

    log: dict[str, list] = field(default_factory=lambda: {"before": [], "after": [], "state": []})

    def average_gradients(self, parameters: list) -> None:
        self.log["before"].append([None if p.grad is None else p.grad.clone() for p in parameters])
        super().average_gradients(parameters)
        self.log["after"].append([None if p.grad is None else p.grad.clone() for p in parameters])

    def copy_first(self, tensors: list) -> None:
        self.log["state"].append([tensor.clone() for tensor in tensors])
        super().copy_first(tensors)


def training(ranks: Ranks, folder: Path) -> dict[str, object]:
    """Logs of whole runs, and the weights of one that was interrupted after 5 steps and resumed."""
    results: dict[str, object] = {}
    for name in TRAINED:
        watched = Watched(ranks.rank, ranks.size)
        trained = train(pixels(PLANS[name]), PLANS[name], ranks=watched)
        results[name] = {**watched.log, "weights": trained.generator.state_dict()}
    file, seen = folder / "checkpoint.safetensors", []
    train(
        pixels(), PLANS["warm"], checkpoint=file, report=seen.append, ranks=ranks,
        stop=lambda: ranks.is_first and len(seen) == 5,
    )  # fmt: skip
    results["steps"] = len(seen)
    resumed = train(pixels(), PLANS["warm"], checkpoint=file, resume=True, ranks=ranks)
    results["resumed"] = resumed.generator.state_dict()
    return results


def main(folder: Path) -> None:
    with joined() as ranks:
        with shared_search(ranks):
            results: dict[str, object] = {"search": selections()}
        results |= training(ranks, folder)
        results["gathered"] = ranks.gather(ranks.rank)
        results["first"] = ranks.first_of("one" if ranks.is_first else None)
        results["any"] = ranks.any(ranks.rank == 1), ranks.any(False)
        results["mean"] = ranks.mean(1.0 + ranks.rank, 5.0)
        torch.save(results, folder / f"{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
