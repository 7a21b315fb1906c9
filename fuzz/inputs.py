"""Mutated inputs by the hundred thousand, counted: what failed, what hung, what damage nobody noticed.

python -m fuzz.inputs                    all targets, full size
python -m fuzz.inputs --count 5000 image checkpoint
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz.hostile import measure_hostile_header
from fuzz.mutate import mutate
from fuzz.target import Target
from fuzz.watch import TIME_S, Watch

__all__ = ["Tally", "all_targets", "attack", "corpus", "measure_hostile_header", "measure_inputs"]

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
COUNT = 220_000
MAX_KEPT = 50  # faults of a target that are listed; all are counted


@dataclass
class Tally:
    """Of one target. ``plain``: mutated as they are; ``mended``: with their checksums right.

    ``undetected``: plain ones of a guarded target that gave a result no seed gives.
    """

    target: str
    plain: int = 0
    mended: int = 0
    unchanged: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: int = 0
    hangs: int = 0
    undetected: int = 0
    slowest_s: float = 0.0
    most_memory_bytes: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def all_targets(folder: Path) -> list[Target]:
    """Every target, its scratch files below ``folder``."""
    from fuzz.codec_targets import codec_targets
    from fuzz.command_target import command_targets
    from fuzz.file_targets import file_targets

    return [*codec_targets(folder), *file_targets(folder), *command_targets(folder)]


def attack(
    target: Target, count: int, seed: int, *, keep: Path | None = None, time_s: float = TIME_S
) -> Tally:
    """Give a target ``count`` mutated inputs, about half of them with their checksums right.

    Args:
        seed: of the mutations.
        keep: a folder for the inputs that failed, and for the one under way, should it end the process.
        time_s: of the processor that an input may take, and a little more for its size.
    """
    tally = Tally(target.name)
    random = Random(f"{seed} {target.name}")
    start_s = time.monotonic()
    seeds = [*target.seeds, *corpus(target.name)]
    with Watch(time_s=time_s, spare_bytes=target.spare_bytes).watching() as watch:
        known = [watch.attempt(target.run, one) for one in seeds]
        values = {outcome.value for outcome in known if not outcome.refused}
        for one, outcome in zip(seeds, known, strict=True):
            _note(tally, one, outcome.fault, keep)
        for number in range(count):
            base = random.choice(seeds)
            is_mended = target.edit is not None and bool(number % 2)
            data = (target.edits if is_mended else mutate)(random, base, seeds)
            if data in seeds:
                tally.unchanged += 1
            if keep is not None:
                (keep / "under-way").write_bytes(data)
            outcome = watch.attempt(target.run, data)
            tally.mended, tally.plain = tally.mended + is_mended, tally.plain + (not is_mended)
            tally.refused, tally.accepted = (
                tally.refused + outcome.refused,
                tally.accepted + (not outcome.refused),
            )
            tally.slowest_s = max(tally.slowest_s, outcome.time_s)
            tally.most_memory_bytes = max(tally.most_memory_bytes, outcome.peak_bytes)
            fault = outcome.fault
            is_result = fault is None and not outcome.refused
            if is_result and target.is_guarded and not is_mended and not target.agrees(values, outcome.value):
                tally.undetected += 1
                fault = "undetected: damage, and another result"
            _note(tally, data, fault, keep)
    tally.seconds = time.monotonic() - start_s
    return tally


def corpus(name: str) -> list[bytes]:
    """The files that are kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]


def measure_inputs(
    count: int = COUNT, seed: int = 1, names: Sequence[str] = (), *, keep: Path | None = None
) -> dict[str, Any]:
    """All targets, each in a process of its own so that not even a crash of the interpreter is lost.

    Args:
        count: inputs of all targets together.
        names: of targets; none: all.
        keep: as in `attack`.

    Returns:
        totals, and a row for each target as in `Tally`.
    """
    rows = []
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as place:
        targets = [t for t in all_targets(Path(place)) if not names or t.name in names]
        shares = sum(t.count_share for t in targets)
        for target in targets:
            own = round(count * target.count_share / shares)
            kept = Path(place) / "kept" if keep is None else keep
            kept.mkdir(parents=True, exist_ok=True)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
                try:
                    tally = pool.submit(attack, target, own, seed, keep=kept).result()
                except BrokenProcessPool:
                    tally = Tally(target.name, plain=1, crashes=1, failures=["the process died of one input"])
                    (kept / f"{target.name}-death").write_bytes((kept / "under-way").read_bytes())
            rows.append(asdict(tally))
            print(_line(tally), file=sys.stderr, flush=True)
    totals = {
        "inputs": sum(row["plain"] + row["mended"] for row in rows),
        **{key: sum(row[key] for row in rows) for key in ("crashes", "hangs", "undetected")},
        "seconds": time.monotonic() - start_s,
    }
    return {**totals, "seed": seed, "targets": rows}


def _note(tally: Tally, data: bytes, fault: str | None, keep: Path | None) -> None:
    if fault is None:
        return
    if " s for " in fault:
        tally.hangs += 1
    elif not fault.startswith("undetected"):
        tally.crashes += 1
    if len(tally.failures) < MAX_KEPT:
        tally.failures.append(fault)
        if keep is not None:
            (keep / f"{tally.target}-{len(tally.failures):02}").write_bytes(data)


def _line(tally: Tally) -> str:
    return (
        f"{tally.target:<16}{tally.plain:>7} plain {tally.mended:>7} mended {tally.accepted:>7} accepted "
        f"{tally.crashes:>4} crashes {tally.hangs:>3} hangs {tally.undetected:>3} undetected "
        f"{tally.slowest_s:6.2f} s {tally.most_memory_bytes >> 20:>4} MiB {tally.seconds:7.1f} s"
    )


def _memory() -> str | None:
    """A folder in memory where the system has one: inputs go through files by the thousand."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="targets; none: all")
    parser.add_argument("--count", type=int, default=COUNT, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for inputs that failed")
    asked = parser.parse_args()
    found = measure_inputs(asked.count, asked.seed, asked.names, keep=asked.keep)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["crashes"] or found["hangs"] or found["undetected"]))


if __name__ == "__main__":
    main()
