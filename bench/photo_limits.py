"""Seconds, memory and sameness of photographs' latents: what a user waits for, and what must not change.

    python bench/photo_limits.py -o bench/results/photo_limits.json

A 768x512 Kodak image at several efforts of two rungs, coded and decoded by ``rcc`` in processes of their own,
whose peak memory is the system's figure; a 12-megapixel mosaic of Kodak images at the default effort; and
what differs between one thread and two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from metadata import describe_run, write_result
from PIL import Image

from rcccodec.sources import load_source

MOSAIC = (3000, 4000)  # pixels
IMAGE = 4  # of the Kodak images here
RUNGS = (3, 5)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/photo_limits.json"))
    parser.add_argument("--efforts", default="1,3,5,7,9")
    arguments = parser.parse_args()
    began = time.perf_counter()
    root = Path(os.environ["RCC_DATA"]) if os.environ.get("RCC_DATA") else None
    images = load_source("kodak", "test", root).x
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        Image.fromarray(np.asarray(images[IMAGE])).save(work / "small.png")
        Image.fromarray(mosaic(images)).save(work / "large.png")
        rows = []
        for effort in map(int, arguments.efforts.split(",")):
            for rung, quality in zip(RUNGS, ("50", "100"), strict=True):
                options = ["-e", str(effort), "--quality", quality]
                rows.append({"effort": effort, "asked_rung": rung, **coded(work, "small.png", options)})
                print(rows[-1], flush=True)
        large = coded(work, "large.png", [])
        print(large, flush=True)
        same = sameness(work)
        print(same, flush=True)
    result = {"small": rows, "large": large, "threads": same, **describe_run(began, "cpu")}
    write_result(arguments.output, result)


def mosaic(images: list) -> np.ndarray:
    """Kodak images side by side, cut to 12 megapixels: uint8 (h, w, 3)."""
    height, width = MOSAIC
    landscape = [np.asarray(x) for x in images if x.shape[0] < x.shape[1]]
    across, down = -(-width // landscape[0].shape[1]), -(-height // landscape[0].shape[0])
    rows = [
        np.concatenate([landscape[(r * across + c) % len(landscape)] for c in range(across)], axis=1)
        for r in range(down)
    ]
    return np.concatenate(rows)[:height, :width]


def coded(work: Path, name: str, options: list[str]) -> dict[str, float]:
    """Compress and decompress one picture by the command line: seconds from the shell, and peak memory."""
    to_s, to_mib, report = run(work, ["compress", name, "-o", "x.rcc", "--json", *options])
    back_s, back_mib, _ = run(work, ["decompress", "x.rcc", "-o", "x.png"])
    facts = json.loads(report)
    x, y = (np.asarray(Image.open(work / n)).astype(float) for n in (name, "x.png"))
    psnr_db = float(10 * np.log10(255**2 / np.square(x - y).mean()))
    if abs(psnr_db - facts["psnr_db"]) > 0.01:
        raise AssertionError(f"decoded at {psnr_db} dB, the encoder said {facts['psnr_db']}")
    return {
        "width": x.shape[1], "height": x.shape[0], "bpp": facts["bpp"], "psnr_db": psnr_db,
        "rung": facts["rung"],
        "compress_s": to_s, "decompress_s": back_s, "compress_mib": to_mib, "decompress_mib": back_mib,
    }  # fmt: skip


def sameness(work: Path) -> dict[str, int]:
    """What differs between one thread and two: bytes of the file, and samples of the decoded picture."""
    files, pictures = [], []
    for threads in ("1", "2"):
        limited = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        run(work, ["compress", "small.png", "-o", f"{threads}.rcc", "-e", "5"], limited)
        run(work, ["decompress", "1.rcc", "-o", f"{threads}.png"], limited)
        files.append((work / f"{threads}.rcc").read_bytes())
        pictures.append(np.asarray(Image.open(work / f"{threads}.png")).astype(int))
    difference = np.abs(pictures[0] - pictures[1])
    return {
        "files_equal": int(files[0] == files[1]),
        "samples": int(difference.size),
        "samples_that_differ": int((difference > 0).sum()),
        "largest_difference": int(difference.max()),
    }


def run(work: Path, words: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Wall seconds, peak MiB and standard output of one ``rcc`` command."""
    start_s = time.perf_counter()
    peak = (
        "import resource, sys; from rcccodec.cli import run; code = run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", peak, *words], cwd=work, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **(environment or {})},
    )  # fmt: skip
    per_mib = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - start_s, int(done.stderr.split()[-1]) / per_mib, done.stdout


if __name__ == "__main__":
    assert resource  # a system that has it: not Windows
    main()
