"""What is inside a ``.rcc`` file; `rcccodec.comparison.rcc_files` under the name that the scripts use."""

from rcccodec.comparison.rcc_files import block_bits, image_bits, payload_bits, read_indices, with_index_code

__all__ = ["block_bits", "image_bits", "payload_bits", "read_indices", "with_index_code"]
