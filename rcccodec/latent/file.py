"""Images to ``.rcc`` files of version 3 and back, at a slope, a rate or a quality that was asked for."""

from __future__ import annotations

import math
import operator
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rcccodec import container
from rcccodec.container import (
    CODERS,
    LEAST_LOG2_LATENT,
    MAX_LOG2_STATES,
    MAX_SEED,
    MODEL_ID_BYTES,
    MODES,
    Group,
    Header,
)
from rcccodec.errors import FormatError, LimitError, ModelError
from rcccodec.images import from_float, to_channels
from rcccodec.latent import codec
from rcccodec.latent.bands import Region, read_picture
from rcccodec.latent.codec import Coded, Latents, Progress
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import LEAST_TILE_BYTES, Channel, Reader
from rcccodec.latent.report import LatentReport, psnr_db
from rcccodec.latent.windows import LATENT_STRIDE, TILE, grid_of, tiles_of
from rcccodec.layout import group_images
from rcccodec.model_search import wrong_model

DEFAULT_CODER, DEFAULT_EFFORT = "trellis", 5
TRELLIS_EFFORT = (8, 9, 10, 11, 12, 13, 14, 15, 16)  # L of efforts 1 to 9
CHUNK_EFFORT = (8, 10, 12, 13, 14, 16, 17, 18, 20)  # log2 N
MOST_LOG2_CHUNKS = 24
DEFAULT_GAIN = 0.8  # below 1 a higher slope with fewer bits is better than a lower one with all of them
LEAST_GAIN, MOST_GAIN = 0.4, 1.6
_GREY_AT_ONCE = 1 << 20  # pixels
TARGET_STEPS = 6  # of a search for a gain that reaches a quality
_TILE = (TILE * LATENT_STRIDE, TILE * LATENT_STRIDE)

Encode = Callable[..., list[Coded]]  # what `encode_pictures` is, or does the same


@dataclass(frozen=True)
class LatentSettings:
    """How a file is made: model, number of its slope, channel; ``gain`` bits a bit of divergence.

    apart: every image of an archive has a payload of its own.
    """

    model: LatentModel
    slope: int
    channel: Channel
    gain: float = DEFAULT_GAIN
    apart: bool = True

    def header(self, *, records: bool = False) -> Header:
        """What the file says of these settings; ``records``: it has several groups."""
        return Header(
            model_id=bytes.fromhex(self.model.sha256)[:MODEL_ID_BYTES],
            rung=self.slope,
            coder=CODERS.index(self.channel.coder),
            index_code=0,
            num_candidates=self.channel.num_candidates,
            seed=self.channel.seed,
            latent=True,
            records=records,
        )


def choose_settings(
    model: LatentModel,
    *,
    slope: int | None = None,
    coder: str | None = None,
    effort: int | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
    apart: bool = True,
) -> LatentSettings:
    """An encoder's settings; None takes the default. ``num_candidates`` overrides what ``effort`` stands for.

    Raises:
        LimitError: a value is out of range. ModelError: the model has no code for this coder.
    """
    num_candidates = None if num_candidates is None else _whole("candidates", num_candidates)
    slope = _whole("rung", model.default_rung if slope is None else slope)
    coder = DEFAULT_CODER if coder is None else coder
    effort = _whole("effort", DEFAULT_EFFORT if effort is None else effort)
    seed = _whole("seed", model.default_seed if seed is None else seed)
    if not 0 <= slope < len(model.spec.betas):
        raise LimitError(f"rung {slope}: model {model.name} has rungs 0 to {len(model.spec.betas) - 1}")
    if coder not in CODERS:
        raise LimitError(f"coder {coder!r}: must be one of {', '.join(CODERS)}")
    if not 1 <= effort <= len(TRELLIS_EFFORT):
        raise LimitError(f"effort {effort}: must be 1 to {len(TRELLIS_EFFORT)}")
    if not 0 <= seed <= MAX_SEED:
        raise LimitError(f"seed {seed}: must be an unsigned 64-bit integer")
    most = MAX_LOG2_STATES if coder == "trellis" else MOST_LOG2_CHUNKS
    if num_candidates is None:
        num_candidates = 1 << (TRELLIS_EFFORT if coder == "trellis" else CHUNK_EFFORT)[effort - 1]
    log2 = num_candidates.bit_length() - 1
    if num_candidates != 1 << max(log2, 0) or not LEAST_LOG2_LATENT <= log2 <= most:
        raise LimitError(
            f"{num_candidates} candidates: {coder} takes a power of two, 2^{LEAST_LOG2_LATENT} to 2^{most}"
        )
    channel = Channel(coder, num_candidates, seed, _codes(model, coder))
    return LatentSettings(model, slope, channel, apart=apart)


