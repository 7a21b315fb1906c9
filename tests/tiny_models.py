"""Small random models in the real bundle format, for tests that need a model but no trained one.

``grey``: 8x8 blocks of one channel, one stage, two rungs, priors of min-cost and PFR for the first.
``colour``: three channels, a 16x8 stage and 8x8 residuals, three rungs, no prior; its stage 0 emits pixels,
its stage 1 coordinates.
``latent``: a model of latents for photographs, two slopes; in a folder of its own.
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


def write_tiny_latent_model(folder: Path) -> None:
    """Write the bundle ``folder``: two slopes of random transforms, 8 classes fitted on smooth pictures."""
    torch.manual_seed(2)
    spec = LatentSpec((32, 32, 3), (8.0, 60.0), latent_dim=24, width=16, classes=8)
    network = LatentNetwork(spec).eval().requires_grad_(False)
    x = torch.from_numpy(np.stack([smooth_picture(256, 256, seed) for seed in range(5)]))
    pictures = x.permute(0, 3, 1, 2).float() / 255
    network.g_a[-1].weight[: spec.latent_dim] *= 2 / network.g_a(pictures)[:, : spec.latent_dim].std()
    latents = network.g_a(pictures)[:, : spec.latent_dim]
    network.g_a[-1].bias[: spec.latent_dim] -= latents.mean((0, 2, 3))
    contrast = 0.2 / network.g_s(latents).std()
    network.g_s[-1].weight *= contrast
    network.g_s[-1].bias.fill_(0.5)
    network = stored_network(network)
    network.fit_classes(pictures)
    tables = fit_tables(network, x, classes=spec.classes)
    indices = np.random.default_rng(1).zipf(1.3, 4000)
    frequencies = fit(indices[indices <= CANDIDATES] - 1, num_candidates=CANDIDATES)
    card = {
        "name": folder.name,
        "source": "nothing",
        "held_out": [
            {"beta": beta, "rate_bpp": 0.1 + beta / 100, "psnr_db": 20.0 + beta / 10} for beta in spec.betas
        ],
        "default_rung": 1,
        "default_seed": SEED,
        "chunk_codes": {coder: {"8": frequencies} for coder in ("pfr", "orc", "mincost")},
    }
    folder.mkdir(parents=True)
    for name, data in latent_files(card, assemble(network, tables), tables).items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("# for tests\n")


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colour picture uint8 (height, width, 3) of random soft shapes."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 2 + height // 24, 2 + width // 24)))
    soft = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return (255 * soft.clamp(0, 1)[0]).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()
