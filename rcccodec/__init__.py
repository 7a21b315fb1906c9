"""Lossy compression by reverse channel coding.

    >>> import rcccodec
    >>> data = rcccodec.compress(image)  # uint8 array (height, width) or (height, width, 3)
    >>> x_hat = rcccodec.decompress(data)

Importing the package loads neither torch nor a model; the first call does. `rcccodec.codec` has the same
two functions with a report of what was spent and reached.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from rcccodec.bundle import AnyModel

    __version__: str

_ROOMS = (
    "bundle", "channel", "codec", "comparison", "container", "errors", "images", "index_code", "proposals",
    "randomness", "rd", "sources", "training",
)  # fmt: skip

__all__ = ["__version__", "compress", "decompress", "load_model"]


def compress(
    image: "np.ndarray | Sequence[np.ndarray]", model: "str | AnyModel" = "photo", **options: Any
) -> bytes:
    """Compress one image, or a list of them into one archive.

    Args:
        image: uint8 (height, width) grey or (height, width, 3) RGB, or a list of such.
        model: name of a shipped model, path of a bundle, or what `load_model` returned.
        options: those of `rcccodec.codec.compress`: ``rung``, ``effort`` (1 to 9, how long to search, of
            models of latents), ``coder``, ``index_code``, ...; or instead of ``rung`` one of ``target_bpp``,
            ``target_bits`` (of the whole file, at most), ``target_psnr_db`` (at least), ``beta`` (the nearest
            slope) and ``quality`` (0 to 100).

    Returns:
        The bytes of a ``.rcc`` file.

    Raises:
        rcccodec.errors.RccError: one subclass per cause, see `rcccodec.errors`; LimitError: a target is out
            of reach, or two of them.
    """
    from rcccodec import codec
    from rcccodec.bundle import load_model
    from rcccodec.errors import LimitError
    from rcccodec.request import SPENDING, Request

    if not any(options.get(name) is not None for name in SPENDING):
        return codec.compress(
            image, model, **{name: value for name, value in options.items() if name not in SPENDING}
        ).data
    if options.pop("rung", None) is not None:
        raise LimitError("rung: the model's rung is found where something else says how much to spend")
    bundle = load_model(model) if isinstance(model, str) else model
    images = [image] if hasattr(image, "shape") else image
    return Request(bundle.name, **options).encode(images, bundle).data


def decompress(
    data: bytes, model: "str | AnyModel | None" = None, **options: Any
) -> "np.ndarray | list[np.ndarray]":
    """Give back the image of a ``.rcc`` file, or the list of images of an archive.

    Args:
        data: the whole file.
        model: the model it was made with, if that is not among the shipped ones.
        options: those of `rcccodec.codec.decompress`: ``max_pixels``, ``region`` (top, left, height, width).

    Returns:
        uint8 (height, width) or (height, width, 3); a list of such for a file of several images.

    Raises:
        FormatError: the file is damaged, truncated or foreign.
        LimitError: it has more than ``max_pixels`` pixels, 2^28 if not given; a region outside the image, or
            of several images.
        ModelError: its model is missing or is not ``model``.
    """
    from rcccodec import codec

    images = codec.decompress(data, model, **options)
    return images[0] if len(images) == 1 else images


def __getattr__(name: str) -> Any:
    """``__version__``, and rooms such as ``rcccodec.codec``: found when they are first asked for."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name == "__version__":
        return globals().setdefault(name, _installed_version())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than the rest of the package

    try:
        return version("rcccodec")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def load_model(name_or_path: str) -> "AnyModel":
    """Load a model bundle once, for many calls; see `rcccodec.bundle.load_model`."""
    from rcccodec.bundle import load_model as load

    return load(name_or_path)