def _whole(what: str, value: int) -> int:
    try:
        return operator.index(value)  # numpy's integers too
    except TypeError as error:
        raise LimitError(f"{what} {value!r:.40}: must be a whole number") from error


def _codes(model: LatentModel, coder: str) -> dict[int, list[int]]:
    if coder == "trellis":
        return {}
    if not model.chunk_codes.get(coder):
        raise ModelError(f"model {model.name} has no index code for coder {coder}")
    return model.chunk_codes[coder]


@dataclass(frozen=True)
class LatentFile:
    """A compressed file, the images it decodes to, and its report."""

    data: bytes
    images: list[NDArray[np.uint8]]
    report: LatentReport


def compress(
    sources: Sequence[NDArray[np.uint8]],
    settings: LatentSettings,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    encode: Encode | None = None,
) -> LatentFile:
    """One file of uint8 images (h, w) or (h, w, 3); ``encode``: None is `encode_pictures`."""
    return _write(sources, None, settings, time.perf_counter(), device, progress, encode)


def compress_to_bits(
    sources: Sequence[NDArray[np.uint8]],
    settings: LatentSettings,
    target_bits: int,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    encode: Encode | None = None,
) -> LatentFile:
    """The largest file of at most ``target_bits``, known before the search: the slope nearest, and its gain.

    Raises:
        LimitError: the smallest file is larger, or the coder is none whose size is known before.
    """
    if settings.channel.coder != "trellis":
        raise LimitError(f"coder {settings.channel.coder}: only files of a trellis are made to a size")
    start_s = time.perf_counter()
    best: tuple[float, LatentSettings, list[Latents]] | None = None
    smallest = 0
    for slope in range(len(settings.model.spec.betas)):
        at_slope = replace(settings, slope=slope)
        latents = [_analyse(x, at_slope) for x in sources]
        least, plain = (
            8 * _size(sources, latents, replace(at_slope, gain=g)) for g in (LEAST_GAIN, DEFAULT_GAIN)
        )
        if slope == 0:
            smallest = least
        away = abs(math.log(plain / min(max(1, target_bits), sys.maxsize)))
        if least <= target_bits and (best is None or away < best[0]):
            best = away, at_slope, latents
    if best is None:
        raise LimitError(
            f"target of {target_bits} bits: the smallest file this model makes of it has {smallest}"
        )
    _, at_slope, latents = best
    low, high = LEAST_GAIN, MOST_GAIN
    for _ in range(24):
        middle = (low + high) / 2
        fits = 8 * _size(sources, latents, replace(at_slope, gain=middle)) <= target_bits
        low, high = (middle, high) if fits else (low, middle)
    return _write(sources, latents, replace(at_slope, gain=low), start_s, device, progress, encode)


def compress_to_psnr(
    sources: Sequence[NDArray[np.uint8]],
    settings: LatentSettings,
    target_db: float,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    encode: Encode | None = None,
) -> LatentFile:
    """About the smallest file that reaches ``target_db``: the lowest slope that can, at the least gain.

    Raises:
        LimitError: the best slope does not reach it.
    """
    start_s = time.perf_counter()

    def reached(file: LatentFile) -> float:
        return math.inf if file.report.psnr_db is None else file.report.psnr_db

    def at(gain: float) -> LatentFile:
        return _write(sources, latents, replace(at_slope, gain=gain), start_s, device, progress, encode)

    best_db = -math.inf
    for slope in range(len(settings.model.spec.betas)):
        at_slope = replace(settings, slope=slope)
        latents = [_analyse(x, at_slope) for x in sources]
        last = slope == len(settings.model.spec.betas) - 1
        low, high = LEAST_GAIN, DEFAULT_GAIN
        found = at(high)
        if reached(found) < target_db and last:
            low, high = DEFAULT_GAIN, MOST_GAIN
            found = at(high)
        if reached(found) < target_db:
            best_db = max(best_db, reached(found))
            continue
        for _ in range(TARGET_STEPS):
            middle = (low + high) / 2
            tried = at(middle)
            if reached(tried) >= target_db:
                found, high = tried, middle
            else:
                low = middle
        return replace(found, report=replace(found.report, encode_s=time.perf_counter() - start_s))
    raise LimitError(f"target of {target_db:g} dB: the best this model reaches on it is {best_db:.2f} dB")


