"""Fetching a standard data set through torchvision, where it is installed and there is a network."""

import contextlib
import importlib
import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_TIMEOUT_S = 10.0
_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "svhn": "SVHN"}


def download_with_torchvision(name: str, root: Path) -> bool:
    """Try to fetch a data set into ``root/name``; what torchvision prints goes to stderr.

    Args:
        name: of the source; only mnist, fashion-mnist, cifar10 and svhn can be fetched.
        root: the data root.

    Returns:
        whether torchvision said that it is there now. Never raises: without torchvision, network or
        permission the answer is False, and the caller says which files to put where.
    """
    try:
        if name not in _CLASSES or importlib.util.find_spec("torchvision") is None:
            return False
        folder = root / name
        with _short_timeout(), contextlib.redirect_stdout(sys.stderr):
            fetch = getattr(importlib.import_module("torchvision.datasets"), _CLASSES[name])
            if name == "svhn":
                for split in ("train", "test"):
                    fetch(str(folder), split=split, download=True)
            else:
                fetch(str(folder), download=True)
    except Exception as error:  # an import beside a foreign torch, a mirror or a disk may fail in any way
        cause = " ".join(str(error).split())
        print(f"{name}: not downloaded: {cause or type(error).__name__}", file=sys.stderr)
        return False
    return True


@contextlib.contextmanager
def _short_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
