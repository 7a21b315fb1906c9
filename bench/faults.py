"""Commands that are killed at every step, starved and signalled: what is left, and whether they go on.

    measure_faults() -> counts and failures; python bench/faults.py prints them

After each kill: nothing but whole results, old or new, under the final names; the same command then ends with
the very files of an uninterrupted run, searches nothing that was finished, and sweeps what the kill left.
"""

import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_child import Command, Fault, Outcome, run_child
from fault_places import NO_MOUNTS, cases, decoding_cases, wrong_end
from fault_scenarios import (
    DIGIT_OPTIONS,
    PHOTO_OPTIONS,
    Scenario,
    Tree,
    below,
    digits,
    is_private,
    lasting,
    made,
    photos,
    scenarios,
    start,
    tiled,
    tree,
)

from rcccodec import bundle, codec, decoder
from rcccodec.model_search import model_path

PLACES = "places and memory"  # the scenario of `fault_places`


@dataclass
class Tally:
    """Counts of one scenario, and what went wrong."""

    tried: int = 0
    killed: int = 0
    failures: list[str] = field(default_factory=list)


def measure_faults(
    only: Sequence[str] | None = None,
    *,
    most_steps: int = 20,
    cuts: int = 3,
    moments: int = 3,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Kill every scenario at its steps, within its writes and at random moments, and try all other faults.

    Args:
        only: names of scenarios; None is all of them.
        most_steps: kill points of a scenario at steps of the file system, evenly chosen if it has more.
        cuts: kill points within a write, and as many steps for each other signal and limits on the size of
            files. moments: random times, for each signal.

    Returns:
        {"kill_points", "tried", "failed", "failures", "seconds", "scenarios": {name: {...}}}, for JSON.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    torch.set_num_threads(1)
    start_s, chance = time.monotonic(), random.Random(seed)
    rows: dict[str, Any] = {}
    with _cached_models(), tempfile.TemporaryDirectory(prefix="rcc-faults-") as name:
        for number, scenario in enumerate(scenarios(Path(name), only)):
            began_s = time.monotonic()
            place = Path(name) / f"{number}"
            tally = _try_all(scenario, place, most_steps, cuts, moments, chance)
            rows[scenario.name] = {
                "tried": tally.tried,
                "kill_points": tally.killed,
                "failed": len(tally.failures),
                "failures": tally.failures,
                "seconds": round(time.monotonic() - began_s, 1),
            }
            say(f"{scenario.name}: {tally.killed} kill points, {len(tally.failures)} failures")
            for failure in tally.failures:
                say(f"  {failure}")
        if only is None or PLACES in only:
            rows[PLACES] = _try_places(Path(name) / "places", None)
            say(f"{PLACES}: {rows[PLACES]['tried']} tried, {rows[PLACES]['failed']} failures")
            for failure in rows[PLACES]["failures"]:
                say(f"  {failure}")
    return {
        "kill_points": sum(row["kill_points"] for row in rows.values()),
        "tried": sum(row["tried"] for row in rows.values()),
        "failed": sum(row["failed"] for row in rows.values()),
        "failures": [f"{name}: {line}" for name, row in rows.items() for line in row["failures"]],
        "seconds": round(time.monotonic() - start_s, 1),
        "scenarios": rows,
    }


def measure_places(names: Sequence[str] | None = None) -> dict[str, Any]:
    """Only what `fault_places` has, or the cases of these names: counts and failures."""
    torch.set_num_threads(1)
    with _cached_models(), tempfile.TemporaryDirectory(prefix="rcc-faults-") as place:
        return _try_places(Path(place), names)


def _try_places(place: Path, names: Sequence[str] | None) -> dict[str, Any]:
    """Places that cannot be written to, streams nobody reads, too little memory."""
    began_s, tried, skipped, failures = time.monotonic(), 0, 0, []
    some, photo, large = digits(3), photos(1)["p0.png"], tiled(5 if names is None else 3)
    file = made(place / "file", ["compress", "in.png", "-o", "a.rcc", *PHOTO_OPTIONS], {"in.png": photo})
    words = ["compress", "in", "-o", "a.rcc", *DIGIT_OPTIONS]
    archive = made(place / "archive", words, below("in", some))
    words = ["compress", "in.png", "-o", "a.rcc", *PHOTO_OPTIONS]
    large_file = made(place / "large", words, {"in.png": large})
    for case in itertools.chain(
        cases(some["0.png"], some, photo, large, file, archive), decoding_cases(large_file)
    ):
        if names is not None and case.name not in names:
            continue
        shutil.rmtree(place / "case", ignore_errors=True)
        (place / "case").mkdir()
        outcome, wrong = wrong_end(case, place / "case")
        tried += outcome.code != NO_MOUNTS
        skipped += outcome.code == NO_MOUNTS
        failures += [f"{case.name}: {line}" for line in wrong]
    return {
        "tried": tried,
        "kill_points": 0,
        "not_mountable_here": skipped,
        "failed": len(failures),
        "failures": failures,
        "seconds": round(time.monotonic() - began_s, 1),
    }


@contextmanager
def _cached_models() -> Iterator[None]:
    """Models are loaded here, once; children inherit them."""
    before, by_path = bundle.load_model, lru_cache(bundle.load_model)

    def load(name: str | Path) -> bundle.AnyModel:
        return by_path(model_path(name))

    for name in ("mnist", "photo"):
        load(name)
    bundle.load_model = codec.load_model = decoder.load_model = load  # type: ignore[assignment]
    try:
        yield
    finally:
        bundle.load_model = codec.load_model = decoder.load_model = before


def _try_all(
    scenario: Scenario, place: Path, most_steps: int, cuts: int, moments: int, chance: random.Random
) -> Tally:
    """All faults of one scenario, and what they leave."""
    tally = Tally()
    command = Command(scenario.words, scenario.counted, scenario.before)
    whole = start(scenario, place / "whole")
    plain = run_child(command, whole, Fault())
    if plain.code != 0:
        raise RuntimeError(f"{scenario.name}: fails without any fault: {plain.stderr}")
    goal = tree(whole)
    largest = max(len(data) for name, data in goal.items() if name not in scenario.inputs)
    steps = _spread(plain.steps, min(most_steps, scenario.most_steps))
    faults = [Fault(step=k) for k in steps]
    faults += [Fault(file_bytes=chance.randrange(largest), cuts=True) for _ in range(cuts)]
    faults += [Fault(after_s=chance.uniform(0, plain.seconds)) for _ in range(moments)]
    for number in (signal.SIGINT, signal.SIGTERM):
        some = chance.sample(range(1, plain.steps + 1), min(cuts, plain.steps))
        faults += [Fault(step=k, signal=number) for k in some]
        faults += [Fault(after_s=chance.uniform(0, plain.seconds), signal=number) for _ in range(moments)]
    faults += [Fault(file_bytes=chance.randrange(largest)) for _ in range(cuts)]
    for fault in faults:
        folder = start(scenario, place / "trial")
        struck = run_child(command, folder, fault)
        tally.tried += 1
        tally.killed += struck.code is None
        wrong = _wrong_end(fault, struck) + _wrong_files(scenario, folder, goal, struck)
        if struck.code != 0:
            wrong += _wrong_second_run(scenario, command, folder, goal, plain)
        elif not scenario.ignored:
            wrong += _differences(scenario, tree(folder), goal)
        tally.failures += [f"{_said(fault)}: {line}" for line in wrong]
    return tally


def _said(fault: Fault) -> str:
    name = fault.signal.name if isinstance(fault.signal, signal.Signals) else str(fault.signal)
    if fault.step is not None:
        return f"{name} before step {fault.step}"
    if fault.after_s is not None:
        return f"{name} after {fault.after_s:.2f} s"
    if fault.file_bytes is not None:
        return f"{'killed at' if fault.cuts else 'no more than'} {fault.file_bytes} bytes of a file"
    return f"no more than {fault.memory_bytes} bytes of memory"


def _wrong_end(fault: Fault, struck: Outcome) -> list[str]:
    """An undocumented exit code, or other than one line of cause."""
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: 6}[fault.signal]
    if struck.code in (0, None) or (struck.code == expected and len(struck.lines) == 1):
        return []
    return [f"exit code {struck.code} instead of {expected}, {struck.stderr!r:.600}"]


