"""JPEG and WebP through Pillow, a file an image, over their quality settings."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from rcccodec.comparison.image_set import ImageSet
from rcccodec.comparison.measured import Curve, Point, measure_point
from rcccodec.errors import InputError

LEAST_SIDE = 64  # below it their headers are the file
QUALITIES = {
    "jpeg": (1, 3, 5, 8, 12, 18, 26, 40, 60, 80),
    "webp": (0, 1, 3, 6, 12, 20, 30, 50, 75, 90),
}
OPTIONS = {"jpeg": {"format": "JPEG", "optimize": True}, "webp": {"format": "WEBP", "method": 6}}
NAMES = {"jpeg": "JPEG", "webp": "WebP"}


def pillow_curve(
    images: ImageSet, kind: str, done: Callable[[Curve, Point], None] = lambda _curve, _point: None
) -> Curve:
    """Measure ``jpeg`` (optimised Huffman tables) or ``webp`` (method 6) at every quality.

    Raises:
        InputError: an image is smaller than 64 pixels a side, where such files are mostly header.
    """
    if images.shortest_side < LEAST_SIDE:
        raise InputError(f"{kind}: only for images of at least {LEAST_SIDE} pixels a side")
    curve = Curve(kind, NAMES[kind], f"Pillow, whole files, {OPTIONS[kind]}", ())
    points = []
    for quality in QUALITIES[kind]:
        points.append(
            measure_point(
                images,
                f"quality {quality}",
                lambda job, q=quality: _encode(job[0], kind, q),
                lambda data: [_decode(data, kind, images)],
                payload_bits=lambda data: 8 * len(data),
            )
        )
        done(curve, points[-1])
    return Curve(curve.key, curve.name, curve.description, tuple(points))


def _encode(image: np.ndarray, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, quality=quality, **OPTIONS[kind])
    return buffer.getvalue()


def _decode(data: bytes, kind: str, images: ImageSet) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        grey = picture.mode == "L" or (kind == "webp" and not images.colour)  # WebP has no grey mode
        return np.asarray(picture.convert("L" if grey else "RGB"))