def encode_pictures(
    sources: Sequence[NDArray[np.uint8]],
    latents: Sequence[Latents] | None,
    settings: LatentSettings,
    device: str,
    progress: Progress | None,
) -> list[Coded]:
    """Search every picture, in order.

    Args:
        latents: of every picture, at the slope of ``settings``; None: not made yet.
        progress: told (bits done, bits in all), as far as they are known.
    """
    coded: list[Coded] = []
    for number, x in enumerate(sources):
        told = None if progress is None else _share(progress, number, len(sources))
        given = None if latents is None else latents[number]
        coded.append(encode_picture(x, given, settings, device, told))
    return coded


def encode_picture(
    x: NDArray[np.uint8],
    latents: Latents | None,
    settings: LatentSettings,
    device: str,
    progress: Progress | None,
) -> Coded:
    """Search one picture; see `encode_pictures`."""
    return codec.encode_picture(
        settings.model, latents or _analyse(x, settings), settings.channel, gain=settings.gain, device=device,
        progress=progress,
    )  # fmt: skip


def _analyse(x: NDArray[np.uint8], settings: LatentSettings) -> Latents:
    return codec.analyse_picture(settings.model, to_channels(x, 3)[0], settings.slope)


def _size(sources: Sequence[NDArray[np.uint8]], latents: list[Latents], settings: LatentSettings) -> int:
    """Bytes of a file of trellises, without a search."""
    payloads = iter(latents)
    groups = []
    for layout in group_images(sources, _TILE, apart=settings.apart):
        size = sum(
            codec.trellis_bytes(settings.model, next(payloads), settings.gain) for _ in range(layout.count)
        )
        groups.append(_group(layout.colour, layout.count, layout.width, layout.height, bytes(size)))
    return len(container.pack(settings.header(records=len(groups) > 1), groups))


def _write(
    sources: Sequence[NDArray[np.uint8]],
    latents: list[Latents] | None,
    settings: LatentSettings,
    start_s: float,
    device: str,
    progress: Progress | None,
    encode: Encode | None,
) -> LatentFile:
    coded = (encode or encode_pictures)(sources, latents, settings, device, progress)
    groups, first = [], 0
    for layout in group_images(sources, _TILE, apart=settings.apart):
        payload = b"".join(one.data for one in coded[first : first + layout.count])
        groups.append(_group(layout.colour, layout.count, layout.width, layout.height, payload))
        first += layout.count
    data = container.pack(settings.header(records=len(groups) > 1), groups)
    images = [
        _pixels(codec.decode_picture(settings.model, settings.slope, one.y, x.shape[:2]), x.ndim == 2)
        for one, x in zip(coded, sources, strict=True)
    ]
    class_bits, dimension_bits = (
        8 * sum(getattr(c, f"{part}_bytes") for c in coded) for part in ("class", "dimension")
    )
    report = LatentReport(
        file_bytes=len(data),
        payload_bits=8 * sum(len(group.payload) for group in groups),
        bpp=8 * len(data) / sum(x.shape[0] * x.shape[1] for x in sources),
        psnr_db=psnr_db(sources, images),
        class_bits=class_bits,
        dimension_bits=dimension_bits,
        framing_bits=8 * len(data) - class_bits - dimension_bits,
        divergence_bits=sum(c.divergence_bits for c in coded),
        expected_bits=sum(c.expected_bits for c in coded),
        positions=sum(math.prod(grid_of(*x.shape[:2])) for x in sources),
        coder=settings.channel.coder,
        log2_num_candidates=math.log2(settings.channel.num_candidates),
        encode_s=time.perf_counter() - start_s,
        model=settings.model.name,
        rung=settings.slope,
        beta=settings.model.spec.betas[settings.slope],
    )
    return LatentFile(data, images, report)


