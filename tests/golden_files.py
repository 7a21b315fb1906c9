"""The golden files of tests/golden: their facts, their sources, and what package and reader make of them.

`golden.json` holds, for each file, its header and images, every integer it stands for and how it was made.
Pixels and normals are in NAME.npz: `image0`, ... uint8, and of latents `z`, float32.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

import independent_reader
import numpy as np
from PIL import Image

from rcccodec import codec, container
from rcccodec.bundle import AnyModel, load_model
from rcccodec.comparison.rcc_files import read_indices
from rcccodec.container import CODERS, MODEL_ID_BYTES, Group, Header
from rcccodec.index_code import encode_segments
from rcccodec.latent import trellis
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Channel, Reader, Tile, read_tile, sent_rates, tile_values, write_tile
from rcccodec.latent.windows import grid_of, tiles_of
from rcccodec.layout import Layout
from rcccodec.settings import read_settings

FOLDER = Path(__file__).resolve().parent / "golden"
ROOT = FOLDER.parents[1]
SHIPPED = ("mnist", "photo", "photo-pixels")


def facts() -> dict[str, dict]:
    """All files by name."""
    return json.loads((FOLDER / "golden.json").read_text())


def file_bytes(name: str) -> bytes:
    """The file of a name."""
    return (FOLDER / f"{name}.rcc").read_bytes()


def model_folder(name: str) -> Path:
    """Of a golden model, or one that is shipped."""
    return ROOT / "models" / name if name in SHIPPED else FOLDER / "models" / name


@cache
def package_model(name: str) -> AnyModel:
    """As the package loads it."""
    return load_model(model_folder(name))


@cache
def reader_model(name: str) -> tuple:
    """As the independent reader loads it."""
    return independent_reader.read_model(model_folder(name))


def sources(fact: dict) -> list[np.ndarray]:
    """The pictures that a file was made of."""
    return [_source(spec) for spec in fact["sources"]]


def _source(spec: dict) -> np.ndarray:
    """A picture uint8 (h, w) or (h, w, 3): of integer arithmetic, or a part of a shipped sample."""
    if "sample" in spec:
        x = np.asarray(Image.open(ROOT / "rcccodec" / "samples" / spec["sample"]))
        top, left, height, width = spec["part"]
        return np.ascontiguousarray(x[top : top + height, left : left + width])
    height, width, number = spec["height"], spec["width"], spec["number"]
    y, x, c = np.ogrid[:height, :width, : 3 if spec["rgb"] else 1]
    wave = (3 + number % 5) * x + (2 + number % 7) * y + 40 * c + 29 * number
    wave = np.abs(wave % 256 - 128)  # 0..128, up and down
    grain = (x * 7919 + y * 104729 + c * 1299709 + number * 15485863) * 2654435761 % 2**32 >> 27  # 0..31
    picture = (40 + wave + grain).astype(np.uint8)
    return picture if spec["rgb"] else picture[:, :, 0]


def encode_again(fact: dict) -> bytes:
    """What the encoder makes of the sources now, without records where the file has none."""
    data = codec.compress(sources(fact), package_model(fact["model"]), **fact["options"]).data
    header, groups = container.unpack(data)
    if fact["version"] <= 3 and header.records:
        data = container.pack(header_of(fact), groups)
    return data


def header_of(fact: dict) -> Header:
    """The header that facts say."""
    version = fact["version"]
    return Header(
        model_id=bytes.fromhex(package_model(fact["model"]).sha256)[:MODEL_ID_BYTES],
        rung=fact["rung"],
        coder=CODERS.index(fact["coder"]),
        index_code=container.INDEX_CODES.index(fact["index_code"]),
        num_candidates=fact["num_candidates"],
        seed=fact["seed"],
        joint=version in (2, 5),
        latent=version in (3, 6),
        records=version >= 4,
    )


def header_facts(data: bytes) -> dict:
    """Version, coder, index code, rung, N, seed and groups [mode, count, width, height] of a file."""
    header, groups = container.unpack(data)
    return {
        "version": header.version,
        "coder": CODERS[header.coder],
        "index_code": container.INDEX_CODES[header.index_code],
        "rung": header.rung,
        "num_candidates": header.num_candidates,
        "seed": header.seed,
        "groups": [[group.mode, group.count, group.width, group.height] for group in groups],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def pack_again(fact: dict) -> bytes:
    """A file of the committed integers, by the package's writers alone."""
    model, header = package_model(fact["model"]), header_of(fact)
    write = _write_latents if isinstance(model, LatentModel) else _write_blocks
    groups = [
        Group(*shape, write(fact, model, header, shape, integers))
        for shape, integers in zip(fact["groups"], fact["integers"], strict=True)
    ]
    return container.pack(header, groups)


