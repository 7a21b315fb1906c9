"""What a result was made with, so that it can be made again; shared by every bench."""

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

import rcccodec

RESULTS = Path(__file__).resolve().parent / "results"


def checkout() -> dict[str, Any]:
    """``commit`` and ``dirty``: whether any file but a result differs from it; None outside a checkout."""
    here = RESULTS.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
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


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, its folder made if missing; a NaN is a bug of the bench and refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
