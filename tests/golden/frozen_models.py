"""Wrote the bundles of tests/golden/models, whose weights are random."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from recipes import CANDIDATES, SEED

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tiny_latent

from rcccodec.bundle import bundle_files
from rcccodec.index_code.codebook_prior import quantise
from rcccodec.index_code.fitted import fit
from rcccodec.latent.spec import LatentSpec
from rcccodec.proposals.generator import GeneratorSpec, build_generator

CODERS = ("pfr", "orc", "mincost")


def write_models(folder: Path) -> None:
    """The bundles not there yet: ``grey`` (version 1), ``colour`` (2, joint tables), ``latent`` (3)."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    common = {
        "source": "nothing",
        "default_num_candidates": CANDIDATES,
        "default_seed": SEED,
        "default_rung": 0,
    }
    levels = {name: quantise(5 + 4 * random.random(CANDIDATES)) for name in "abcdefghi"}

    rungs = [
        rung(beta, [stage((8, 8), beta, 2.0 + beta, 0, salt)]) for salt, beta in enumerate((0.5, 1.0, 4.0))
    ]
    rungs[0]["stages"][0]["priors"] = {"pfr": "a", "orc": "b", "mincost": "c"}
    rungs[1]["stages"][0]["prior"] = "d"  # as bundles had it at first
    rungs.append(rung(8.0, [stage((8, 8), 2.0, 4.0, 0, 10)]))
    rungs[3]["stages"][0]["priors"] = {"mincost": "every"}
    levels["every"] = random.permutation(256).astype(np.uint8)  # each level once, so that each of them counts
    card = {"name": "grey", "channels": 1, "rungs": rungs, **common}
    write(
        folder / "grey", card, [generator((8, 8, 1), "sigmoid", (0.5, 4.0))], only(levels, (*"abcd", "every"))
    )

    first, second = stage((16, 8), 0.5, 1.9, 0, 3), stage((8, 8), 0.7, 2.4, 1, 4)
    first["priors"] = {"pfr": "a", "orc": "b", "mincost": "c"}
    second["priors"] = {"pfr": "d", "orc": "e", "mincost": "f"}
    first["joint"] = joint(5, {"mincost": "g", "pfr": None}, without="orc")
    second["joint"] = joint(6, {"mincost": "h"}, without="")
    third = [stage((16, 8), 2.0, 3.5, 0, 7), stage((8, 8), 2.0, 4.6, 1, 8), stage((8, 8), 4.0, 6.2, 1, 9)]
    card = {
        "name": "colour",
        "channels": 3,
        "rungs": [rung(0.7, [first, second]), rung(4.0, third)],
        **common,
    }
    generators = [generator((16, 8, 3), "sigmoid", (0.5, 2.0)), generator((8, 8, 3), "linear", (0.5, 4.0))]
    write(folder / "colour", card, generators, only(levels, "abcdefgh"))

    if not (folder / "latent").exists():
        tiny_latent.SPEC = LatentSpec((32, 32, 3), tiny_latent.BETAS, 16, 8, 8)  # less than the tests' own
        tiny_latent.tiny_latent_model(folder / "latent")


def rung(beta: float, stages: list[dict]) -> dict:
    return {"beta": beta, "stages": stages}


def stage(block: tuple[int, int], beta: float, rate: float, generator: int, salt: int) -> dict:
    return {
        "block": list(block),
        "beta": beta,
        "rate_bits": rate,
        "distortion": 5.0 / beta,
        "zipf_rate_millibits": round(1000 * rate),
        "fitted": {coder: frequencies(3 * salt + i) for i, coder in enumerate(CODERS)},
        "generator": generator,
    }


def joint(salt: int, priors: dict, without: str) -> dict:
    fitted = {coder: frequencies(3 * salt + i) for i, coder in enumerate(CODERS) if coder != without}
    return {"num_candidates": CANDIDATES, "blocks": 2, "fitted": fitted, "priors": priors}


def frequencies(salt: int) -> list[int]:
    indices = np.random.default_rng(salt).zipf(1.2 + salt / 100, 4000)
    return fit(indices[indices <= CANDIDATES] - 1, num_candidates=CANDIDATES)


def only(levels: dict, names: Iterable[str]) -> dict:
    return {name: levels[name] for name in names}


def generator(shape: tuple[int, ...], output: str, slopes: tuple[float, float]) -> torch.nn.Module:
    coordinates = 6 if output == "linear" else None
    made = build_generator(GeneratorSpec("mlp", shape, 5, 16, 1, output, coordinates, slopes))
    if coordinates:
        basis = torch.linalg.qr(torch.randn(made.spec.dim, coordinates)).Q.T
        made.start_from(torch.zeros(made.spec.dim), basis, torch.full((coordinates,), 0.5))
    with torch.no_grad():
        made.slope_out.weight.normal_(std=0.1)
        made.last.weight.mul_(4)
    return made


def write(folder: Path, card: dict, generators: list, priors: dict) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for name, data in bundle_files(
        card, generators, priors, "# A frozen model of the golden files\n"
    ).items():
        (folder / name).write_bytes(data)
