"""Candidates a second on a GPU, the share of its peak, and the largest N searched in a minute.

    python bench/gpu.py                          # bench/results/gpu.json; without a GPU one line, no file
    python bench/gpu.py --blocks 64 --dims 24 --repeats 9 -o trial.json

Rows: latents alone and the Gaussian search, each in plain torch and by Triton's kernels, then the shipped
generators' searches. A rate is the median of the repeats after one warm-up, the device waited for before and
after; ``rate_low`` and ``rate_high`` are the slowest and fastest. Peaks are those of matrix products in
float32 (TF32 off) and bfloat16, measured in the same run. Work is counted in multiplications with an
addition, two operations each; a search may do part of it in bfloat16.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result

from rcccodec import kernels
from rcccodec.arithmetic import full_float32
from rcccodec.bundle import load_model
from rcccodec.channel import select_channel
from rcccodec.proposals import Proposal
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import plain_normals, standard_normals

MODELS = ("mnist", "photo-pixels")


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Wall seconds of each repeat, sorted."""
    work()
    times_s = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        times_s.append(time.perf_counter() - began)
    return sorted(times_s)


def rate_row(
    name: str, count: int, times_s: list[float], flop: float = 0, peaks: dict[str, float] | None = None
) -> dict[str, Any]:
    """One line of the result: candidates a second, and the shares of ``peaks`` in operations a second.

    flop: operations a candidate costs, if they are matrix work.
    """
    rate = count / statistics.median(times_s)
    row = {"row": name, "candidates": count, "rate": rate}
    row |= {"rate_low": count / times_s[-1], "rate_high": count / times_s[0], "repeats": len(times_s)}
    return row | {f"share_of_{name}_peak": rate * flop / peak for name, peak in (peaks or {}).items()}


def peaks_flop_a_second(size: int, repeats: int, device: str) -> dict[str, float]:
    """Of a square matrix product, operations a second in each precision."""
    a, b = torch.randn(2, size, size, device=device)
    c, d = a.bfloat16(), b.bfloat16()
    with full_float32():
        return {
            "float32": 2 * size**3 / seconds_of(lambda: a @ b, repeats, device)[0],
            "bfloat16": 2 * size**3 / seconds_of(lambda: c @ d, repeats, device)[0],
        }


def blocks_of(proposal: Proposal, count: int) -> torch.Tensor:
    """Source blocks (count, dim) near candidates: those of another seed, with noise."""
    z = standard_normals(1, torch.arange(count), proposal.latent_dim, 99).double()
    y = proposal.candidates(z).float()
    return y + 0.1 * standard_normals(2, torch.arange(count), proposal.dim, 98)


def search(x: torch.Tensor, proposal: Proposal, beta: float, device: str, n: int) -> object:
    return select_channel(x, proposal, beta=beta, coder="pfr", seed=0, num_candidates=n, device=device)


def largest_within(run: Callable[[int], object], first: int, limit_s: float) -> tuple[int, float]:
    """The largest N = first 2^i whose search ends within ``limit_s``, and its seconds; 0 if none does."""
    reached, took_s, n = 0, 0.0, first
    while True:
        began = time.perf_counter()
        run(n)  # its result is on the CPU, so nothing is left to wait for
        spent_s = time.perf_counter() - began
        if spent_s > limit_s:
            return reached, took_s
        reached, took_s, n = n, spent_s, 2 * n
        if 2 * spent_s > limit_s:  # the next would not end in time
            return reached, took_s


