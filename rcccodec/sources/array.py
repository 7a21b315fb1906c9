"""NumPy arrays on disk as sources: images if they look like 8-bit ones, else vectors of real numbers.

The file is mapped, not read: of an array larger than memory only the rows asked for are touched.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import InputError, LimitError
from rcccodec.plain_file import open_plain
from rcccodec.sources.source import Source

ENDING = ".npy"
MAX_VALUES = 1 << 28
HELD_OUT_EVERY = 10  # row 9, 19, 29, ... are the test split


def load_array(path: Path, name: str, split: str, limit: int | None) -> Source:
    """Rows of an array (n, ...); every tenth one is held out for the test split.

    uint8 (n, h, w) and (n, h, w, 1 or 3) are images, other numbers are flattened to vectors as they are.

    Raises:
        InputError: no .npy file, no numbers or pickled objects, no rows in the split, NaN or infinite values.
        LimitError: more than 2^28 values are asked for.
    """
    rows = _mapped(path, name)
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "buif" or rows.ndim < 1:
        raise InputError(f"{name}: expected an array of real numbers, a row a vector or image")
    index = np.arange(len(rows) if rows.size else 0)  # rows of no values cost nothing, however many there are
    held_out = index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    chosen = index[held_out if split == "test" else ~held_out][:limit]
    if not chosen.size:
        raise InputError(f"{name}: an array {rows.shape} has no {split} rows; every tenth row is held out")
    if chosen.size * rows[0].size > MAX_VALUES:
        raise LimitError(f"{name}: {chosen.size} rows of {rows[0].size} values; at most {MAX_VALUES} in all")
    x = np.asarray(rows[chosen])
    if x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))):
        x = x.reshape(*x.shape[:3], -1)
        return Source(name, x, x.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN warn, and are counted below
        x = x.reshape(len(x), -1).astype(np.float64)
    if bad := int((~np.isfinite(x)).sum()):
        raise InputError(f"{name}: {bad} values of its {split} rows are NaN or infinite")
    return Source(name, x)


def _mapped(path: Path, name: str) -> NDArray[Any]:
    try:
        open_plain(path, sys.maxsize, name).close()  # of any size: mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # NumPy parses headers as Python, and damaged ones raise almost anything
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: cannot read as a .npy array of numbers: {cause:.200}") from error
