"""A decoder in NumPy alone: from indices and latents to pixels, in float64.

It reads ``model.json`` and the safetensors file by itself and shares no code with the package. What the
networks are is written here once more, as plainly as possible:

    one-shot   z --> silu, layers of a perceptron, scaled and shifted by the slope --> coordinates or maps of
               patches --> block; the blocks of all stages are added up
    latents    y --> gain taken off --> [transposed convolution 5x5/2, inverse GDN] x 3 --> the last one
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from numpy_philox import normals

DTYPES = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1"}
PEDESTAL, LEAST_BETA = 2.0**-36, 1e-6

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Bundle:
    """A model's description, and its tensors: floating-point ones in float64, integers as stored."""

    card: dict[str, Any]
    tensors: dict[str, NDArray[Any]]


@lru_cache(maxsize=3)
def read_bundle(folder: Path) -> Bundle:
    """The model in ``folder``."""
    data = (folder / "weights.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            value = np.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = value.astype(np.float64) if value.dtype.kind == "f" else value
    return Bundle(json.loads((folder / "model.json").read_bytes()), tensors)


def addresses(shared: Sequence[int], own: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    """Index and draw of the blocks of a stage: ``size`` of each shared index, then those of their own."""
    indices = [index for index in shared for _ in range(size)]
    return [*indices, *own], [*list(range(size)) * len(shared), *[0] * len(own)]


def decode_blocks(
    folder: Path,
    rung: int,
    stages: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    seed: int,
    count: int,
    size: tuple[int, int],
    grey: bool,
) -> list[Pixels]:
    """The images of one group.

    Args:
        stages: of each stage, the index and the draw of every block, in the order of the payload.
        count, size: of the group's images, (height, width) in pixels.
        grey: the group's mode.
    """
    values = block_values(folder, rung, stages, seed=seed, count=count, size=size)
    return [to_pixels(x, grey) for x in values]


def block_values(
    folder: Path,
    rung: int,
    stages: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    seed: int,
    count: int,
    size: tuple[int, int],
) -> list[Floats]:
    """The same before rounding: (h, w, channels), a pixel of 255 as 1."""
    bundle = read_bundle(folder)
    fields = bundle.card["rungs"][rung]["stages"]
    tile = [math.lcm(*(stage["block"][axis] for stage in fields)) for axis in (0, 1)]
    height, width = (-(-side // step) * step for side, step in zip(size, tile, strict=True))
    total = np.zeros((count, height, width, bundle.card["channels"]))
    for number, (stage, (indices, draws)) in enumerate(zip(fields, stages, strict=True)):
        latents = bundle.card["generators"][stage["generator"]]["latent_dim"]
        z = np.concatenate(
            [
                normals(seed, np.array([k]), draw * latents, latents, number)
                for k, draw in zip(indices, draws, strict=True)
            ]
        )
        made = iter(generate(bundle, stage["generator"], stage["beta"], z))
        h, w = stage["block"]
        for image in total:
            for top in range(0, height, h):
                for left in range(0, width, w):
                    image[top : top + h, left : left + w] += next(made).reshape(h, w, -1)
    return [image[: size[0], : size[1]] for image in total]


def generate(bundle: Bundle, generator: int, beta: float, z: Floats) -> Floats:
    """Blocks (n, h * w * channels) of latents z (n, L) at the slope ``beta``."""
    spec = bundle.card["generators"][generator]
    prefix = f"generators.{generator}."
    own = {name.removeprefix(prefix): v for name, v in bundle.tensors.items() if name.startswith(prefix)}
    layers = spec["depth"] + 1
    low, high = (math.log(slope) for slope in spec["slope_range"])
    scale, shift = np.ones((layers, 1)), np.zeros((layers, 1))
    if high > low:
        s = np.array([(2 * math.log(beta) - low - high) / (high - low)])
        film = affine(own, "slope_out", silu(affine(own, "slope_in", s))).reshape(layers, 2, spec["width"])
        scale, shift = 1 + film[:, 0], film[:, 1]
    h = z
    for i in range(layers):
        made = silu(scale[i] * affine(own, f"layers.{i}", h) + shift[i])
        h = made if i == 0 else h + made
    y = affine(own, "last", h)
    if spec["arch"] == "patches":
        rows, columns = spec["shape"][0] // 4, spec["shape"][1] // 4
        maps = silu(y).reshape(len(z), spec["features"], rows, columns).transpose(0, 2, 3, 1)
        maps = maps + silu(convolved_3x3(maps, own["mix.weight"], own["mix.bias"]))
        y = transposed(maps, own["draw.weight"], 4, 2) + own["mean_logits"].transpose(1, 2, 0)
        y = y.reshape(len(z), -1)
    elif spec["arch"] != "mlp":
        raise ValueError(f"a generator {spec['arch']}")
    return sigmoid(y) if spec["output"] == "sigmoid" else own["mean"] + y @ own["basis"]


def latents(
    folder: Path, rung: int, classes: NDArray[np.int64], sent: Sequence[Floats], tile: int = 16
) -> Floats:
    """y (M, rows, columns) from classes (rows, columns) and, tile by tile, the z that are sent, shrunk."""
    bundle = read_bundle(folder)
    centre = bundle.tensors["centre"][rung]
    scale, rates = np.exp(bundle.tensors["log_scale"][rung]), bundle.tensors["rates_millibits"][rung]
    y = centre[classes]  # (rows, columns, M)
    tiles = iter(sent)
    for top in range(0, classes.shape[0], tile):
        for left in range(0, classes.shape[1], tile):
            inside = slice(top, top + tile), slice(left, left + tile)
            z = np.zeros(y[inside].shape)
            z[rates[classes[inside]] > 0] = next(tiles)
            y[inside] += scale[classes[inside]] * z
    return y.transpose(2, 0, 1)


def decode_latents(folder: Path, rung: int, y: Floats, size: tuple[int, int], grey: bool = False) -> Pixels:
    """The picture (h, w, 3), or (h, w) if grey, of latents y (M, rows, columns)."""
    made = np.rint(255 * np.clip(latent_values(folder, rung, y, size), 0, 1)).astype(np.uint8)
    return to_pixels(made / 255, True) if grey else made


def latent_values(folder: Path, rung: int, y: Floats, size: tuple[int, int]) -> Floats:
    """The same before rounding, (h, w, 3)."""
    own = read_bundle(folder).tensors
    x = (y.transpose(1, 2, 0) * np.exp(own["network.log_gain_back"][rung]))[None]
    for layer in range(0, 7, 2):
        name = f"network.g_s.{layer}"
        x = transposed(x, own[f"{name}.weight"], 2, 2) + own[f"{name}.bias"]
        if layer < 6:
            name = f"network.g_s.{layer + 1}"
            x = inverse_gdn(x, own[f"{name}.beta"], own[f"{name}.gamma"])
    return np.asarray(x[0, : size[0], : size[1]])


def to_pixels(values: Floats, grey: bool) -> Pixels:
    """Clipped and rounded, half to even; of a grey picture the mean of the channels."""
    if values.shape[2] == 1:
        values = values[:, :, 0]
    elif grey:
        values = (values[:, :, 0] + values[:, :, 1] + values[:, :, 2]) / 3
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255)).astype(np.uint8)


def affine(own: dict[str, Floats], name: str, x: Floats) -> Floats:
    return np.asarray(x @ own[name + ".weight"].T + own[name + ".bias"])


def silu(x: Floats) -> Floats:
    return np.asarray(x * sigmoid(x))


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def convolved_3x3(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """A padded 3x3 convolution of maps (n, h, w, c) with (o, c, 3, 3)."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    made = np.zeros((*x.shape[:3], len(weight))) + bias
    for i in range(3):
        for j in range(3):
            made += padded[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
    return made


def transposed(x: Floats, weight: Floats, stride: int, margin: int) -> Floats:
    """A transposed convolution of maps (n, h, w, c) with (c, o, k, k), ``stride`` times as large.

    Pixel stride * i + k - margin is given what input i has for tap k.
    """
    n, height, width, _ = x.shape
    outputs, side = weight.shape[1:3]
    sides = (stride * (length - 1) + max(side, stride + margin) for length in (height, width))
    full = np.zeros((n, *sides, outputs))
    for i in range(side):
        for j in range(side):
            full[:, i : i + stride * height : stride, j : j + stride * width : stride] += (
                x @ weight[:, :, i, j]
            )
    return full[:, margin : margin + stride * height, margin : margin + stride * width]


def inverse_gdn(x: Floats, beta: Floats, gamma: Floats) -> Floats:
    """x_i (beta_i + sum_j gamma_ij x_j^2)^(1/2) of maps (n, h, w, c), from parameters as they are stored."""
    beta = np.maximum(beta, (LEAST_BETA + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
    gamma = np.maximum(gamma, PEDESTAL**0.5) ** 2 - PEDESTAL
    return np.asarray(x * np.sqrt(beta + (x * x) @ gamma.T))
