"""The worst headers: small files, consistent and with right checksums, that ask for all the work they can.

    python -m fuzz.hostile

Each is decoded in a process of its own with the shipped models, one thread, and its time and peak memory are
held against an honest file's of the same model: processor seconds a megapixel, and bytes of memory a pixel.
A tiny image counts as the pixels that the limit of pixels takes it for.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from rcccodec import codec, container
from rcccodec.bundle import AnyModel, Model, load_model
from rcccodec.container import MAX_SIDE, Group, Header
from rcccodec.decoder import LEAST_WORK_PIXELS
from rcccodec.errors import RccError
from rcccodec.index_code import encode_segments
from rcccodec.latent import trellis
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import chunks_of, sent_rates
from rcccodec.layout import Layout
from rcccodec.settings import Settings

MODELS = ("mnist", "photo", "photo-pixels")
SIDE = 2048  # of large images here: 4 megapixels; time is counted for each of them
TINY = 4096  # images of one pixel
MEMORY_SIDE = 8192  # 67 megapixels, for the memory of a large image
TIMEOUT_S = 600

Make = Callable[[], tuple[bytes, int]]  # a file, and the pixels that it counts as


@dataclass(frozen=True)
class Decoded:
    """``outcome``: "decoded", or the error. ``cpu_s``, ``peak_bytes``: of decoding, above what was before."""

    model: str
    case: str
    file_bytes: int
    pixels: int
    outcome: str
    cpu_s: float
    peak_bytes: int


def measure_hostile_header(
    models: tuple[str, ...] = MODELS, side: int = SIDE, memory_side: int = MEMORY_SIDE
) -> dict[str, Any]:
    """Every case of every model.

    Returns:
        ``cases`` as in `Decoded`; ``worst``: for each model the largest ratios to its honest file, of time a
        pixel and of memory a pixel, over the cases that decode, and what those that are refused take;
        ``hangs``: cases beyond TIMEOUT_S; ``undocumented``: those without image and without documented error.
    """
    start_s = time.monotonic()
    rows: list[Decoded] = []
    for name in models:
        model = load_model(name)
        cases = _latent_cases if isinstance(model, LatentModel) else _one_shot_cases
        for case, make in [("honest", partial(_honest, model, side)), *cases(model, side, memory_side)]:
            rows.append(_in_child(name, case, *make()))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    return {
        "cases": [asdict(row) for row in rows],
        "worst": {name: _worst([row for row in rows if row.model == name]) for name in models},
        "hangs": sum(row.outcome == "hang" for row in rows),
        "undocumented": sum(row.outcome.startswith(("undocumented", "the process died")) for row in rows),
        "seconds": time.monotonic() - start_s,
    }


def _worst(rows: list[Decoded]) -> dict[str, Any]:
    honest, *others = rows
    decoded = [row for row in others if row.outcome == "decoded"]
    refused = [row for row in others if row.outcome != "decoded"]
    large = [row for row in decoded if row.pixels >= honest.pixels]  # what any file takes is a constant
    return {
        "honest_cpu_s_per_megapixel": 1e6 * honest.cpu_s / honest.pixels,
        "honest_bytes_per_pixel": honest.peak_bytes / honest.pixels,
        "cpu_ratio": max(row.cpu_s / row.pixels for row in decoded) * honest.pixels / honest.cpu_s,
        "memory_ratio": max(row.peak_bytes / row.pixels for row in large) * honest.pixels / honest.peak_bytes,
        "refused_cpu_s": max((row.cpu_s for row in refused), default=0.0),
        "refused_peak_bytes": max((row.peak_bytes for row in refused), default=0),
    }


def _honest(model: AnyModel, side: int) -> tuple[bytes, int]:
    """A busy picture: by the cheapest search, for decoding is the same; or every block another candidate."""
    if not isinstance(model, LatentModel):
        mode, top = int(model.channels == 3), len(model.rungs) - 1
        return _one_shot_file(model, top, mode, [(1, side, side)], 20, "fitted", spread=True)
    coarse = np.random.default_rng(0).integers(0, 256, (side // 64, side // 64, 3), np.uint8)
    picture = np.repeat(np.repeat(coarse, 64, 0), 64, 1)
    return codec.compress(picture, model, effort=1).data, side * side


def _one_shot_cases(model: Model, side: int, memory_side: int) -> Iterator[tuple[str, Make]]:
    top, mode = len(model.rungs) - 1, int(model.channels == 3)
    file = partial(partial, _one_shot_file, model, top, mode)
    yield "large, least payload", file([(1, side, side)], 40, "fitted")
    yield "large, zipf of 2^40, all indices unlike", file([(1, side, side)], 40, "zipf", spread=True)
    yield "large, shared indices of 2^40", file([(1, side, side)], 40, "fitted", joint=True)
    yield "images of 1x1", file([(TINY, 1, 1)], 20, "fitted")
    yield "a group an image of 1x1", file([(1, 1, 1)] * TINY, 20, "zipf")
    yield "large in all", file([(1, memory_side, memory_side)], 40, "fitted")
    yield "long and one pixel high", file([(1, MAX_SIDE, 1)] * 16, 40, "fitted")
    noise = np.random.default_rng(0).bytes(1 << 18)
    for case, group in (
        ("2^24 images of 1x1", Group(mode, 1 << 24, 1, 1, bytes(9))),
        ("65535x65535", Group(mode, 1, MAX_SIDE, MAX_SIDE, b"")),
        ("2^28 pixels, no payload", Group(mode, 1, 1 << 14, 1 << 14, b"")),
        ("2^28 pixels, noise", Group(mode, 1, 1 << 14, 1 << 14, noise)),
    ):
        yield case, partial(_bare_file, model, top, group, 40)


def _bare_file(model: AnyModel, rung: int, group: Group, log2_n: int, coder: int = 0) -> tuple[bytes, int]:
    """A file of one group, whatever its payload is."""
    is_latent = isinstance(model, LatentModel)
    code = 0 if is_latent else container.INDEX_CODES.index("fitted")
    header = Header(bytes.fromhex(model.sha256)[:6], rung, coder, code, 1 << log2_n, 0, latent=is_latent)
    return container.pack(header, [group]), group.count * group.width * group.height


def _one_shot_file(
    model: Model,
    rung: int,
    mode: int,
    sizes: list[tuple[int, int, int]],
    log2_n: int,
    index_code: str,
    *,
    joint: bool = False,
    spread: bool = False,
) -> tuple[bytes, int]:
    """(count, width, height) of each group; the cheapest index everywhere, or ``spread`` all unlike."""
    settings = Settings(model, rung, "pfr", index_code, 1 << log2_n, 0, joint)
    rng = np.random.default_rng(0)
    groups, pixels = [], 0
    for count, width, height in sizes:
        layout = Layout(count, height, width, mode == 1, settings.tile)
        pixels += max(LEAST_WORK_PIXELS, layout.num_blocks(settings.tile) * math.prod(settings.tile))
        counts = [layout.num_blocks(stage.block) for stage in settings.step.stages]
        parts = [
            (code, rng.integers(0, code.num_candidates, n) if spread else np.zeros(n, np.int64))
            for code, n in settings.segments(counts)
        ]
        payload = encode_segments(parts, num_blocks=sum(counts))
        groups.append(Group(mode, count, width, height, payload))
    return container.pack(settings.header(records=len(groups) > 1), groups), pixels


def _latent_cases(model: LatentModel, side: int, memory_side: int) -> Iterator[tuple[str, Make]]:
    top = len(model.spec.betas) - 1
    rates = model.priors[top].rates_millibits
    most, least = int((rates > 0).sum(1).argmax()), int(rates.sum(1).argmin())
    file = partial(partial, _latent_file, model, top)
    yield "large, least tiles", file(least, 3, 1, side, side, 20)
    yield "large, most dimensions", file(most, 3, 1, side, side, 20)
    yield "large, a chunk for each dimension", file(most, 0, 1, side, side, 40)
    yield "images of 1x1", file(least, 3, TINY, 1, 1, 20)
    yield "large in all", file(least, 3, 1, memory_side, memory_side, 20)
    yield "long and 16 pixels high", file(least, 3, 1, 256 * 255, 16, 20)
    yield "2^18 images of 1x1", file(least, 3, 1 << 18, 1, 1, 20)
    for case, group in (
        ("65535x65535", Group(1, 1, MAX_SIDE, MAX_SIDE, b"")),
        ("2^28 pixels, no payload", Group(1, 1, 1 << 14, 1 << 14, b"")),
        ("2^28 pixels, zeros", Group(1, 1, 1 << 14, 1 << 14, bytes(1 << 14))),
        ("2^28 pixels, noise", Group(1, 1, 1 << 14, 1 << 14, np.random.default_rng(0).bytes(1 << 14))),
    ):
        yield case, partial(_bare_file, model, top, group, 12, 3)


def _latent_file(
    model: LatentModel, slope: int, cls: int, coder: int, count: int, width: int, height: int, log2_n: int
) -> tuple[bytes, int]:
    """Images whose tiles are alike, of one class and as short as they can be."""
    tiles = -(-width // 256) * -(-height // 256)
    tile = _tile(model, slope, cls, coder, min(16, -(-height // 16)), min(16, -(-width // 16)))
    data, _ = _bare_file(model, slope, Group(1, count, width, height, tile * (count * tiles)), log2_n, coder)
    return data, count * max(LEAST_WORK_PIXELS, width * height)


def _tile(model: LatentModel, slope: int, cls: int, coder: int, rows: int, columns: int) -> bytes:
    """The smallest tile of one class: as few bits as the measure lets it have."""
    prior = model.priors[slope]
    classes = np.full((rows, columns), cls)
    coded, sent = prior.code.encode(classes), sent_rates(prior, classes)
    head = bytes([1]) + container.varint(len(coded)) + coded
    if container.CODERS[coder] == "trellis":
        return head + bytes(-(-trellis.schedule(sent, 1).num_bits // 8))
    zeros = (len(chunks_of(sent, 1)[0]) - 1) // 32
    return head + container.varint(zeros) + bytes(zeros)


def _in_child(model: str, case: str, data: bytes, pixels: int) -> Decoded:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_decode, args=(theirs, model, data))
    child.start()
    theirs.close()
    outcome, cpu_s, peak_bytes = "hang", float(TIMEOUT_S), 0
    try:
        if ours.poll(TIMEOUT_S):
            outcome, cpu_s, peak_bytes = ours.recv()
    except EOFError:
        outcome = "the process died"
    child.kill()
    child.join()
    return Decoded(model, case, len(data), pixels, outcome, cpu_s, peak_bytes)


def _decode(pipe: Any, name: str, data: bytes) -> None:
    import torch

    from fuzz.watch import peak_above, reset_peak

    torch.set_num_threads(1)
    model = load_model(name)
    resident = reset_peak()
    start_s = time.process_time()
    try:
        codec.decompress(data, model)
        outcome = "decoded"
    except RccError as error:
        outcome = f"{type(error).__name__}: {error}"
    except Exception as error:
        outcome = f"undocumented: {type(error).__name__}: {error!s:.100}"
    pipe.send((outcome, time.process_time() - start_s, peak_above(resident)))


def _line(row: Decoded) -> str:
    return (
        f"{row.model:<13}{row.case:<42}{row.file_bytes:>9} bytes {row.pixels / 1e6:9.2f} MP "
        f"{row.cpu_s:8.2f} s {row.peak_bytes >> 20:>6} MiB  {row.outcome:.70}"
    )


if __name__ == "__main__":
    print(json.dumps(measure_hostile_header(), indent=1))
