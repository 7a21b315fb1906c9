"""Files and pixels that must not differ by threads, company, jobs or part; and how far another decoder is.

    python bench/determinism.py -o determinism.json

Threads: every shipped model and coder; files made with 1, 2 and 3 threads are compared byte by byte, and what
they decode to with 1, 2 and 3, sample by sample. Company: a photograph alone and in archives. Jobs: an
archive made by one and by two processes. Parts: regions against the same part of the whole picture. Another
decoder: that of tests/numpy_decoder.py, in float64, on random candidates and on the latents of photographs.
Another processor: as far as this one can play it, by leaving out instructions.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import describe_run, write_result
from other_decoders import compare_blocks, compare_photographs, compare_processors

from rcccodec import cli, codec, container
from rcccodec.bundle import AnyModel, load_model
from rcccodec.images import write_image
from rcccodec.latent.model import LatentModel
from rcccodec.sources import load_source

Row = dict[str, Any]
THREADS = (1, 2, 3)
MODELS = {"mnist": "sample-digits", "photo-pixels": "sample-photos", "photo": "sample-photos"}
CODERS = {"mnist": ("pfr", "orc", "mincost"), "photo-pixels": ("pfr", "orc", "mincost")}
LATENT_CODERS = {"trellis": 5, "pfr": 1, "orc": 1, "mincost": 1}  # and the effort


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch with ``count`` threads, the old number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differing_bytes(a: bytes, b: bytes) -> int:
    """Places in which two files differ, those that only one of them has included."""
    common = min(len(a), len(b))
    different = np.frombuffer(a[:common], np.uint8) != np.frombuffer(b[:common], np.uint8)
    return int(different.sum()) + abs(len(a) - len(b))


def differing_samples(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> int:
    """Samples in which two lists of images differ; all of an image where shapes do."""
    return sum(
        int(np.count_nonzero(x != y)) if x.shape == y.shape else x.size for x, y in zip(a, b, strict=True)
    )


def compare_threads(
    images: Sequence[np.ndarray], model: AnyModel, counts: Sequence[int] = THREADS, **options: Any
) -> Row:
    """Files of ``images`` made with each number of threads, the first decoded with each."""
    files, pictures = [], []
    for count in counts:
        with threads(count):
            made = codec.compress(list(images), model, **options)
        files.append(made.data)
        pictures.append(made.images)
    for count in counts:
        with threads(count):
            pictures.append(codec.decompress(files[0], model))
    return {
        "what": "threads",
        "model": model.name,
        **options,
        "threads": list(counts),
        "files": len(files) - 1,
        "bytes": sum(len(data) for data in files[1:]),
        "differing_bytes": sum(differing_bytes(files[0], data) for data in files[1:]),
        "samples": (len(pictures) - 1) * sum(x.size for x in images),
        "differing_samples": sum(differing_samples(pictures[0], other) for other in pictures[1:]),
    }


def compare_company(images: Sequence[np.ndarray], model: LatentModel, **options: Any) -> Row:
    """Payloads of photographs alone, in one archive, and in one the other way round."""

    def payloads(some: Sequence[np.ndarray]) -> bytes:
        _, groups = container.unpack(codec.compress(list(some), model, **options).data)
        return b"".join(group.payload for group in groups)

    alone = [payloads([x]) for x in images]
    pairs = [(b"".join(order(alone)), payloads(order(images))) for order in (list, lambda x: list(x)[::-1])]
    return {
        "what": "company",
        "model": model.name,
        **options,
        "files": len(pairs),
        "bytes": sum(len(a) for a, _ in pairs),
        "differing_bytes": sum(differing_bytes(a, b) for a, b in pairs),
    }


def compare_jobs(images: Sequence[np.ndarray], model: str, options: Sequence[str], work: Path) -> Row:
    """One archive made by ``rcc`` with one process and with two."""
    folder = work / f"{model}-in"
    folder.mkdir()
    for number, x in enumerate(images):
        write_image(folder / f"{number:03d}.png", x)
    files = []
    for jobs in ("1", "2"):
        out = work / f"{model}-{jobs}.rcc"
        if cli.run(
            ["compress", str(folder), "-o", str(out), "-m", model, "--jobs", jobs, "--quiet", *options]
        ):
            raise RuntimeError("rcc compress failed")
        files.append(out.read_bytes())
    return {
        "what": "jobs", "model": model, "files": 1, "bytes": len(files[0]),
        "differing_bytes": differing_bytes(*files),
    }  # fmt: skip


def compare_parts(image: np.ndarray, model: LatentModel, count: int, seed: int) -> Row:
    """Random regions of one file against the same part of the whole picture."""
    random = np.random.default_rng(seed)
    made = codec.compress(image, model, effort=1)
    samples = differing = 0
    for _ in range(count):
        height, width = (int(random.integers(1, side + 1)) for side in image.shape[:2])
        top, left = (
            int(random.integers(0, side - n + 1))
            for side, n in zip(image.shape, (height, width), strict=False)
        )
        (part,) = codec.decompress(made.data, model, region=(top, left, height, width))
        whole = made.images[0][top : top + height, left : left + width]
        samples, differing = samples + whole.size, differing + differing_samples([part], [whole])
    return {
        "what": "parts", "model": model.name, "files": 1, "regions": count, "samples": samples,
        "differing_samples": differing,
    }  # fmt: skip


def measure_determinism(
    models: Sequence[str] = tuple(MODELS), regions: int = 60, blocks: int = 300, seed: int = 0
) -> Row:
    """Everything above.

    Args:
        regions: random ones of a photograph. blocks: random candidates of every stage. seed: of both.

    Returns:
        Sums of what was compared (files, bytes, samples) and of what differs, and ``rows``, one a comparison.
        What another decoder or processor makes is in the rows alone: it may differ by a grey level.
    """
    began, rows = time.perf_counter(), []

    def add(compare: Callable[..., Row], *arguments: Any, **options: Any) -> None:
        rows.append(compare(*arguments, **options))
        print(rows[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            model, images = (
                load_model(name),
                [np.asarray(x) for x in load_source(MODELS[name], "test").images()],
            )
            if isinstance(model, LatentModel):
                for coder, effort in LATENT_CODERS.items():
                    add(compare_threads, images + kodak(1), model, coder=coder, effort=effort)
                    add(
                        compare_company,
                        [images[0], images[1][:100], images[0][:, :300]],
                        model,
                        coder=coder,
                        effort=1,
                    )
                add(compare_jobs, images, name, ["-e", "1"], Path(folder))
                add(compare_parts, images[0], model, regions, seed)
                add(compare_photographs, images + kodak(2), model)
                add(compare_processors, images + kodak(2), model, Path(folder), effort=1)
            else:
                for coder in CODERS[name]:
                    add(compare_threads, images, model, coder=coder)
                enough = many_digits(2100) if model.channels == 1 else images  # to be worth two processes
                add(compare_jobs, enough, name, ["--coder", "pfr"], Path(folder))
                add(compare_blocks, name, blocks, seed)
                add(compare_processors, images, model, Path(folder), coder="mincost")
    same = [row for row in rows if not row["what"].startswith("another")]
    sums = {
        key: sum(row.get(key, 0) for row in same)
        for key in ("files", "bytes", "differing_bytes", "samples", "differing_samples")
    }
    failures = [row for row in same if row.get("differing_bytes") or row.get("differing_samples")]
    return {**sums, "failures": failures, "seconds": time.perf_counter() - began, "rows": rows}


def kodak(count: int) -> list[np.ndarray]:
    """The first Kodak images, none where ``RCC_DATA`` does not say where they are."""
    if not os.environ.get("RCC_DATA"):
        return []
    return [np.asarray(x) for x in load_source("kodak", "test", Path(os.environ["RCC_DATA"])).x[:count]]


def many_digits(count: int) -> list[np.ndarray]:
    """The first MNIST digits; without ``RCC_DATA``, the few of the sample over and over."""
    root = os.environ.get("RCC_DATA")
    source = load_source("mnist", "test", Path(root)) if root else load_source("sample-digits", "test")
    digits = [np.asarray(x) for x in source.images()[:count]]
    return [digits[i % len(digits)] for i in range(count)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("-o", "--output", type=Path, default=Path("determinism.json"))
    arguments = parser.parse_args()
    began = time.perf_counter()
    result = {**measure_determinism(arguments.models), **describe_run(began, "cpu")}
    write_result(arguments.output, result)
    if result["failures"]:
        raise SystemExit(f"{len(result['failures'])} comparisons failed")


if __name__ == "__main__":
    main()
