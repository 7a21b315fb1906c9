"""The images that every codec of a comparison is given, and those that a reference may learn from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rcccodec.errors import InputError
from rcccodec.sources import load_source

EMBEDDED = "sample-digits"
ARCHIVE_BELOW = 64  # images of one size with shorter sides share a file; larger ones get one each
FITTED_ELSEWHERE = {"kodak": "bsds500"}  # what references learn from where a source is for tests only
DEFAULT_SMALL, DEFAULT_PHOTOGRAPHS = 1000, 4


@dataclass(frozen=True)
class ImageSet:
    """Test images uint8 (h, w) or (h, w, 3), in order.

    archive: whether they travel in one file, which is then charged by its payload; else a whole file each.
    """

    name: str
    images: list[np.ndarray]
    archive: bool
    data_root: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def colour(self) -> bool:
        return any(x.ndim == 3 for x in self.images)

    @property
    def pixels(self) -> np.ndarray:
        """Pixels of every image, (n,)."""
        return np.array([x.shape[0] * x.shape[1] for x in self.images], dtype=np.float64)

    @property
    def shortest_side(self) -> int:
        return min(min(x.shape[:2]) for x in self.images)

    @property
    def described(self) -> str:
        """One line: how many of what."""
        sizes = sorted({f"{x.shape[1]}x{x.shape[0]}" for x in self.images})
        shown = ", ".join(sizes[:3]) + (", ..." if len(sizes) > 3 else "")
        return f"first {len(self.images)} of the test split of {self.name}, {shown}"

    @property
    def fitted_on(self) -> str:
        """The source whose training split references are fitted to."""
        return FITTED_ELSEWHERE.get(self.name, self.name)

    def training(self, limit: int) -> list[np.ndarray]:
        """Images of the training split of `fitted_on`.

        Raises:
            InputError: it is missing.
        """
        return load_source(self.fitted_on, "train", self.data_root, limit, download=False).images()


def load_image_set(name: str | None, limit: int | None, data_root: Path | None = None) -> ImageSet:
    """The test images of a source in index order.

    Args:
        name: as in `rcccodec.sources.load_source`; None is the embedded sample.
        limit: how many; None takes 1000 small images or 4 photographs, or what there is.

    Raises:
        InputError: the data set is missing, or one of vectors.
    """
    name = name or EMBEDDED
    source = load_source(name, "test", data_root, limit or DEFAULT_SMALL, download=False)
    if source.shape is None and not isinstance(source.x, list):
        raise InputError(f"{name}: vectors are not images; the benches of the source tree measure those")
    images = source.images()
    archive = len({x.shape for x in images}) == 1 and max(images[0].shape[:2]) < ARCHIVE_BELOW
    if limit is None and not archive:
        images = images[:DEFAULT_PHOTOGRAPHS]
    return ImageSet(name, images, archive, data_root, source.notes)
