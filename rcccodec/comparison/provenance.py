"""What a result was made with, so that it can be made again: code, machine, versions, images."""

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

import rcccodec


def checkout() -> dict[str, Any]:
    """``commit`` and ``dirty``: whether any file but a result differs from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:  # a lock of the index would stay if we were killed
        return subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a package inside some other checkout
        changed = git("status", "--porcelain", "--", ":/", ":(exclude,top)bench/results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def describe_run(began: float, device: str = "cpu") -> dict[str, Any]:
    """Commit, date, machine, threads, versions, and the seconds since ``began`` (of time.perf_counter)."""
    return {
        **checkout(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "rcccodec": rcccodec.__version__,
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def image_hashes(images: Sequence[np.ndarray]) -> dict[str, Any]:
    """SHA-256 of every image's shape and samples (first 16 hex digits), and of all of them in order.

    Args:
        images: uint8 (h, w) or (h, w, 3).
    """
    each = [hashlib.sha256(f"{x.shape}".encode() + np.ascontiguousarray(x).tobytes()) for x in images]
    whole = hashlib.sha256(b"".join(one.digest() for one in each)).hexdigest()
    return {"images_sha256": whole, "image_sha256": [one.hexdigest()[:16] for one in each]}