def _write_blocks(fact: dict, model: AnyModel, header: Header, shape: list[int], integers: list) -> bytes:
    settings = read_settings(header, model)
    _, count, width, height = shape
    layout = Layout(count, height, width, False, settings.tile)
    counts = [layout.num_blocks(stage.block) for stage in settings.step.stages]
    runs = []
    for size, (shared, own) in zip(settings.joint_sizes(), integers, strict=True):
        runs += [shared, own] if size > 1 else [own]
    coded = [
        (code, np.array(run, np.int64))
        for (code, n), run in zip(settings.segments(counts), runs, strict=True)
        if n == len(run)
    ]
    assert len(coded) == len(runs), "not as many indices as blocks want"
    return encode_segments(coded, num_blocks=sum(counts))


def channel_of(header: Header, model: LatentModel) -> Channel:
    """How a file of latents sends dimensions."""
    coder = CODERS[header.coder]
    return Channel(coder, header.num_candidates, header.seed, model.chunk_codes.get(coder, {}))


def _write_latents(fact: dict, model: LatentModel, header: Header, shape: list[int], integers: list) -> bytes:
    prior, channel = model.priors[header.rung], channel_of(header, model)
    payload = b""
    for image in integers:
        for tile in image:
            symbols = (
                np.array([int(bit) for bit in tile["path"]], np.uint8)
                if "path" in tile
                else np.array(tile["indices"], np.int64)
            )
            made = Tile(tile["measure"], np.array(tile["classes"], np.int64), symbols)
            payload += write_tile(prior, channel, made)[0]
    return payload


def package_integers(fact: dict, data: bytes) -> tuple[list, np.ndarray]:
    """What the package reads: integers in the form of golden.json, and z float32 (n,) of all latents."""
    model = package_model(fact["model"])
    header, groups = container.unpack(data)
    if not isinstance(model, LatentModel):
        sizes, parts = read_settings(header, model).joint_sizes(), []
        for segments in read_indices(data, model):
            runs = iter(segments)
            parts.append([[next(runs).tolist() if size > 1 else [], next(runs).tolist()] for size in sizes])
        return parts, np.zeros(0, np.float32)
    prior, channel = model.priors[header.rung], channel_of(header, model)
    parts, z = [], []
    for group in groups:
        reader, images = Reader(group.payload), []
        for _ in range(group.count):
            tiles = []
            for *_, height, width in tiles_of(*grid_of(group.height, group.width)):
                tile = read_tile(prior, channel, reader, height, width)
                made = {"measure": tile.measure, "classes": tile.classes.tolist()}
                if channel.coder == "trellis":
                    made["path"] = "".join(map(str, tile.symbols))
                else:
                    made["indices"] = tile.symbols.tolist()
                tiles.append(made)
                z.append(_unit(prior, channel, tile))
            images.append(tiles)
        reader.finish()
        parts.append(images)
    return parts, np.concatenate(z)


def _unit(prior, channel: Channel, tile: Tile) -> np.ndarray:
    """z of a tile before it is shrunk."""
    if channel.coder != "trellis":
        return tile_values(prior, channel, tile)
    when = trellis.schedule(sent_rates(prior, tile.classes), tile.measure)
    return trellis.values(tile.symbols, when, log2_states=channel.log2_states, seed=channel.seed)


def reader_integers(fact: dict, data: bytes) -> tuple[list, np.ndarray]:
    """The same of the independent reader, and z float64."""
    file = independent_reader.read(data, reader_model(fact["model"]))
    if not file.parts[0].tiles:
        return [[[shared, own] for shared, own in part.stages] for part in file.parts], np.zeros(0)
    tiles = [tile for part in file.parts for image in part.tiles for tile in image]
    z = np.array([value for tile in tiles for value in tile["z"]])
    parts = [
        [[{**tile, "classes": tile["classes"].tolist()} for tile in image] for image in part.tiles]
        for part in file.parts
    ]
    for tile in (tile for part in parts for image in part for tile in image):
        del tile["z"]
    return parts, z


def pixels(name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The committed images and z."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as kept:
        images = [kept[f"image{i}"] for i in range(sum(key.startswith("image") for key in kept.files))]
        return images, kept["z"]
