"""Index codes: which bits carry the chosen candidates' indices. Integers only, nothing from torch.

::

    indices (count,) --put--> RangeEncoder --finish--> payload --RangeDecoder--> get --> indices

One stream runs through all segments of a payload, so no block and no stage pays a rounding bit. A segment is
a run of indices under one code: those of one stage of one group, or, where blocks share indices, the shared
ones and the others. ``FORMAT.md`` states every byte.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import FormatError
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.index_code.fitted import FittedCode
from rcccodec.index_code.protocol import CODEBOOK_PRIOR, FITTED, ZIPF_HUFFMAN, IndexCode
from rcccodec.index_code.range_coder import RangeDecoder, RangeEncoder
from rcccodec.index_code.zipf_huffman import ZipfHuffman

__all__ = [
    "CODEBOOK_PRIOR",
    "FITTED",
    "ZIPF_HUFFMAN",
    "CodebookPrior",
    "FittedCode",
    "IndexCode",
    "ZipfHuffman",
    "decode_segments",
    "encode_segments",
]

MAX_BLOCKS_PER_BYTE = 32


def encode_segments(
    segments: Sequence[tuple[IndexCode, NDArray[np.int64]]], *, num_blocks: int | None = None
) -> bytes:
    """Encode segments into one payload; Zipf-Huffman ones do not go together with the other kinds.

    A Zipf-Huffman payload is ceil(sum of lengths / 8) bytes, the last one zero-padded; the others take the
    fewest bytes that name their interval. Any payload is then zero-padded to (blocks // 32) bytes, a floor
    that no sensible code meets but that ties a reader's work to the size of its input.

    Args:
        segments: pairs of a code and its indices, int64 (count,), each in [0, code.num_candidates).
        num_blocks: that the indices stand for; None: one each.
    Returns: the payload; empty for no indices at all.
    Raises: ValueError for an index out of range or Zipf-Huffman segments beside others.
    """
    kinds = {code.kind for code, _ in segments}
    if ZIPF_HUFFMAN in kinds and len(kinds) > 1:
        raise ValueError(f"segments of different index codes in one payload: {sorted(kinds)}")
    encoder = RangeEncoder()
    for code, indices in segments:
        code.put(encoder, indices)
    blocks = sum(int(indices.size) for _, indices in segments) if num_blocks is None else num_blocks
    min_bytes = blocks // MAX_BLOCKS_PER_BYTE
    if ZIPF_HUFFMAN in kinds:
        min_bytes = max(min_bytes, encoder.whole_bytes())
    return encoder.finish(min_bytes)


def decode_segments(
    payload: bytes, segments: Sequence[tuple[IndexCode, int]], *, num_blocks: int | None = None
) -> list[NDArray[np.int64]]:
    """Decode a payload into the indices of its segments.

    The counts usually come from an untrusted header: they are held against the payload's size before any
    allocation. A payload is accepted only if the encoder would write the same bytes for what was read.

    Args:
        segments: pairs of a code and how many indices it coded.
        num_blocks: as in ``encode_segments``.
    Returns: one int64 array (count,) per segment.
    Raises: FormatError for a payload that the encoder does not write for any indices. (A range-coded payload
        cut short is the code of other indices; the container's checksum is what tells.)
    """
    blocks = sum(count for _, count in segments) if num_blocks is None else num_blocks
    if blocks // MAX_BLOCKS_PER_BYTE > len(payload):
        raise FormatError(f"payload of {len(payload)} bytes is too short for {blocks} blocks")
    decoder = RangeDecoder(payload)
    decoded = [code.get(decoder, count) for code, count in segments]
    codes = [code for code, _ in segments]
    if encode_segments(list(zip(codes, decoded, strict=True)), num_blocks=num_blocks) != payload:
        raise FormatError("corrupt payload: its bytes are not the code of the indices they decode to")
    return decoded