def multiply_adds(proposal: Any, device: str) -> float:
    """Multiplications of one candidate's network, as torch's counter of operations sees them."""
    from torch.utils.flop_counter import FlopCounterMode

    count = 64
    z = torch.zeros(count, proposal.latent_dim, device=device)
    with FlopCounterMode(display=False) as counter:
        proposal.candidates(z)
    return counter.get_total_flops() / 2 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=256)
    parser.add_argument("--dims", type=int, default=24, help="of the Gaussian source and of the latents")
    parser.add_argument("--candidates", type=int, default=1 << 22, help="of a timed Gaussian search")
    parser.add_argument("--generated", type=int, default=1 << 18, help="of a timed search of a model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=60.0, help="of the search for the largest N")
    parser.add_argument("--peak-size", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "gpu.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured, nothing written")
        return
    began = time.perf_counter()
    result = measure(args, "cuda")
    write_result(args.output, {**result, "made_with": describe_run(began, "cuda")})
    for row in result["rows"]:
        shares = [f"{row[key]:7.1%} {key}" for key in row if key.startswith("share")]
        print(f"{row['row']:40} {row['rate']:12.4g} candidates/s", *shares)
    for row in result["largest"]:
        print(f"{row['row']:40} N = {row['num_candidates']} in {row['seconds']:.1f} s")


def measure(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """All rows; on a machine without a GPU ``device`` "cpu" tries the script out."""
    peaks = peaks_flop_a_second(args.peak_size, args.repeats, device)
    with_kernels = kernels.usable(torch.device(device))
    gaussian = GaussianProposal(np.geomspace(4.0, 0.6, args.dims), 1.0)
    x = blocks_of(gaussian, args.blocks)
    flop = 2.0 * args.dims * (args.blocks + 1)
    rows = latent_rows(args, device, with_kernels)
    if with_kernels:
        rows += kernel_rows(x, gaussian, args.candidates, flop, peaks, args.repeats, device)

    searches = {"gaussian": (x, gaussian, 1.0, args.candidates, flop)}
    for name in args.models:
        stage = load_model(name).rungs[-1].stages[0]
        proposal = stage.proposal(device)
        x = blocks_of(stage.proposal(), args.blocks)
        flop = 2.0 * (multiply_adds(proposal, device) + proposal.dim * (args.blocks + 1))
        searches[name] = (x, proposal, stage.beta, args.generated, flop)
    largest = []
    for name, (x, proposal, beta, n, flop) in searches.items():
        run = partial(search, x, proposal, beta, device)
        times_s = seconds_of(partial(run, n), args.repeats, device)
        rows.append(rate_row(f"{name} search", n, times_s, flop, peaks))
        reached, took_s = largest_within(run, n, args.limit_s)
        largest.append({"row": f"{name} search", "num_candidates": reached, "seconds": took_s})
    return {
        "blocks": args.blocks,
        "dims": args.dims,
        "kernels": with_kernels,
        "limit_s": args.limit_s,
        "peaks_flop_a_second": peaks,
        "rows": rows,
        "largest": largest,
    }


def latent_rows(args: argparse.Namespace, device: str, with_kernels: bool) -> list[dict[str, Any]]:
    """Latents alone, in plain torch and by the kernel."""
    k = torch.arange(min(args.candidates, 1 << 20), device=device)
    ways = {"latents, plain torch": plain_normals}
    if with_kernels:
        from rcccodec.kernels.latents import normals

        ways["latents, kernel"] = normals
    return [
        rate_row(name, len(k), seconds_of(partial(way, 0, k, args.dims, 0), args.repeats, device))
        for name, way in ways.items()
    ]


def kernel_rows(
    x: torch.Tensor,
    proposal: GaussianProposal,
    n: int,
    flop: float,
    peaks: dict[str, float],
    repeats: int,
    device: str,
) -> list[dict[str, Any]]:
    """The Gaussian kernel alone, without arrival times and the exact decision, in each arithmetic."""
    from rcccodec.kernels.gaussian_search import GaussianScores, search_range

    of_blocks = GaussianScores.of(x, proposal, proposal.beta, device)
    offsets = torch.zeros(n, device=device)
    rows = []
    for precision in ("ieee", "tf32x3", "tf32"):
        run = partial(search_range, of_blocks, offsets, start=0, seed=0, stream=0, precision=precision)
        times_s = seconds_of(run, repeats, device)
        rows.append(rate_row(f"gaussian kernel alone, {precision}", n, times_s, flop, peaks))
    return rows


if __name__ == "__main__":
    main()
