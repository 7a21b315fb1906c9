"""How fast candidates are made and searched, against the machine and against the paper's plain algorithm.

    python bench/throughput.py                                  # bench/results/throughput.json
    python bench/throughput.py --rows peaks generators          # parts of it

peaks: matrix products and copies of this machine. generators: each stage of the shipped models' default rungs
and the paper's DCGAN (random weights: they cost the same), the work of their layers against those peaks; the
blocks that are searched for are draws of the generator itself under another seed. plain: images a second of
this codec's search (one codebook a job) and of the plain algorithm (`plain_search.py`) on the same weights
and images, from blocks to code bits, models loaded beforehand. exact: indices beside those of brute force in
float64. memory: peak resident set of a process that compresses. decode: seconds of an archive once its model
is loaded, of random indices. Seconds are medians, with least and most beside them; ``--clock cpu``
counts those of this process alone, which on one thread can be measured on a busy machine too.
"""

import argparse
import copy
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from plain_search import IMAGES_A_CODEBOOK, plain_bytes, random_dcgan, zipf_huffman
from roofline import flops_per_candidate, peak_rates, seconds, spread
from throughput_table import table

from rcccodec import codec, container
from rcccodec.bundle import Model, load_model
from rcccodec.channel import log_weights, select_channel
from rcccodec.index_code import ZipfHuffman, encode_segments
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.proposals.networks import Generator
from rcccodec.proposals.precision import coarse_dtype
from rcccodec.randomness import standard_normals
from rcccodec.settings import choose_settings
from rcccodec.sources import load_source

