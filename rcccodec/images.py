"""Pictures in and out: files to uint8 arrays and back, blocks, PSNR. Pillow and NumPy only.

The rule for every kind of input (what is kept, flattened, refused):

| input                                             | becomes                                     | note |
|---------------------------------------------------|---------------------------------------------|------|
| 1-bit                                             | grey, 0 and 255                             | no   |
| 8-bit grey                                        | grey                                        | no   |
| 8-bit RGB                                         | RGB                                         | no   |
| palette                                           | RGB                                         | yes  |
| alpha, or a transparent colour, of any kind above | composited over white, grey or RGB as above | yes  |
| 16 bits a sample (PNG, TIFF, PPM, any grey)       | 8 bits, the high byte                       | yes  |
| 9 to 16 bits a sample (AVIF, JPEG 2000 colour)    | 8 bits, by Pillow                           | no   |
| CMYK, YCbCr, HSV                                  | RGB by Pillow's conversion                  | yes  |
| EXIF orientation other than upright               | turned upright                              | yes  |
| colour profile                                    | dropped, samples kept as they are           | yes  |
| several pictures of one shot (MPO)                | the first                                   | yes  |
| several frames (animation, many pages)            | refused, InputError                         |      |
| JPEG of over 100 scans, text PPM, 10,000 comments | refused, InputError                         |      |
| floating-point or 32-bit samples, Lab             | refused, InputError                         |      |
| anything else, damaged, truncated, empty          | refused, InputError                         |      |
| more than `max_pixels`, a side above 65535        | refused before decoding, LimitError         |      |

Colours that a model does not have: a grey picture is given to a 3-channel model in all three channels and
comes back grey, the mean of the three; an RGB picture is given to a 1-channel model as luma (Pillow's "L"),
with a note, and comes back grey. Metadata is not kept.
"""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont, UnidentifiedImageError

from rcccodec import atomic
from rcccodec.errors import InputError, LimitError, OutputError
from rcccodec.pillow_guards import check_work, silent_libraries
from rcccodec.plain_file import open_plain
from rcccodec.tiles import from_blocks, pad_to_multiple, to_blocks

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "check_ending",
    "from_blocks",
    "from_float",
    "image_bytes",
    "names_a_picture",
    "pad_to_multiple",
    "psnr_db",
    "read_image",
    "side_by_side",
    "to_blocks",
    "to_channels",
    "write_image",
]

MAX_PIXELS = 1 << 26
MAX_SIDE = 65535

_MOST_BYTES_A_PIXEL = 16  # twice those of four samples of 16 bits
MAX_FILE_BYTES = _MOST_BYTES_A_PIXEL * MAX_PIXELS  # of a picture's file

_BAND_PIXELS = 1 << 20  # worked on at a time where that takes many bytes a pixel
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".pnm": ("PPM", {}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".webp": ("WEBP", {"lossless": True}),
}
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # EXIF orientation -> what undoes it
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


def read_image(
    source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Read one picture by the table at the head of this module.

    Args:
        source: a path of a plain file, or the content of one.
        max_pixels: width times height allowed; checked on the header, before any pixel is decoded.
        name: what messages call the picture; the path, or "image", when not given.

    Returns:
        (image, notes): uint8 of shape (h, w) or (h, w, 3), and one line for everything that was not kept.

    Raises:
        InputError: missing, unreadable, a pipe or device, over 16 bytes a pixel allowed, damaged or refused.
        LimitError: too many pixels.

    Invariant: every failure is one of these two, whatever the bytes are.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(io.BytesIO(source), name or "image", max_pixels)
    try:
        with open_plain(source, _MOST_BYTES_A_PIXEL * max(max_pixels, MAX_PIXELS), name) as file:
            return _read(file, name or os.fspath(source), max_pixels)
    except OSError as error:
        raise InputError(f"{name or os.fspath(source)}: cannot read: {error.strerror or error}") from error


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8], *, overwrite: bool = True) -> None:
    """Write a picture without loss, in the format its name asks for, whole or not at all.

    Args:
        path: ends in .png, .ppm, .pgm, .pnm, .bmp, .tif, .tiff or .webp.
        image: uint8 (h, w) or (h, w, 3).
        overwrite: with False an existing ``path`` is an error.

    Raises:
        OutputError: the ending is another one, or the file cannot be written.
    """
    ending = check_ending(path)
    try:
        content = image_bytes(image, ending)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from error
    atomic.write_bytes(path, content, overwrite=overwrite)


def check_ending(path: str | os.PathLike[str]) -> str:
    """The ending of a name, in lower case, if `write_image` can write such files.

    Raises:
        OutputError: it cannot.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in _WRITERS:
        raise OutputError(f"{path}: pixels are written without loss only; use one of {' '.join(_WRITERS)}")
    return ending


def names_a_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends as those of image files do, also such as cannot be written here."""
    return os.path.splitext(os.fspath(path))[1].lower() in Image.registered_extensions()


