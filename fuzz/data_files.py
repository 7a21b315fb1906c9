"""Small files of the kinds that data sets come in: .npy, idx, tar, CIFAR's pickles, SVHN's .mat."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Sequence
from random import Random

import numpy as np

from fuzz.mutate import mutate, number
from fuzz.pictures import picture_files

_WORDS = (
    b"'descr': '|O'", b"'descr': '<U9'", b"'descr': '<f2'", b"'descr': '>i8'", b"'descr': '<f16'",
    b"'descr': '|V4'", b"'descr': [('a', '<f4')]", b"'descr': '|b1'", b"'shape': ()", b"'shape': (0,)",
    b"'shape': (1000000000000, 0)",
    b"'shape': (0, 4294967296, 4294967296)", b"'shape': (-1, 4)", b"'shape': (2.0,)", b"'shape': (True, 3)",
    b"'shape': (" + b"1," * 40 + b")", b"'fortran_order': True", b"'fortran_order': 7", b"'x': " + b"(" * 300,
    b"'x': " + b"-" * 3000 + b"1", b"'shape': (99999999999999999999,)", b"\0", b"\n  \n x", b"'''",
)  # fmt: skip


def array_files() -> list[bytes]:
    """``.npy`` files of images and of vectors."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (11, 4, 4, 3), np.uint8), rng.normal(size=(12, 3)).astype(np.float32),
        np.asfortranarray(rng.normal(size=(20, 2))), rng.integers(-9, 9, (11, 2, 2)),
        np.array([[1.0, np.nan]] * 10), np.zeros((10, 3), bool),
    ]  # fmt: skip
    files = []
    for array in arrays:
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    return files


def edit_array(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A ``.npy`` file with one entry of its header another; the header's length right."""
    size = int.from_bytes(data[8:10], "little")
    header, rest = data[10 : 10 + size], data[10 + size :]
    word = random.choice(_WORDS)
    key = word.split(b":")[0]
    begin = header.find(key)
    if not key.startswith(b"'") or begin < 0 or random.randrange(6) == 0:
        header = mutate(random, header, _WORDS)
    else:
        ends = [end for end in (header.find(b", '", begin), header.find(b", }", begin)) if end >= 0]
        header = header[:begin] + word + header[min(ends, default=len(header)) :]
    return data[:8] + (len(header) & 0xFFFF).to_bytes(2, "little") + header + rest


def idx_files() -> list[bytes]:
    """Files of idx: three images, plain and gzipped; a list of labels."""
    pixels = np.random.default_rng(0).integers(0, 256, 3 * 28 * 28, np.uint8).tobytes()
    plain = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 28, 28)) + pixels
    return [plain, gzip.compress(plain, mtime=0), b"\0\0\x08\x01\0\0\0\x03abc"]


def edit_idx(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Another shape, with as many bytes as it says if they are few."""
    shape = [
        number(random, 28, random.choice((5, 9, 32))) for _ in range(random.choice((3, 3, 3, 0, 1, 2, 9)))
    ]
    wanted = 1
    for side in shape:
        wanted *= side & 0xFFFFFFFF
    head = bytes((0, 0, 8, len(shape))) + b"".join((n & 0xFFFFFFFF).to_bytes(4, "big") for n in shape)
    made = head + random.randbytes(min(wanted, 1 << 15))
    return gzip.compress(made, 1) if random.randrange(3) == 0 else made


def tar_files() -> list[bytes]:
    """Archives of images, plain and compressed, with folders called train and test."""
    pictures = picture_files()
    files = []
    for mode in ("w", "w:gz", "w:xz", "w:bz2"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as tar:
            for place, name in enumerate(("train/a.png", "test/b.png", "c.jpg", "x.txt")):
                info = tarfile.TarInfo(name)
                info.size = len(pictures[place])
                tar.addfile(info, io.BytesIO(pictures[place]))
        files.append(buffer.getvalue())
    return files


def edit_tar(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One header of a plain archive changed, its checksum right."""
    data = seeds[0]
    at = 512 * random.choice([k for k in range(len(data) // 512) if data[512 * k + 257 :][:5] == b"ustar"])
    header = bytearray(data[at : at + 512])
    kind = random.randrange(5)
    if kind == 0:
        header[124:136] = b"%011o\0" % random.choice((0, 1, 511, 1 << 20, 1 << 28, 1 << 32))
    elif kind == 1:
        header[124:136] = b"\x80" + number(random, 0, 87).to_bytes(11, "big")
    elif kind == 2:
        header[156:157] = random.choice((b"0", b"1", b"2", b"5", b"6", b"S", b"L", b"x", b"g", b"7"))
    elif kind == 3:  # sparse: a little data that stands for much
        header[156:157] = b"S"
        header[483:495] = b"%011o\0" % random.choice((1 << 10, 1 << 27, 1 << 30))
        header[386:410] = b"%011o\0%011o\0" % (0, 512)
    else:
        begin = random.randrange(512)
        header[begin : begin + 8] = random.randbytes(8)[: 512 - begin]
    header = header[:512]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def batch_files() -> list[bytes]:
    """CIFAR-10 batches of two images, in the two protocols that are about."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
    content = {b"batch_label": b"x", b"labels": [3, 4], b"data": pixels, b"filenames": [b"a", b"b"]}
    return [pickle.dumps(content, protocol) for protocol in (2, 4)] + [
        b"\x80\x02(" + b"\x85" * 200_000 + b".",
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",  # a key whose hash goes as deep
        b"\x80\x02}r\xff\xff\xff\x7f.", b"\x80\x02}r\x00\x00\x00\x04.",
        b"cos\nsystem\n(S'true'\ntR.",
    ]  # fmt: skip


def mat_files() -> list[bytes]:
    """SVHN's kind of ``.mat``, plain and compressed; none without SciPy."""
    try:
        from scipy.io import savemat
    except ImportError:
        return []
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), np.uint8)
    files = []
    for compressed in (False, True):
        buffer = io.BytesIO()
        savemat(buffer, {"X": x, "y": np.ones((2, 1))}, do_compression=compressed)
        files.append(b"MATLAB 5.0".ljust(116) + buffer.getvalue()[116:])  # less the time of day
    return files
