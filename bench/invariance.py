"""What must not change: decoding time with N, pixels with the number of threads, memory with N.

    python bench/invariance.py                                       # bench/results/invariance.json
    python bench/invariance.py --decode-log2 6 10 --memory-log2 6 10 -o /tmp/trial.json     # seconds

Decoding: one digit, coded by PFR with N = 2^10 and with N = 2^22; the two files are decoded in turn, many
times, in one process, and the medians compared. The search is made once for each N; the same index is then
written in each index code. A shipped prior belongs to one N, so its rows use made-up levels for both. Models
are loaded beforehand: a bundle's file, its hash and with them loading grow with the priors it holds.

Threads: sample images coded with 1 and with 2 threads, each file decoded with 1 and with 2.

Memory: peak resident set of a process that runs ``rcc compress`` on one image, as Linux counts it for that
process alone (VmHWM).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from rcc_files import with_index_code

from rcccodec import codec
from rcccodec.bundle import Model, list_models, load_model, model_path
from rcccodec.images import write_image
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.sources import load_source

Row = dict[str, Any]
MEMORY_BAR = 1.2  # peak at the larger N over peak at the smaller
SAMPLES = {1: "sample-digits", 3: "sample-photos"}  # by channels of the model
PEAK_OF_COMMAND = """
import sys
from rcccodec import cli
code = cli.run(sys.argv[1:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""


def with_flat_prior(model: Model, num_candidates: int) -> Model:
    """The model with made-up priors of ``num_candidates`` levels, all alike, on every rung."""
    prior = CodebookPrior(np.full(num_candidates, 8 * (num_candidates - 1).bit_length(), np.uint8))
    rungs = tuple(
        replace(rung, stages=tuple(replace(stage, priors={"pfr": prior}) for stage in rung.stages))
        for rung in model.rungs
    )
    return replace(model, rungs=rungs, default_num_candidates=num_candidates)


def decoding_times(image: np.ndarray, model: Model, log2_sizes: tuple[int, int], repeats: int) -> list[Row]:
    """Median decoding seconds of one image's file at two N, a row for each index code."""
    files: dict[str, list[tuple[bytes, Model]]] = {"zipf": [], "fitted": [], "prior": []}
    encode_s = []
    for log2_n in log2_sizes:
        own = with_flat_prior(model, 1 << log2_n)
        began = time.perf_counter()
        data = codec.compress(image, own, coder="pfr", index_code="fitted", num_candidates=1 << log2_n).data
        encode_s.append(time.perf_counter() - began)
        for name, kept in files.items():
            kept.append((with_index_code(data, own, name), own))
    rows = []
    for name, (small, large) in files.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats + 1):
            for taken, (data, own) in zip(seconds, (small, large), strict=True):
                began = time.perf_counter()
                codec.decompress(data, own)
                taken.append(time.perf_counter() - began)
        medians = [statistics.median(taken[1:]) for taken in seconds]  # the first one warms up
        rows.append(
            {
                "index_code": name,
                "log2_num_candidates": list(log2_sizes),
                "decode_s": medians,
                "ratio": medians[1] / medians[0],
                "repeats": repeats,
                "encode_s": encode_s,
                "file_bytes": [len(small[0]), len(large[0])],
            }
        )
    return rows


@contextmanager
def threads(count: int):
    """Torch with ``count`` threads, the old number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_differences(images: Sequence[np.ndarray], model: Model, counts: tuple[int, int], **options) -> Row:
    """Files made with each number of threads, decoded with each: how many pixels ever differ.

    Args:
        options: of `rcccodec.codec.compress`.
    """
    files, said, decoded = [], [], []
    for encoder in counts:
        with threads(encoder):
            encoded = codec.compress(list(images), model, **options)
        files.append(encoded.data)
        said.append(encoded.images)
        for decoder in counts:
            with threads(decoder):
                decoded.append(codec.decompress(encoded.data, model))
    pairs = zip(decoded, [said[0]] * 2 + [said[1]] * 2, strict=True)
    return {
        "model": model.name,
        "threads": list(counts),
        "images": len(images),
        "decoded_images_compared": len(images) * len(decoded),
        "pixels_that_differ": sum(count_differences(a, b) for a, b in pairs),
        "pixels_that_differ_between_encoders": count_differences(*said),
        "files_identical": files[0] == files[1],
    }


def count_differences(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> int:
    """Samples in which two lists of images differ."""
    return sum(int(np.count_nonzero(x != y)) for x, y in zip(a, b, strict=True))


def peak_memory(
    image: np.ndarray,
    model_folder: Path,
    coder: str,
    log2_sizes: tuple[int, int],
    python: str = sys.executable,
) -> Row:
    """Peak resident MiB of ``rcc compress`` on one image at two N, and their ratio."""
    peaks, seconds = [], []
    with tempfile.TemporaryDirectory() as name:
        write_image(Path(name) / "x.png", image)
        for log2_n in log2_sizes:
            command = ["compress", f"{name}/x.png", "-o", f"{name}/x.rcc", "--model", str(model_folder)]
            options = ["--candidates", str(1 << log2_n), "--coder", coder, "--device", "cpu", "--quiet"]
            began = time.perf_counter()
            done = subprocess.run(
                [python, "-c", PEAK_OF_COMMAND, *command, *options], capture_output=True, text=True
            )
            seconds.append(time.perf_counter() - began)
            if done.returncode:
                raise RuntimeError(f"rcc compress failed: {done.stderr.strip()}")
            peaks.append(int(done.stdout.split()[-1]) / 1024)
    return {
        "model": model_folder.name,
        "coder": coder,
        "image": "x".join(str(side) for side in (image.shape[1], image.shape[0])),
        "log2_num_candidates": list(log2_sizes),
        "peak_mib": peaks,
        "ratio": peaks[1] / peaks[0],
        "bar": MEMORY_BAR,
        "within_bar": peaks[1] <= MEMORY_BAR * peaks[0],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=["mnist", "photo-pixels"], help="those missing are left out"
    )
    parser.add_argument("--decode-log2", type=int, nargs=2, default=(10, 22), metavar=("SMALL", "LARGE"))
    parser.add_argument("--memory-log2", type=int, nargs=2, default=(16, 20), metavar=("SMALL", "LARGE"))
    parser.add_argument("--repeats", type=int, default=25, help="decodings of each file that are timed")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "invariance.json")
    args = parser.parse_args()

    began = time.perf_counter()
    found = [name for name in args.models if name in list_models() or (Path(name) / "model.json").is_file()]
    if not found:
        raise SystemExit("none of the models is there")
    models = [load_model(name) for name in found]
    samples = [load_source(SAMPLES[model.channels], "test").images() for model in models]

    differences = []
    for model, images in zip(models, samples, strict=True):
        for coder in ("pfr", "mincost"):
            row = thread_differences(images, model, (1, 2), coder=coder)
            differences.append({"coder": coder, **row})
            print(
                f"threads: {model.name} {coder}: {row['pixels_that_differ']} samples differ in "
                f"{row['decoded_images_compared']} images; files identical: {row['files_identical']}",
                flush=True,
            )
    memory = []
    for name, images in zip(found, samples, strict=True):
        for coder in ("pfr", "mincost"):
            memory.append(peak_memory(images[0], model_path(name), coder, tuple(args.memory_log2)))
            low, high = memory[-1]["peak_mib"]
            print(
                f"memory: {name} {coder}: {low:.0f} and {high:.0f} MiB, ratio {memory[-1]['ratio']:.3f}",
                flush=True,
            )
    decoding = decoding_times(samples[0][0], models[0], tuple(args.decode_log2), args.repeats)
    for row in decoding:
        low, high = (1000 * s for s in row["decode_s"])
        print(f"decoding: {row['index_code']}: {low:.2f} and {high:.2f} ms, ratio {row['ratio']:.3f}")
    result = {
        "what": "decoding time, decoded pixels and peak memory against N and the number of threads",
        "models": {model.name: model.sha256 for model in models},
        "codebook_seeds": sorted({model.default_seed for model in models}),
        **describe_run(began),
        "decoding_model": models[0].name,
        "decoding": decoding,
        "threads_and_pixels": differences,
        "memory": memory,
    }
    write_result(args.output, result)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