Row = dict[str, Any]
PARTS = ("peaks", "generators", "plain", "exact", "memory", "decode")
BARS = {1000: 8.0, 10_000: 30.0}  # times the plain algorithm with the same DCGAN, by images
DEFAULT_BAR, MEMORY_BAR_MIB, DECODE_BAR_S = 10.0, 2000.0, 1.0
DCGAN_SLOPE, DCGAN_RATE_MILLIBITS = 0.4, 9000
_CHUNK = 4096
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PEAK_OF_JOB = """
import sys
from rcccodec import codec
from rcccodec.sources import load_source
source, images, model, n, device = sys.argv[1:]
pictures = load_source(source, "test", limit=int(images)).images()
codec.compress(pictures, model, coder="pfr", index_code="fitted", num_candidates=int(n), device=device)
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def timed(work: Callable[[], Any], args: argparse.Namespace, repeats: int | None = None) -> list[float]:
    """Seconds of each repeat, by the clock that is asked for."""
    return seconds(work, args.device, repeats or args.repeats, CLOCKS[args.clock])


def candidate_row(name: str, plain: Generator, beta: float, peaks: Row, args: argparse.Namespace) -> Row:
    """Speed of one generator: candidates alone in every precision, and a whole search with its parts."""
    device, n = args.device, args.candidates
    proposal = GeneratorProposal(plain, device)
    k = torch.arange(_CHUNK, device=device)
    z = standard_normals(args.seed, k, proposal.latent_dim, 0)
    used = coarse_dtype(device)
    work = flops_per_candidate(plain, plain.latent_dim)
    row: Row = {"generator": name, "flops_per_candidate": work, "precision": str(used).split(".")[1]}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        kind, chunk = str(dtype).split(".")[1], z.to(dtype)
        taken = timed(lambda chunk=chunk: proposal.candidates(chunk), args)
        found = spread([one / _CHUNK for one in taken])
        moved = dtype.itemsize * (proposal.dim + proposal.latent_dim)
        least = max(work / peaks[f"{kind}_flops"], moved / peaks["copy_bytes_per_s"])
        row[kind] = {
            **found, "candidates_per_s": 1 / found["s"], "flops": work / found["s"],
            "share_of_roofline": least / found["s"],
        }  # fmt: skip
    other = torch.arange(args.blocks, device=device)
    x = proposal.candidates(standard_normals(args.seed + 1, other, proposal.latent_dim, 0).to(device)).cpu()
    options: Row = {"beta": beta, "coder": "pfr", "seed": args.seed, "num_candidates": n, "device": device}
    whole = spread(timed(lambda: select_channel(x, proposal, **options), args))

    def randomness() -> None:
        for first in range(0, n, _CHUNK):
            part = torch.arange(first, min(first + _CHUNK, n), device=device)
            standard_normals(args.seed, part, proposal.latent_dim, 0)
        for _ in log_weights("pfr", n, seed=args.seed):
            pass

    random_s = spread(timed(randomness, args))["s"]
    generator_s = n * row[row["precision"]]["s"]
    row["search"] = {
        **whole, "blocks": args.blocks, "num_candidates": n,
        "candidates_per_s": n / whole["s"], "block_candidates_per_s": args.blocks * n / whole["s"],
        "random_share": random_s / whole["s"], "generator_share": generator_s / whole["s"],
        "search_share": 1 - (random_s + generator_s) / whole["s"],
    }  # fmt: skip
    return row


def own_bytes(
    x: torch.Tensor, proposal: GeneratorProposal, beta: float, millibits: int, **options: Any
) -> bytes:
    """This codec's search and the paper's index code: blocks (B, dim) to payload."""
    found = select_channel(x, proposal, beta=beta, coder="pfr", **options)
    code = ZipfHuffman(options["num_candidates"], millibits)
    return encode_segments([(code, found.indices.numpy())])


def plain_rows(
    generators: list[tuple[str, Generator, float, int]], blocks: torch.Tensor, args: argparse.Namespace
) -> list[Row]:
    """Images a second by both algorithms, a row for each generator and number of images.

    The plain algorithm does the same again for every IMAGES_A_CODEBOOK images, so that its first
    ``args.plain_codebooks`` codebooks are timed and stand for all.
    """
    rows, n, device = [], args.candidates, args.device
    for name, plain, beta, millibits in generators:
        network = copy.deepcopy(plain).to(device=device, dtype=torch.float32)
        code, first = zipf_huffman(n, millibits / 1000), blocks[:IMAGES_A_CODEBOOK].to(device)
        taken = timed(
            lambda f=first, net=network, c=code, b=beta: plain_bytes(f, net, c, b, n, args.seed),
            args, args.plain_codebooks
        )  # fmt: skip
        plain_per_s = len(first) / spread(taken)["s"]
        proposal = GeneratorProposal(plain, device)
        for count in args.images:
            x = blocks[:count]
            options: Row = {"num_candidates": n, "seed": args.seed, "device": device}
            taken_own = timed(
                lambda x=x, p=proposal, b=beta, r=millibits, o=options: own_bytes(x, p, b, r, **o),
                args,
            )  # fmt: skip
            own = spread(taken_own)
            rows.append(
                {
                    "generator": name, "images": len(x), "num_candidates": n,
                    "plain_images_per_s": plain_per_s, "plain_codebook": spread(taken),
                    "images_per_s": len(x) / own["s"], "own": own,
                    "ratio": len(x) / own["s"] / plain_per_s,
                    "bar": BARS.get(len(x)) if name.startswith("dcgan") else None,
                }
            )  # fmt: skip
    for row in rows:
        same = next(r for r in rows if r["generator"].startswith("dcgan") and r["images"] == row["images"])
        row["ratio_to_dcgan"] = row["images_per_s"] / same["images_per_s"]
        row["ratio_to_plain_dcgan"] = row["images_per_s"] / same["plain_images_per_s"]
    return rows


def exact_row(name: str, plain: Generator, beta: float, x: torch.Tensor, args: argparse.Namespace) -> Row:
    """The search's indices beside those of float64 brute force."""
    n, wrong = 1 << args.log2_exact, {}
    proposal = GeneratorProposal(plain, args.device)
    for coder in ("pfr", "orc"):
        best = torch.full((len(x),), math.inf, dtype=torch.float64)
        chosen = torch.zeros(len(x), dtype=torch.int64)
        for start, weights in log_weights(coder, n, seed=args.seed, chunk=1024):
            k = torch.arange(start, start + len(weights), device=args.device)
            y = proposal.candidates(standard_normals(args.seed, k, proposal.latent_dim, 0).double()).cpu()
            x64 = x.double()
            far = x64.square().sum(1)[:, None] - 2 * x64 @ y.T + y.square().sum(1)
            low, where = (beta * far + weights).min(dim=1)
            chosen = torch.where(low < best, where + start, chosen)
            best = torch.minimum(best, low)
        options: Row = {"beta": beta, "seed": args.seed, "num_candidates": n, "device": args.device}
        found = select_channel(x, proposal, coder=coder, **options)
        wrong[coder] = int((found.indices != chosen).sum())
    return {"generator": name, "num_candidates": n, "blocks": len(x), "indices_that_differ": wrong}


def memory_row(args: argparse.Namespace) -> Row:
    """Peak MiB of a process that compresses ``memory_images`` images of the source at a large N."""
    n, began = 1 << args.log2_memory, time.perf_counter()
    words = [args.source, args.memory_images, args.model, n, args.device]
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_JOB, *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"compressing failed: {done.stderr.strip()}")
    peak, taken = int(done.stdout.split()[-1]) / 1024, time.perf_counter() - began
    return {
        "images": args.memory_images,
        "num_candidates": n,
        "peak_mib": peak,
        "s": taken,
        "bar": MEMORY_BAR_MIB,
    }


