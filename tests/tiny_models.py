"""Small random models in the real bundle format, for tests that need a model but no trained one.

``grey``: 8x8 blocks of one channel, one stage, two rungs, priors of min-cost and PFR for the first.
``colour``: three channels, a 16x8 stage and 8x8 residuals, three rungs, no prior; its stage 0 emits pixels,
its stage 1 coordinates.
`tiny_latent_model` is of the other kind.
"""

from pathlib import Path

import numpy as np
import torch

from rcccodec.bundle import bundle_files
from rcccodec.index_code.codebook_prior import quantise
from rcccodec.index_code.fitted import fit
from rcccodec.latent.fit import fit_tables
from rcccodec.latent.model import assemble, stored_network
from rcccodec.latent.model import bundle_files as latent_files
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.spec import LatentSpec
from rcccodec.proposals.generator import GeneratorSpec, build_generator

CANDIDATES = 256
SEED = 5


def write_tiny_models(folder: Path) -> None:
    """Write both bundles below ``folder``."""
    torch.manual_seed(0)
    fields = {"default_num_candidates": CANDIDATES, "default_seed": SEED, "default_rung": 0}
    rungs = [_rung(beta, [((8, 8), beta, 0)]) for beta in (0.5, 2.0)]
    rungs[0]["stages"][0]["priors"] = {"mincost": "first", "pfr": "second"}
    rng = np.random.default_rng(0)
    levels = {name: quantise(6 + 4 * rng.random(CANDIDATES)) for name in ("first", "second")}
    card = {"name": "grey", "source": "nothing", "channels": 1, "rungs": rungs, **fields}
    _write(folder / "grey", card, [_generator((8, 8, 1), "sigmoid", (0.5, 2.0))], levels)

    rungs = [_rung(beta, [((16, 8), beta / 2, 0), ((8, 8), beta, 1)]) for beta in (0.5, 1.0, 4.0)]
    card = {"name": "colour", "source": "nothing", "channels": 3, "rungs": rungs, **fields}
    generators = [_generator((16, 8, 3), "sigmoid", (0.25, 2.0)), _generator((8, 8, 3), "linear", (0.5, 4.0))]
    _write(folder / "colour", card, generators, {})


def _rung(beta: float, stages: list[tuple[tuple[int, int], float, int]]) -> dict[str, object]:
    indices = np.random.default_rng(1).zipf(1.3, 4000)
    frequencies = fit(indices[indices <= CANDIDATES] - 1, num_candidates=CANDIDATES)
    return {
        "beta": beta,
        "stages": [
            {
                "block": list(block),
                "beta": slope,
                "rate_bits": 2.0 + slope,
                "distortion": 5.0 / slope,
                "zipf_rate_millibits": round(1000 * (2.0 + slope)),
                "fitted": dict.fromkeys(("pfr", "orc", "mincost"), frequencies),
                "generator": generator,
            }
            for block, slope, generator in stages
        ],
    }


def _generator(shape: tuple[int, ...], output: str, slopes: tuple[float, float]) -> torch.nn.Module:
    coordinates = 6 if output == "linear" else None
    spec = GeneratorSpec("mlp", shape, 5, 16, 1, output, coordinates, slopes)
    generator = build_generator(spec)
    if output == "linear":
        basis = torch.linalg.qr(torch.randn(spec.dim, coordinates)).Q.T
        generator.start_from(torch.zeros(spec.dim), basis, torch.full((coordinates,), 0.5))
    with torch.no_grad():
        generator.slope_out.weight.normal_(std=0.1)
        generator.last.weight.mul_(4)
    return generator


def _write(folder: Path, card: dict, generators: list, priors: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, data in bundle_files(card, generators, priors, "# for tests\n").items():
        (folder / name).write_bytes(data)


def smooth_pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random pictures of slow waves, uint8 (count, side, side, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    pictures = np.full((count, side, side, 3), 128.0)
    for _ in range(6):
        across, down = rng.normal(0, 0.06, (2, count, 1, 1, 1))
        waves = np.sin(
            across * columns[:, :, None] + down * rows[:, :, None] + rng.uniform(0, 6, (count, 1, 1, 3))
        )
        pictures += rng.uniform(5, 30, (count, 1, 1, 3)) * waves
    return pictures.clip(0, 255).astype(np.uint8)


def tiny_latent_model(folder: Path, name: str = "latent") -> Path:
    """Write a random model of latents, two slopes, no index codes of chunks, below ``folder``; its path."""
    torch.manual_seed(0)
    network = LatentNetwork(LatentSpec((32, 32, 3), (8.0, 60.0), 24, 16, 8))
    with torch.no_grad():
        for parameter in (p for p in network.parameters() if p.dim() == 4):
            parameter.mul_(1.7)  # else its pictures are flat
        network.g_s[-1].bias.fill_(0.5)
        network.noise_bias.sub_(1)  # else there is hardly a bit
    network = stored_network(network.eval().requires_grad_(False))
    pictures = torch.from_numpy(smooth_pictures(4, 256))
    with torch.no_grad():
        network.fit_classes(pictures.permute(0, 3, 1, 2).float() / 255)
    tables = fit_tables(network, pictures, classes=8)
    held_out = [{"rate_bpp": 0.1 + k, "psnr_db": 20.0 + k} for k in range(2)]
    card = {
        "name": name, "source": "nothing", "command": "", "note": "", "held_out": held_out, "default_rung": 0,
        "default_seed": SEED, "chunk_codes": {},
    }  # fmt: skip
    (folder / name).mkdir(parents=True)
    for file, data in latent_files(card, assemble(network, tables), tables).items():
        (folder / name / file).write_bytes(data)
    return folder / name
