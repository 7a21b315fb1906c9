"""Small untrained baselines of every kind in the real bundle format, for tests that need no trained one."""

from pathlib import Path

import torch

from rcccodec.baselines.bundle import bundle_files
from rcccodec.baselines.networks import build_network, round_to_stored
from rcccodec.baselines.spec import NtcSpec

SPECS = {
    "image": NtcSpec("image", (8, 8, 1), (0.2, 1.0), 5, 16, 1, 20),
    "colour": NtcSpec("image", (4, 6, 3), (0.2, 1.0), 5, 16, 1, 20),
    "block": NtcSpec("block", (8, 8, 1), (0.2, 1.0), 8, 16, 1, 20, images_per_code=4),
    "patches": NtcSpec("image", (8, 12, 1), (0.2, 1.0), 5, 16, 1, 20, maps=3),
    "block-patches": NtcSpec("block", (8, 8, 3), (0.2, 1.0), 8, 16, 1, 20, images_per_code=4, maps=3),
    "vector": NtcSpec("vector", (3,), (0.5, 2.0), 3, 6),
    "factorized": NtcSpec("factorized", (64, 64, 3), (3.0, 30.0), 8, 8),
    "hyperprior": NtcSpec("hyperprior", (64, 64, 3), (3.0, 30.0), 8, 8),
}


def write_tiny_baselines(folder: Path) -> None:
    """Write a bundle of every kind below ``folder``; their latents are random but not all zero."""
    torch.manual_seed(0)
    for name, spec in SPECS.items():
        network = build_network(spec).eval().requires_grad_(False)
        for buffer, value in network.named_buffers():
            if buffer.endswith("whiten"):
                value.normal_(std=0.5)
        for parameter, value in network.named_parameters():
            if parameter.endswith("log_gain"):
                value.fill_(1.5)
            elif parameter.endswith("analysis_network.last.weight"):
                value.mul_(20)
        tables = network.tables()
        round_to_stored(network)
        (folder / name).mkdir(parents=True)
        for file, data in bundle_files({"name": name}, network, tables).items():
            (folder / name / file).write_bytes(data)