def decode_rows(model: Model, side: tuple[int, int], args: argparse.Namespace) -> list[Row]:
    """Seconds to decode an archive of one-block images with random indices, at each N."""
    rows, (height, width) = [], side
    for log2_n in args.log2_decode:
        settings = choose_settings(
            model, coder="pfr", index_code="fitted", num_candidates=1 << log2_n, joint=False
        )
        counts = [args.decode_images] * len(settings.step.stages)
        rng = np.random.default_rng(args.seed)
        coded = [(code, rng.integers(0, 1 << log2_n, count)) for code, count in settings.segments(counts)]
        group = container.Group(0, args.decode_images, width, height, encode_segments(coded))
        data = container.pack(settings.header(), [group])
        found = spread(timed(lambda data=data: codec.decompress(data, model), args))
        rows.append(
            {"images": args.decode_images, "num_candidates": 1 << log2_n, **found, "bar": DECODE_BAR_S}
        )
    return rows


def measure(args: argparse.Namespace) -> Row:
    """The rows that ``args.rows`` names."""
    model = load_model(args.model)
    stage = model.rungs[model.default_rung].stages[0]
    dcgan = random_dcgan(args.width, args.latent_dim, args.seed).at_slope(DCGAN_SLOPE)
    result: Row = {"models": {model.name: model.sha256}}
    if {"peaks", "generators"} & set(args.rows):
        result["peaks"] = peak_rates(args.device, args.repeats, CLOCKS[args.clock])
    dcgan_name = f"dcgan c_d={args.width}"
    if "generators" in args.rows:
        result["generators"] = rows = []
        for name in (args.model, *args.other_models):
            one = load_model(name)
            result["models"][one.name] = one.sha256
            for s, part in enumerate(one.rungs[one.default_rung].stages):
                plain = part.generator.at_slope(part.beta)
                rows.append(candidate_row(f"{one.name} stage {s}", plain, part.beta, result["peaks"], args))
        rows.append(candidate_row(dcgan_name, dcgan, DCGAN_SLOPE, result["peaks"], args))
    if {"plain", "exact"} & set(args.rows):
        pictures = load_source(args.source, "test", limit=max(*args.images, args.exact_blocks)).images()
        blocks = torch.from_numpy(np.stack(pictures).reshape(len(pictures), -1).astype(np.float32) / 255)
        default = stage.generator.at_slope(stage.beta)
        both = [
            (dcgan_name, dcgan, DCGAN_SLOPE, DCGAN_RATE_MILLIBITS),
            (model.name, default, stage.beta, stage.zipf_rate_millibits),
        ]
        if "exact" in args.rows:
            result["exact"] = [
                exact_row(name, plain, beta, blocks[: args.exact_blocks], args)
                for name, plain, beta, _ in both
            ]
        if "plain" in args.rows:
            result["plain"] = plain_rows(both, blocks, args)
    if "memory" in args.rows:
        result["memory"] = memory_row(args)
    if "decode" in args.rows:
        result["decode"] = decode_rows(model, stage.block, args)
    return result


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--model", default="mnist", help="of one stage, its block the source's images")
    parser.add_argument("--other-models", nargs="*", default=["photo-pixels"])
    parser.add_argument("--source", default="mnist")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--candidates", type=int, default=30_000)
    parser.add_argument("--blocks", type=int, default=1000, help="that the generators' rows search for")
    parser.add_argument("--width", type=int, default=32, help="c_d of the DCGAN")
    parser.add_argument("--latent-dim", type=int, default=100)
    parser.add_argument("--plain-codebooks", type=int, default=3, help="of the plain algorithm, timed")
    parser.add_argument("--log2-exact", type=int, default=16)
    parser.add_argument("--exact-blocks", type=int, default=100)
    parser.add_argument("--log2-memory", type=int, default=22)
    parser.add_argument("--memory-images", type=int, default=100)
    parser.add_argument("--log2-decode", type=int, nargs="+", default=[10, 22])
    parser.add_argument("--decode-images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of this process, on a busy machine"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "throughput.json")
    return parser


def main(words: list[str] | None = None) -> None:
    args = options().parse_args(words)
    began = time.perf_counter()
    found = measure(args)
    print("\n".join(table(found)))
    asked = {key: value for key, value in vars(args).items() if key != "output"}
    write_result(
        args.output,
        {
            "what": "candidates and images a second against the machine and against the plain algorithm",
            "asked": asked,
            **describe_run(began, args.device),
            **found,
        },
    )
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
