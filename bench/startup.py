"""Seconds from the shell to the result: ``rcc --help``, ``rcc info``, one digit compressed and decompressed.

    python bench/startup.py                            # bench/results/startup.json
    python bench/startup.py --repeats 7 -o /tmp/trial.json

Every run is a process of its own, the commands taking turns; medians. ``import torch`` alone is measured in
the same turns: ``times_torch`` is a command's time over its, ``beyond_torch_s`` what is left after it.
Processor seconds, which other processes on the machine change less, are beside the seconds on the wall.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metadata import RESULTS, describe_run, write_result

from rcccodec.bundle import load_model
from rcccodec.images import write_image
from rcccodec.sources import load_source

# bytecode is kept, as it is of an installed package
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
RCC = [sys.executable, "-m", "rcccodec"]
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "rcc --help": [*RCC, "--help"],
    "rcc info": [*RCC, "info", "x.rcc"],
    "rcc decompress": [*RCC, "decompress", "x.rcc", "-o", "y.png", "--quiet"],
    "rcc compress": [*RCC, "compress", "x.png", "-o", "y.rcc", "--quiet"],
}


def run_once(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds on the wall and processor seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_all(folder: Path, model: str, repeats: int) -> list[dict[str, Any]]:
    """A row for each command; the folder holds x.png."""
    options = ["-m", model, "--device", "cpu"]
    made = [*RCC, "compress", "x.png", "-o", "x.rcc", "--quiet", *options]
    subprocess.run(made, cwd=folder, env=ENVIRONMENT, check=True)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, command in COMMANDS.items():
            seconds = run_once(command + (options if name == "rcc compress" else []), folder)
            if turn:  # the first fills the caches of the system
                taken[name].append(seconds)
    median = {
        name: [statistics.median(one) for one in zip(*runs, strict=True)] for name, runs in taken.items()
    }
    torch_s, torch_cpu_s = median["import torch"]
    return [
        {
            "command": name,
            "seconds": wall_s,
            "least_s": min(wall for wall, _ in taken[name]),
            "cpu_s": cpu_s,
            "times_torch": wall_s / torch_s,
            "beyond_torch_s": wall_s - torch_s,
            "beyond_torch_cpu_s": cpu_s - torch_cpu_s,
        }
        for name, (wall_s, cpu_s) in median.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--repeats", type=int, default=11, help="runs of each command that are counted")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "startup.json")
    args = parser.parse_args()

    began = time.perf_counter()
    model = load_model(args.model)
    source = "sample-digits" if model.channels == 1 else "sample-photos"
    with tempfile.TemporaryDirectory() as name:
        write_image(Path(name) / "x.png", load_source(source, "test").images()[0])
        rows = measure_all(Path(name), args.model, args.repeats)
    for row in rows:
        print(
            f"{row['command']:<16} {row['seconds']:.3f} s ({row['cpu_s']:.3f} s of processor), "
            f"{row['times_torch']:.2f} times import torch"
        )
    result = {
        "what": "seconds of whole processes, one image of one block each",
        "models": {model.name: model.sha256},
        "repeats": args.repeats,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **describe_run(began),
        "rows": rows,
    }
    write_result(args.output, result)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
