"""What Pillow and its libraries would do to a process that reads a hostile picture, and are kept from."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import IO

from rcccodec.errors import InputError

# Parts of a file that cost a pass over the picture, or over a block of the file, for a few bytes each.
# Encoders write up to a dozen scans, twice that with a thumbnail, and few comments.
_COSTLY = {
    "JPEG": (b"\xff\xda", 100, "scans"),
    "MPO": (b"\xff\xda", 100, "scans"),
    "PPM": (b"#", 10_000, "comments"),
}
_PLAIN_PPM = (b"P1", b"P2", b"P3")  # the others' samples are any bytes
_READ_BYTES = 1 << 20

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints what the one error line says


def check_work(file: IO[bytes], kind: str, name: str) -> None:
    """Refuse a picture of Pillow's format ``kind`` that would take far more work than its size is worth.

    Raises:
        InputError: it has more of something costly than any encoder writes.
    """
    if kind not in _COSTLY:
        return
    mark, most, what = _COSTLY[kind]
    place = file.tell()
    file.seek(0)
    part = file.read(_READ_BYTES)
    is_plain = part.startswith(_PLAIN_PPM)
    count, end = 0, b""
    while part and (kind != "PPM" or is_plain):
        count += (end + part).count(mark)
        end = part[-1:] if len(mark) > 1 else b""
        part = file.read(_READ_BYTES)
    file.seek(place)
    if count > most:
        raise InputError(f"{name}: refused: {count} {what}; no more than {most} are read")


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Keep libtiff from printing what is wrong with a file; the one line about it is ours.

    It writes to the process's standard error itself, which therefore goes nowhere for as long as this lasts.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or never there
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
