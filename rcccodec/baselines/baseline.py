"""A trained baseline: images to the bytes of a whole file and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcccodec.baselines.bundle import DESCRIPTION, Bundle
from rcccodec.baselines.coding import Part, code_parts, picture_parts, read_codes, read_picture
from rcccodec.baselines.file import ID_BYTES, Group, NtcFile, pack, unpack
from rcccodec.baselines.tables import Reader, encode
from rcccodec.errors import FormatError, InputError, LimitError, ModelError
from rcccodec.model_search import identify

DEFAULT_SEARCH_PASSES = 1  # the codec searches too

Item = NDArray[Any]  # uint8 (h, w) or (h, w, 3); float (m,) for vectors


class Baseline:
    """``name``, ``kind``, ``betas`` (rising), ``sha256`` and ``card`` (``baseline.json``) of a loaded bundle.

    Invariants: decompress(compress(images, beta)) has the images' number and shapes; it is the same at every
    call on one machine; the length of compress(...) is all that a file costs.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.name, self.sha256, self.card = bundle.name, bundle.sha256, bundle.card
        self.kind, self.betas = bundle.spec.kind, bundle.spec.betas
        self._spec, self._network, self._tables = bundle.spec, bundle.network, bundle.tables

    @torch.no_grad()
    def compress(
        self,
        images: Sequence[Item],
        beta: float,
        *,
        string_each: bool = False,
        search_passes: int | None = None,
    ) -> bytes:
        """One whole file.

        Args:
            images: at least one, uint8 (h, w) or (h, w, 3); those of the baseline's own size unless it is one
                of photographs. For ``vector``: float (m,).
            beta: one of ``betas``.
            string_each: a string of whole 32-bit words for each code, as CompressAI does, not one for all.
            search_passes: of `refine.refine` over the latents; 0 is the plain encoder of the literature.
                Default: ``default_search_passes``.

        Raises:
            InputError: no images, or of a size or kind that the baseline does not code.
            LimitError: a slope it was not trained for, or a search where there is none.
        """
        if beta not in self.betas:
            known = ", ".join(f"{b:g}" for b in self.betas)
            raise LimitError(f"{self.name}: not trained for slope {beta:g}, but for {known}")
        if search_passes is None:
            search_passes = self.default_search_passes
        if search_passes and self._spec.photographs:
            raise LimitError(f"{self.name}: no search for photographs")
        slope = self.betas.index(beta)
        arrays = [np.asarray(image) for image in images]
        if not arrays:
            raise InputError(f"{self.name}: no images to compress")
        for array in arrays:
            self._check(array)
        codes = self._code_parts(arrays, slope, string_each, search_passes)
        strings = [encode(parts) for parts in codes]
        groups = tuple(
            Group(len(list(run)), shape) for shape, run in groupby(_shape_of(array) for array in arrays)
        )
        return pack(NtcFile(self._id, slope, string_each, groups, tuple(strings)))

    def _code_parts(self, arrays: list[Item], slope: int, each: bool, search_passes: int) -> list[list[Part]]:
        """The parts of every string."""
        if self._spec.photographs:
            pictures = [picture_parts(self._network, self._tables, _planes(a), slope) for a in arrays]
            return pictures if each else [[part for parts in pictures for part in parts]]
        x = torch.stack([_row(array) for array in arrays])
        missing = -len(x) % self._spec.images_per_code
        x = torch.cat([x, x[-1:].expand(missing, -1)]).view(-1, self._spec.dim)
        parts = code_parts(self._network, self._tables, x, slope, search_passes)
        if not each:
            return [parts]
        ((symbols, rows, tables),) = parts
        return [
            [(s, r, tables)] for s, r in zip(np.split(symbols, len(x)), np.split(rows, len(x)), strict=True)
        ]

    @torch.no_grad()
    def decompress(self, data: bytes) -> list[Item]:
        """The images of a file: uint8, or float32 for vectors.

        Raises:
            FormatError: damaged or foreign. ModelError: made with another baseline.
        """
        file = unpack(data)
        if file.baseline_id != self._id:
            made_with = identify(file.baseline_id, DESCRIPTION)
            raise ModelError(f"made with baseline {made_with}, not {self.name} ({self.sha256[:12]})")
        if file.slope >= len(self.betas):
            raise FormatError(f"slope number {file.slope}; {self.name} has {len(self.betas)}")
        shapes = [group.shape for group in file.groups for _ in range(group.count)]
        if self._spec.photographs:
            return self._read_pictures(file, shapes)
        if any(shape != self._item_shape for shape in shapes):
            raise FormatError("images of another size than the baseline's")
        num_codes = -(-len(shapes) // self._spec.images_per_code)
        self._check_strings(file, num_codes)
        counts = [1] * num_codes if file.each else [num_codes]
        x = torch.cat(
            [
                read_codes(self._network, self._tables, Reader(string), count, file.slope)
                for string, count in zip(file.strings, counts, strict=True)
            ]
        ).reshape(num_codes * self._spec.images_per_code, -1)[: len(shapes)]
        if self.kind == "vector":
            return list(x.numpy())
        pixels = _to_pixels(x).reshape(len(x), *self._spec.shape)
        return [image[:, :, 0] if image.shape[2] == 1 else image for image in pixels]

    @property
    def default_search_passes(self) -> int:
        """What ``compress`` does unless told: 1, and 0 for photographs, which have no search."""
        return 0 if self._spec.photographs else DEFAULT_SEARCH_PASSES

    def payload_bits(self, data: bytes) -> int:
        """Bits of the coded strings in a file, without its header and checksum.

        Raises:
            FormatError: damaged or foreign.
        """
        return unpack(data).payload_bits

    @property
    def _id(self) -> bytes:
        return bytes.fromhex(self.sha256)[:ID_BYTES]

    @property
    def _item_shape(self) -> tuple[int, int, int]:
        if self.kind == "vector":
            return (self._spec.shape[0], 1, 0)
        height, width, channels = self._spec.shape
        return (height, width, channels)

    def _check(self, array: Item) -> None:
        if self.kind == "vector":
            if array.shape != self._spec.shape or not np.isfinite(array).all():
                raise InputError(f"{self.name}: codes finite vectors of {self._spec.shape[0]} values")
            return
        if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))):
            raise InputError(f"{self.name}: images are uint8 (h, w) or (h, w, 3)")
        if min(array.shape) < 1 or max(array.shape) > 1 << 16:
            raise InputError(f"{self.name}: an image of {array.shape[1]}x{array.shape[0]} is not coded")
        if not self._spec.photographs and _shape_of(array) != self._item_shape:
            size, own = ("x".join(map(str, s)) for s in (_shape_of(array), self._item_shape))
            raise InputError(f"{self.name}: codes images of {own}, not {size}")

    def _read_pictures(self, file: NtcFile, shapes: list[tuple[int, int, int]]) -> list[Item]:
        if any(shape[2] not in (1, 3) for shape in shapes):
            raise FormatError("pictures have 1 or 3 channels")
        self._check_strings(file, len(shapes))
        readers = [Reader(string) for string in file.strings]
        images = []
        for i, (height, width, channels) in enumerate(shapes):
            reader = readers[i if file.each else 0]
            made = read_picture(self._network, self._tables, reader, (height, width), file.slope)
            if channels == 1:
                images.append(_to_pixels(made[0].mean(0)))
            else:
                images.append(np.ascontiguousarray(_to_pixels(made[0]).transpose(1, 2, 0)))
        return images

    def _check_strings(self, file: NtcFile, num_codes: int) -> None:
        wanted = num_codes if file.each else 1
        if len(file.strings) != wanted:
            raise FormatError(f"{len(file.strings)} coded strings, not {wanted}")


def _shape_of(array: Item) -> tuple[int, int, int]:
    if array.ndim == 1:
        return (len(array), 1, 0)
    return (array.shape[0], array.shape[1], array.shape[2] if array.ndim == 3 else 1)


def _row(array: Item) -> Tensor:
    flat = torch.from_numpy(np.ascontiguousarray(array).reshape(-1))
    return flat.float() / 255 if flat.dtype == torch.uint8 else flat.float()


def _planes(array: Item) -> Tensor:
    """A picture as (1, 3, h, w) in [0, 1]; grey ones have three equal planes."""
    colours = np.repeat(array.reshape(*array.shape[:2], -1), 3, 2) if _shape_of(array)[2] == 1 else array
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1))[None]).float() / 255


def _to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """Clipped, rounded half to even."""
    pixels: NDArray[np.uint8] = torch.round(x.clamp(0, 1) * 255).to(torch.uint8).numpy()
    return pixels
