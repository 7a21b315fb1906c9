"""What is inside a ``.rcc`` file; `rcccodec.comparison.rcc_files` under the name that the scripts use."""

from rcccodec.comparison.rcc_files import image_bits, index_codes, payload_bits, read_indices, with_index_code

__all__ = ["image_bits", "index_codes", "payload_bits", "read_indices", "with_index_code"]