def decompress(
    header: Header, groups: Sequence[Group], model: LatentModel, region: Region | None = None
) -> list[NDArray[np.uint8]]:
    """The images of an unpacked file, or a region of its only image.

    Raises:
        FormatError: a damaged payload. LimitError: a region outside the image, or of several images.
        ModelError: the file was made with another model.
    """
    channel = _read_channel(header, model)
    if region is not None:
        check_region(region, groups)
    images = []
    for group in groups:
        reader, size = Reader(group.payload), (group.height, group.width)
        least = LEAST_TILE_BYTES * group.count * len(tiles_of(*grid_of(*size)))
        if len(group.payload) < least:
            raise FormatError(
                f"a payload of {len(group.payload)} bytes for tiles that take {least} at the least"
            )
        for _ in range(group.count):
            pixels, _ = read_picture(model, header.rung, channel, reader, size, region)
            images.append(_pixels(pixels, MODES[group.mode] == "grey"))
        reader.finish()
    return images


@dataclass(frozen=True)
class Prefix:
    """What a file that was cut short still shows: an image, and how many of its tiles are whole."""

    image: NDArray[np.uint8]
    whole_tiles: int
    tiles: int


def decompress_prefix(
    header: Header, group: Group, model: LatentModel, region: Region | None = None
) -> Prefix:
    """The only image of `rcccodec.container.unpack_prefix`, or a region of it, as far as its tiles are whole.

    Where there is no tile the latents are the mean of the prior.

    Raises:
        FormatError: not one whole tile. LimitError, ModelError: as `decompress`.
    """
    channel = _read_channel(header, model)
    if region is not None:
        check_region(region, [group])
    size = (group.height, group.width)
    reader = Reader(group.payload)
    pixels, whole = read_picture(model, header.rung, channel, reader, size, region, partial=True)
    tiles = len(tiles_of(*grid_of(*size)))
    return Prefix(_pixels(pixels, MODES[group.mode] == "grey"), whole, tiles)


def _read_channel(header: Header, model: LatentModel) -> Channel:
    if bytes.fromhex(model.sha256)[:MODEL_ID_BYTES] != header.model_id:
        raise wrong_model(header.model_id, model.name, model.sha256)
    if header.rung >= len(model.spec.betas):
        raise FormatError(f"rung {header.rung}, but model {model.name} has {len(model.spec.betas)}")
    coder = CODERS[header.coder]
    return Channel(coder, header.num_candidates, header.seed, _codes(model, coder))


def check_region(region: Region, groups: Sequence[Group]) -> None:
    """Raises: LimitError: a region outside the image, or of a file of several."""
    if sum(group.count for group in groups) != 1:
        raise LimitError("a region of a file of several images: only one image has regions")
    if len(region) != 4:
        raise LimitError(f"region {region!r:.60}: must be top, left, height and width")
    top, left, height, width = (_whole("region: a part", part) for part in region)
    if min(top, left) < 0 or min(height, width) < 1:
        raise LimitError(
            f"region of {width}x{height} at {left},{top}: sides must be at least 1, the corner inside"
        )
    if top + height > groups[0].height or left + width > groups[0].width:
        raise LimitError(
            f"region of {width}x{height} at {left},{top} reaches outside the image of "
            f"{groups[0].width}x{groups[0].height}"
        )


def _group(colour: bool, count: int, width: int, height: int, payload: bytes) -> Group:
    return Group(MODES.index("rgb" if colour else "grey"), count, width, height, payload)


def _pixels(made: NDArray[np.uint8], grey: bool) -> NDArray[np.uint8]:
    """The picture that was coded, of pixels (h, w, 3); in bands of rows, to save memory."""
    if not grey:
        return made
    picture = np.empty(made.shape[:2], np.uint8)
    rows = max(1, _GREY_AT_ONCE // made.shape[1])
    for top in range(0, len(made), rows):
        picture[top : top + rows] = from_float(made[top : top + rows] / 255, grey=True)
    return picture


def _share(progress: Progress, done_before: int, of: int) -> Progress:
    return lambda done, total: progress(done_before * total + done, of * total)