def image_bytes(image: NDArray[np.uint8], ending: str = ".png") -> bytes:
    """The content `write_image` would give a file of that ending; ``image`` is uint8 (h, w) or (h, w, 3)."""
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an image is uint8 (h, w) or (h, w, 3), not {image.dtype} {image.shape}")
    kind, options = _WRITERS[ending]
    buffer = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **options)
    except (OSError, ValueError, KeyError) as error:  # WebP stops at 16383 pixels a side
        raise OutputError(f"a {image.shape[1]}x{image.shape[0]} image cannot be {kind}: {error}") from error
    return buffer.getvalue()


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio, 10 log10(255^2 / mean squared error) over all samples; inf if equal.

    Args:
        a, b: uint8, the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    mean_squared = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return math.inf if mean_squared == 0 else 10 * math.log10(255**2 / mean_squared)


def side_by_side(
    original: NDArray[np.uint8], reconstruction: NDArray[np.uint8], captions: tuple[str, str]
) -> NDArray[np.uint8]:
    """Two pictures next to each other, each over its caption; small ones are magnified by a whole factor.

    Args:
        original, reconstruction: uint8 (h, w) or (h, w, 3); sizes may differ.
        captions: one line each; a line too wide for its picture widens the column.

    Returns:
        uint8 (H, W, 3), white around the pictures.
    """
    gap = 8
    longest = max(original.shape[:2] + reconstruction.shape[:2])
    magnification = max(1, 256 // longest)
    panels = [
        Image.fromarray(to_channels(image, 3)[0]).resize(
            (image.shape[1] * magnification, image.shape[0] * magnification), Image.Resampling.NEAREST
        )
        for image in (original, reconstruction)
    ]
    font = ImageFont.load_default()
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [ruler.textbbox((0, 0), caption, font=font) for caption in captions]
    widths = [max(panel.width, math.ceil(box[2])) for panel, box in zip(panels, boxes, strict=True)]
    height = max(panel.height for panel in panels)
    text_height = math.ceil(max(box[3] for box in boxes))
    canvas = Image.new("RGB", (sum(widths) + 3 * gap, height + text_height + 3 * gap), "white")
    draw = ImageDraw.Draw(canvas)
    left = gap
    for panel, width, caption in zip(panels, widths, captions, strict=True):
        canvas.paste(panel, (left, gap))
        draw.text((left, height + 2 * gap), caption, fill="black", font=font)
        left += width + gap
    return np.asarray(canvas).copy()


def to_channels(image: NDArray[np.uint8], channels: int) -> tuple[NDArray[np.uint8], list[str]]:
    """What a model of ``channels`` (1 or 3) channels is given for a picture.

    Args:
        image: uint8 (h, w), (h, w, 1) or (h, w, 3).

    Returns:
        (uint8 (h, w, channels), notes).

    Invariant: ``from_float(to_channels(grey, c)[0] / 255, grey=True)`` is ``grey`` for c = 1 and 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"a model has 1 or 3 channels, not {channels}")
    planes = image[:, :, None] if image.ndim == 2 else image
    if planes.shape[2] == channels:
        return planes, []
    if channels == 3:
        return np.repeat(planes, 3, axis=2), []
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(planes)).convert("L"))
    return luma[:, :, None], ["colour reduced to luma for a grey model"]


def from_float(pixels: NDArray[np.floating[Any]], *, grey: bool) -> NDArray[np.uint8]:
    """Decoded values to a picture: mean of the channels if grey, clipped, rounded half to even.

    Args:
        pixels: (h, w, 1 or 3), in units of pixel / 255.
        grey: whether the picture that was compressed is grey; always True for one channel.

    Returns:
        uint8 (h, w) when grey, else (h, w, 3).
    """
    channels = pixels.shape[2]
    if channels == 1:
        values = pixels[:, :, 0]
    else:  # summed by hand: the same order of additions everywhere
        values = (pixels[:, :, 0] + pixels[:, :, 1] + pixels[:, :, 2]) / 3 if grey else pixels
    rounded: NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return rounded


def _read(file: IO[bytes], name: str, max_pixels: int) -> tuple[NDArray[np.uint8], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of size and of damaged metadata; both are settled here
        try:
            Image.init()  # a Pillow built without one of the formats must not stumble over its name
            formats = [kind for kind in _FORMATS if kind in Image.OPEN]
            with Image.open(file, formats=formats) as picture:
                _check_size(picture.size, name, max_pixels)
                check_work(file, picture.format or "", name)
                if picture.format != "PNG":
                    return _decode(picture, name)
                picture.verify()  # decoding alone overlooks checksums and a missing end
            file.seek(0)
            with Image.open(file, formats=["PNG"]) as picture:
                return _decode(picture, name)
        except (InputError, LimitError):
            raise
        except Image.DecompressionBombError as error:
            raise LimitError(f"{name}: too many pixels to be read safely") from error
        except UnidentifiedImageError as error:
            cause = "damaged, or not an image of a known kind" if file.seek(0, os.SEEK_END) else "empty"
            raise InputError(f"{name}: {cause}") from error
        except MemoryError as error:  # of a machine too small, or of bytes that ask for too much
            raise LimitError(f"{name}: not enough memory to read it") from error
        except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
            cause = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{name}: unreadable image: {cause}") from error


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name}: an image of {width}x{height} pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > max_pixels:
        raise LimitError(
            f"{name}: {width}x{height} pixels; at most {MAX_SIDE} a side and {max_pixels} in all are read"
        )


def _decode(picture: Image.Image, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    notes: list[str] = []
    if getattr(picture, "n_frames", 1) > 1:
        if picture.format != "MPO":
            raise InputError(f"{name}: refused: several frames; give them one by one")
        notes.append("only the first of several pictures in the file is kept")
    deep = _is_deep(picture)
    turned = (
        _orientation(picture, []) in _UPRIGHT
    )  # Pillow turns a TIFF itself while loading, then drops the tag
    with silent_libraries() if picture.format == "TIFF" else contextlib.nullcontext():
        picture.load()
    if deep:
        notes.append("16 bits a sample reduced to 8")
    image = _flatten(picture, name, deep, notes)
    if "icc_profile" in picture.info:
        notes.append("colour profile dropped")
    orientation = _orientation(picture, notes)
    if orientation in _UPRIGHT:
        image = _UPRIGHT[orientation](image)
    if turned or orientation in _UPRIGHT:
        notes.append("turned upright as its EXIF orientation says")
    return np.ascontiguousarray(image), notes


def _is_deep(picture: Image.Image) -> bool:
    """Whether the file has 16 bits a sample; ask before load(), which forgets how the file was packed."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return True  # these two formats have no 32-bit kind
    packings = [tile[3] for tile in getattr(picture, "tile", ())]
    if picture.format == "PPM":  # (mode, largest value) where the largest is not 255
        return any(isinstance(packing, tuple) and packing[-1] > 255 for packing in packings)
    return picture.format in ("PNG", "TIFF") and any(";16" in str(packing) for packing in packings)


def _flatten(picture: Image.Image, name: str, deep: bool, notes: list[str]) -> NDArray[np.uint8]:
    """Any mode to uint8 (h, w) or (h, w, 3); what is lost goes into ``notes``."""
    mode, clear = picture.mode, picture.info.get("transparency")
    over_white = "transparency composited over white"
    if deep and mode.startswith("I"):
        if isinstance(clear, int):
            notes.append(over_white)
        return _high_bytes(np.asarray(picture), clear if isinstance(clear, int) else None)
    if mode in ("P", "PA"):
        notes.append("palette expanded to RGB")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or (clear is not None and mode in ("1", "L", "P", "RGB")):
        notes.append(over_white)
        flat = _over_white(np.asarray(picture.convert("RGBA")))
        return flat[:, :, 0] if mode in ("1", "L", "LA", "La") else flat
    if mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    if mode in ("CMYK", "YCbCr", "HSV"):
        notes.append(f"{mode} converted to RGB")
    if mode in ("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV"):
        return np.asarray(picture.convert("RGB"))
    kind = {"F": "floating-point", "I": "32-bit"}.get(mode, mode)
    raise InputError(f"{name}: refused: {kind} samples; convert to 8 or 16 bits a sample, grey or RGB")


def _high_bytes(samples: NDArray[Any], clear: int | None) -> NDArray[np.uint8]:
    """16-bit samples (h, w) in 8 bits, those that are ``clear`` white; in bands of rows, to save memory."""
    high = np.empty(samples.shape, np.uint8)
    for rows in _bands(samples):
        part = samples[rows].astype(np.int64)
        high[rows] = (part if clear is None else np.where(part == clear, 65535, part)) >> 8
    return high


def _over_white(layers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (h, w, 4) over white, (h, w, 3), rounded to nearest; in bands of rows, to save memory."""
    flat = np.empty((*layers.shape[:2], 3), np.uint8)
    for rows in _bands(layers):
        part = layers[rows].astype(np.uint32)
        colours, alpha = part[:, :, :3], part[:, :, 3:]
        flat[rows] = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    return flat


def _bands(image: NDArray[Any]) -> Iterator[slice]:
    rows = max(1, _BAND_PIXELS // image.shape[1])
    return (slice(top, top + rows) for top in range(0, len(image), rows))


def _orientation(picture: Image.Image, notes: list[str]) -> int:
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata must not cost the picture
        notes.append("damaged EXIF data ignored")
        return 1
