"""What one setting of one codec cost and kept, image by image, through real files that were decoded back."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from rcccodec.comparison.image_set import ImageSet

Encode = Callable[[list[np.ndarray]], bytes]
Decode = Callable[[bytes], list[np.ndarray]]

KEPT_PICTURES = 8
MS_SSIM_SIDE = 161  # five scales of an 11x11 window need this many pixels


@dataclass(frozen=True)
class BitsSplit:
    """Where the bits of a file of latents go, bits an image; the four add up to the whole file.

    divergence_bits: of the posteriors from the priors, what the channel costs at the least. search_bits: what
    is sent through the channel less the divergence; below 0 where a search was cut short, which then shows in
    the distortion. class_bits: which priors. framing_bits: headers, lengths and checksums.
    """

    divergence_bits: float
    search_bits: float
    class_bits: float
    framing_bits: float


@dataclass(frozen=True)
class Point:
    """One setting of a codec on n images.

    payload_bits, file_bits: float64 (n,). An archive's file is shared out: payload by ideal code lengths, or
    equally where a codec has none to show. squared_error: (n,), summed over all samples, pixels in [0, 1].
    samples: (n,), h * w * channels. ms_ssim: (n,) or None. encode_s, decode_s: seconds an image.
    pictures: the first decoded images. codebooks: (bits an image, squared error) of every seed.
    certified: share of PFR choices that are certain. blocks_per_index: of each stage, in this codec's files.
    split: of files of latents.
    """

    setting: str
    payload_bits: np.ndarray
    file_bits: np.ndarray
    squared_error: np.ndarray
    samples: np.ndarray
    encode_s: float | None
    decode_s: float | None
    ms_ssim: np.ndarray | None = None
    pictures: tuple[np.ndarray, ...] = ()
    beta: float | None = None
    rung: int | None = None
    index_code: str | None = None
    codebooks: tuple[tuple[float, float], ...] = ()
    certified: float | None = None
    blocks_per_index: tuple[int, ...] = ()
    split: BitsSplit | None = None


@dataclass(frozen=True)
class Curve:
    """A codec at all its settings, in order.

    key: short and fit for a file name. kind: "rcc", "reference" or "bound" (no files behind it).
    exact: whether the guarantee of channel simulation is its own. sha256: of its model.
    coder, effort: of a model of latents; no effort where the number of candidates was given.
    """

    key: str
    name: str
    description: str
    points: tuple[Point, ...]
    kind: str = "reference"
    exact: bool = False
    sha256: str | None = None
    coder: str | None = None
    effort: int | None = None


def axis_bits(point: Point, images: ImageSet) -> np.ndarray:
    """What is plotted for every image: its share of an archive's payload, or its whole file."""
    return point.payload_bits if images.archive else point.file_bits


def mean_psnr_db(point: Point, images: ImageSet, shares: np.ndarray | None = None) -> np.ndarray:
    """PSNR of the mean squared error of an archive; of photographs the mean of each one's PSNR.

    Args:
        shares: (..., n) weights of the images that sum to 1; equal if None.

    Returns:
        float64 (...).
    """
    shares = np.full(len(point.samples), 1 / len(point.samples)) if shares is None else shares
    if images.archive:
        error = (shares @ point.squared_error) / (shares @ point.samples)
        return -10 * np.log10(np.maximum(error, 1e-12))
    return shares @ (-10 * np.log10(np.maximum(point.squared_error / point.samples, 1e-12)))


def measure_point(
    images: ImageSet,
    setting: str,
    encode: Encode,
    decode: Decode,
    *,
    payload_bits: Callable[[bytes], int],
    share_bits: Callable[[bytes], np.ndarray] | None = None,
    beta: float | None = None,
) -> Point:
    """Encode, decode, compare: one file for an archive, else one an image.

    Args:
        payload_bits: of a file, headers left out.
        share_bits: ideal code lengths of a file's images, (n,).

    Raises:
        AssertionError: the decoded images have other shapes than the originals.
    """
    jobs = [images.images] if images.archive else [[x] for x in images.images]
    payloads, files, decoded, encode_s, decode_s = [], [], [], 0.0, 0.0
    for job in jobs:
        began = time.perf_counter()
        data = encode(job)
        encoded = time.perf_counter()
        pictures = decode(data)
        encode_s += encoded - began
        decode_s += time.perf_counter() - encoded
        if [x.shape for x in pictures] != [x.shape for x in job]:
            raise AssertionError(f"{setting}: decodes to other shapes")
        payload, count = payload_bits(data), len(job)
        share = np.full(count, payload / count) if share_bits is None else share_bits(data)
        payloads.append(share + (payload - share.sum()) / count)
        files.append(payloads[-1] + (8 * len(data) - payload) / count)
        decoded += pictures
    count = len(images.images)
    return Point(
        setting=setting,
        payload_bits=np.concatenate(payloads),
        file_bits=np.concatenate(files),
        squared_error=squared_errors(images.images, decoded),
        samples=np.array([x.size for x in images.images], dtype=np.float64),
        encode_s=encode_s / count,
        decode_s=decode_s / count,
        ms_ssim=ms_ssim(images.images, decoded),
        pictures=tuple(decoded[:KEPT_PICTURES]),
        beta=beta,
    )


def squared_errors(images: Sequence[np.ndarray], decoded: Sequence[np.ndarray]) -> np.ndarray:
    """Summed squared error of every image, pixels in [0, 1], float64 (n,)."""
    pairs = zip(images, decoded, strict=True)
    return np.array([np.square(x.astype(np.float64) - y).sum() / 255**2 for x, y in pairs])


def ms_ssim(images: Sequence[np.ndarray], decoded: Sequence[np.ndarray]) -> np.ndarray | None:
    """MS-SSIM of every image, (n,); None if one is too small for five scales or pytorch-msssim is missing."""
    if min(min(x.shape[:2]) for x in images) < MS_SSIM_SIDE:
        return None
    try:
        from pytorch_msssim import ms_ssim as of_tensors
    except ImportError:
        return None
    import torch

    def tensor(x: np.ndarray) -> torch.Tensor:
        planes = x[:, :, None] if x.ndim == 2 else x
        return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32))[None]

    pairs = zip(images, decoded, strict=True)
    return np.array([float(of_tensors(tensor(x), tensor(y), data_range=255)) for x, y in pairs])


def average_codebooks(points: Sequence[Point], images: ImageSet) -> Point:
    """The mean of one setting over its codebooks; pictures are those of the first."""

    def mean(name: str) -> np.ndarray:
        return np.mean([getattr(point, name) for point in points], axis=0)

    certified = [point.certified for point in points if point.certified is not None]
    splits = [asdict(point.split) for point in points if point.split is not None]
    return replace(
        points[0],
        payload_bits=mean("payload_bits"),
        file_bits=mean("file_bits"),
        squared_error=mean("squared_error"),
        ms_ssim=None if points[0].ms_ssim is None else mean("ms_ssim"),
        encode_s=float(mean("encode_s")),
        decode_s=float(mean("decode_s")),
        codebooks=tuple((float(axis_bits(p, images).mean()), float(p.squared_error.mean())) for p in points),
        certified=math.fsum(certified) / len(certified) if certified else None,
        split=BitsSplit(**{name: float(np.mean([s[name] for s in splits])) for name in splits[0]})
        if splits
        else None,
    )
