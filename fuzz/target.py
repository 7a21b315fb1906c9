"""What is fuzzed: a function of bytes, files to begin with, and how to edit them and mend their checksums."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.mutate import Mutation, mutate


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Args:
        name: of the target, and of its folder in the corpus.
        run: reads bytes; a result that can be compared, or an RccError. Raises anything else only on a fault.
        seeds: sound files, and others worth starting from.
        edit: changes a file and mends what guards it; None: there is nothing to mend.
        is_guarded: damage must not go unseen: of files mutated and not mended, a result that no seed has is
            a corruption that nobody noticed.
        agrees: whether a result is among those of the seeds, or is one that damage may leave of them.
        count_share: of all inputs, relative to the other targets.
        spare_bytes: of memory, whatever the input.
    """

    name: str
    run: Callable[[bytes], Any]
    seeds: tuple[bytes, ...] = field(repr=False)
    edit: Mutation | None = None
    is_guarded: bool = False
    agrees: Callable[[set[Any], Any], bool] = operator.contains
    count_share: float = 1.0
    spare_bytes: int = 32 << 20

    @property
    def edits(self) -> Mutation:
        """``edit``, or plain mutations."""
        return self.edit or mutate


class Scratch:
    """Files that a target writes for a reader that wants names; the folder should be in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def put(self, name: str, data: bytes) -> Path:
        """The file ``name`` with this content; a plain write, since another replaces it at once."""
        path = self.folder / name
        path.write_bytes(data)
        return path


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Of shapes, types and values."""
    made = hashlib.sha256()
    for array in arrays:
        made.update(f"{array.dtype.str}{array.shape}".encode())
        made.update(np.ascontiguousarray(array).data if array.size else b"")
    return made.hexdigest()


def expect(is_true: bool, what: str) -> None:
    """Raises: AssertionError, which is a fault of the reader under test."""
    if not is_true:
        raise AssertionError(what)