def _wrong_second_run(
    scenario: Scenario, command: Command, folder: Path, goal: Tree, plain: Outcome
) -> list[str]:
    """What the same command, with ``--resume`` for training, makes of what is there."""
    units = scenario.units(folder)
    words = scenario.again or scenario.words
    taken = "--no-overwrite" in words and (folder / "o.rcc").exists()
    again = run_child(replace(command, words=words), folder, Fault())
    if again.code != (6 if taken else 0):
        return [f"the second run ends with {again.code}: {again.stderr!r:.600}"]
    wrong = _differences(scenario, tree(folder), goal)
    if scenario.counted and again.calls != plain.calls - units:
        wrong.append(f"{again.calls} calls of {plain.calls} again, though {units} were done")
    return wrong


def _wrong_files(scenario: Scenario, folder: Path, goal: Tree, struck: Outcome) -> list[str]:
    """What is under final names and neither the old file nor the new one; litter unless it was killed."""
    found, wrong = tree(folder), []
    for name, data in found.items():
        before = scenario.inputs.get(name) or scenario.old.get(name)
        if struck.code is not None and name.endswith(".tmp"):
            wrong.append(f"{name} is left over")
        if is_private(name) or data == before or name in scenario.ignored:
            continue
        if lasting(name, data) != lasting(name, goal.get(name, b"")) and not scenario.partial(name, data):
            wrong.append(f"{name} is neither old nor new ({len(data)} bytes)")
    lost = [name for name in {**scenario.inputs, **scenario.old} if name not in found]
    return wrong + [f"{name} is lost" for name in lost]


def _differences(scenario: Scenario, found: Tree, goal: Tree) -> list[str]:
    """Between the files after the second run and those of an uninterrupted one."""
    wrong = [f"{name} is left over" for name in found if name not in goal]
    wrong += [f"{name} is missing" for name in goal if name not in found]
    return wrong + [
        f"{name} differs from that of an uninterrupted run"
        for name, data in goal.items()
        if name in found
        and name not in scenario.ignored
        and lasting(name, found[name]) != lasting(name, data)
    ]


def _spread(steps: int, most: int) -> list[int]:
    """Numbers of at most ``most`` of the steps 1, 2, ..., the last included."""
    return sorted({round(k) for k in np.linspace(1, steps, min(steps, most))})


if __name__ == "__main__":
    result = measure_faults(sys.argv[1:] or None)
    print(json.dumps(result, indent=1))
    raise SystemExit(1 if result["failed"] else 0)
