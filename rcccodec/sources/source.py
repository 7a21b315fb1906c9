"""What a data set looks like to everything that trains on it or measures it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """Items to compress, in the source's own order.

    One of three kinds:

        images       x is uint8 (n, h, w, c), c 1 or 3; shape is (h, w, c)
        vectors      x is float64 (n, m); shape is None
        photographs  x is a list of uint8 (h, w) or (h, w, 3) of any sizes; shape is None

    Attributes:
        name: the specification it was loaded from.
        x: the items.
        shape: of one image, or None.
        notes: one line for everything a reader should know (converted, dropped, shared between splits).
    """

    name: str
    x: NDArray[Any] | list[NDArray[np.uint8]]
    shape: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.x)

    def flattened(self, dtype: Any = np.float32) -> NDArray[Any]:
        """Items as rows: images in units of pixel / 255 in the order (h, w, c), vectors as they are.

        Returns:
            (n, dim) of ``dtype``, a copy.

        Raises:
            ValueError: photographs have no common size; cut them with `random_blocks` or `grid_blocks`.
        """
        if isinstance(self.x, list):
            raise ValueError(f"{self.name}: photographs of any sizes have no rows; cut them into blocks")
        rows = self.x.reshape(len(self.x), -1).astype(dtype)
        return rows if self.shape is None else rows / rows.dtype.type(255)

    def images(self) -> list[NDArray[np.uint8]]:
        """Images or photographs as the codec takes them: uint8 (h, w) or (h, w, 3).

        Raises:
            ValueError: the source is one of vectors.
        """
        if isinstance(self.x, list):
            return list(self.x)
        if self.shape is None:
            raise ValueError(f"{self.name}: vectors are not images")
        return [item[:, :, 0] if self.shape[2] == 1 else item for item in self.x]
