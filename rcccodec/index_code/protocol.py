"""What an index code is, and the limits and checks that all of them share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder

ZIPF_HUFFMAN = 0  # wire ids
FITTED = 1
CODEBOOK_PRIOR = 2

MAX_CANDIDATES = 1 << 40


class IndexCode(Protocol):
    """A code for indices 0 .. N - 1; the papers' K = index + 1 appears only inside implementations.

    Invariants: ``get`` returns what ``put`` was given; 2^-length sums to 1 over all indices.
    """

    @property
    def kind(self) -> int:
        """Wire id: ZIPF_HUFFMAN, FITTED or CODEBOOK_PRIOR."""

    @property
    def num_candidates(self) -> int:
        """N, the number of indices that have a code."""

    def lengths_bits(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Length of each index's code in bits, same shape; ValueError for an index outside [0, N)."""

    def put(self, encoder: RangeEncoder, indices: NDArray[np.int64]) -> None:
        """Append indices (count,) to the stream; ValueError for an index outside [0, N)."""

    def get(self, decoder: RangeDecoder, count: int) -> NDArray[np.int64]:
        """Read ``count`` indices off the stream; FormatError when it holds something else."""


def check_indices(indices: NDArray[np.int64], num_candidates: int) -> NDArray[np.int64]:
    """Return indices as int64; ValueError unless all lie in [0, num_candidates)."""
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers, not {indices.dtype}")
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= num_candidates):
        raise ValueError(f"an index lies outside [0, {num_candidates})")
    return indices.astype(np.int64, copy=False)


def check_num_candidates(num_candidates: int) -> None:
    """ValueError unless 1 <= num_candidates <= 2^40."""
    if not 1 <= num_candidates <= MAX_CANDIDATES:
        raise ValueError(f"number of candidates {num_candidates} outside [1, 2^40]")
