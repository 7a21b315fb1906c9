"""Codes to symbols and back: what of a network and its tables goes into the coded strings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rcccodec.baselines.networks import Network
from rcccodec.baselines.photo import PhotoNtc
from rcccodec.baselines.refine import refine
from rcccodec.baselines.tables import Reader, Symbols, Tables, to_symbols

CODES_AT_ONCE = 512  # fixed: the batch may decide the last bit of a matrix product

Part = tuple[Symbols, Symbols, Tables]


def code_parts(
    network: Network, tables: dict[str, Tables], x: Tensor, slope: int, search_passes: int = 0
) -> list[Part]:
    """Parts to encode of codes x (n, dim), code by code, for ``image``, ``block`` and ``vector``."""
    latents = []
    for rows in x.split(CODES_AT_ONCE):
        found = to_symbols(network.analysis(rows, torch.full((len(rows),), slope)))
        if search_passes:
            found = refine(network, tables["latents"], rows, found, slope, search_passes)
        latents.append(found)
    symbols = np.concatenate(latents)
    return [(symbols.ravel(), _latent_rows(network, len(symbols), slope), tables["latents"])]


def read_codes(network: Network, tables: dict[str, Tables], reader: Reader, count: int, slope: int) -> Tensor:
    """The next ``count`` codes of a string, (count, dim)."""
    symbols = reader.read(_latent_rows(network, count, slope), tables["latents"]).reshape(count, -1)
    y = torch.from_numpy(symbols).float()
    return torch.cat(
        [network.synthesis(rows, torch.full((len(rows),), slope)) for rows in y.split(CODES_AT_ONCE)]
    )


def picture_parts(network: PhotoNtc, tables: dict[str, Tables], x: Tensor, slope: int) -> list[Part]:
    """Parts to encode of one picture x (1, 3, h, w)."""
    height, width = x.shape[2:]
    below, right = -height % network.stride, -width % network.stride
    padded = functional.pad(x, (0, right, 0, below), mode="replicate")
    y = network.analysis(padded, torch.tensor([slope]))
    symbols = to_symbols(y)
    if not network.has_hyperprior:
        return [(symbols.ravel(), _channel_rows(network, y.shape[2:], slope), tables["latents"])]
    hyper = to_symbols(network.h_a(y.abs()))
    z_rows = _hyper_rows(network, hyper.shape[2:], slope)
    rows = network.scale_rows(torch.from_numpy(hyper).float())
    return [(hyper.ravel(), z_rows, tables["hyper"]), (symbols.ravel(), rows, tables["latents"])]


def read_picture(
    network: PhotoNtc, tables: dict[str, Tables], reader: Reader, size: tuple[int, int], slope: int
) -> Tensor:
    """The next picture of a string, (1, 3, h, w), for its size (h, w)."""
    height, width = (-(-side // network.stride) * network.stride for side in size)
    grid = (height // 16, width // 16)
    if network.has_hyperprior:
        z_grid = (height // 64, width // 64)
        hyper = reader.read(_hyper_rows(network, z_grid, slope), tables["hyper"])
        z = torch.from_numpy(hyper.reshape(1, -1, *z_grid)).float()
        rows = network.scale_rows(z)
    else:
        rows = _channel_rows(network, grid, slope)
    symbols = reader.read(rows, tables["latents"]).reshape(1, -1, *grid)
    made = network.synthesis(torch.from_numpy(symbols).float(), torch.tensor([slope]))
    return made[:, :, : size[0], : size[1]]


def part_bits(parts: list[Part]) -> float:
    """Ideal code length of all the parts."""
    return float(sum(tables.bits(symbols, rows).sum() for symbols, rows, tables in parts))


def _latent_rows(network: Network, count: int, slope: int) -> NDArray[np.int32]:
    dim = network.spec.latent_dim
    return np.tile(np.arange(slope * dim, (slope + 1) * dim, dtype=np.int32), count)


def _channel_rows(network: Network, grid: tuple[int, ...], slope: int) -> NDArray[np.int32]:
    dim = network.spec.latent_dim
    return np.repeat(np.arange(slope * dim, (slope + 1) * dim, dtype=np.int32), grid[0] * grid[1])


def _hyper_rows(network: Network, grid: tuple[int, ...], slope: int) -> NDArray[np.int32]:
    dim = network.spec.width
    return np.repeat(np.arange(slope * dim, (slope + 1) * dim, dtype=np.int32), grid[0] * grid[1])
