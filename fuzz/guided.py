"""Coverage-guided fuzzing with atheris, target by target: what it finds is written to a folder.

    python -m fuzz.guided --seconds 600                   every target in turn
    python -m fuzz.guided --seconds 600 container tile    these

Half of what libFuzzer makes of an input is an edit of the target's own, checksums mended. A fault ends that
target; its input is in the folder as ``TARGET-crash-...``, to be kept in tests/corpus once it is mended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["rcccodec", "PIL", "safetensors"]):
    import fuzz.command_target  # with them everything that is read, or its coverage would not count
    import fuzz.file_targets
    from fuzz.inputs import all_targets, corpus
    from fuzz.target import Target
    from fuzz.watch import Watch


def fuzz(target: Target, found: Path, seconds: int, runs: int) -> None:
    """Run libFuzzer on one target in this process, which it ends.

    Args:
        found: an empty folder for the inputs it keeps.
        runs: at most; 0: any number.
    """
    for number, seed in enumerate([*target.seeds, *corpus(target.name)]):
        (found / f"seed-{number:03}").write_bytes(seed)
    watch = Watch(spare_bytes=4 * target.spare_bytes)  # the coverage tables grow too

    def once(data: bytes) -> None:
        outcome = watch.attempt(target.run, data)
        if outcome.fault is not None:
            raise RuntimeError(f"{target.name}: {outcome.fault}")

    def custom(data: bytes, max_bytes: int, seed: int) -> bytes:
        if target.edit is None or seed % 2:
            return atheris.Mutate(data, max_bytes)
        return target.edit(Random(seed), data, target.seeds)[:max_bytes]

    limits = [f"-max_total_time={seconds}", f"-runs={runs or -1}", "-max_len=65536", "-rss_limit_mb=4096"]
    # its own signals would take those of the watch, and it need not report slow inputs
    quiet = [
        "-handle_alrm=0",
        "-print_final_stats=1",
        "-timeout=0",
        f"-artifact_prefix={found.parent}/{target.name}-",
    ]
    atheris.Setup([sys.argv[0], *limits, *quiet, str(found)], once, custom_mutator=custom)
    with watch.watching(quiet=False):
        atheris.Fuzz()


def main() -> None:
    """The command line of this module: a child process for each target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="targets; none: all")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--runs", type=int, default=0, help="of each target, at most; 0: any number")
    parser.add_argument("--found", type=Path, default=Path("runs/fuzz"), help="folder for what is found")
    asked = parser.parse_args()
    asked.found.mkdir(parents=True, exist_ok=True)
    failed = []
    place, parent = Path(tempfile.mkdtemp()), os.getpid()
    try:
        targets = [t for t in all_targets(place) if not asked.names or t.name in asked.names]
        for target in targets:
            inputs = asked.found / f"inputs-{target.name}"
            shutil.rmtree(inputs, ignore_errors=True)
            inputs.mkdir()
            child = os.fork()
            if child == 0:
                fuzz(target, inputs, max(1, asked.seconds // len(targets)), asked.runs)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                failed.append(target.name)
            print(f"{target.name}: {'a fault' if status else 'no fault'}", file=sys.stderr, flush=True)
    finally:
        if os.getpid() == parent:  # a child that found a fault passes by here too
            shutil.rmtree(place)
    sys.exit(f"faults in {', '.join(failed)}; their inputs are in {asked.found}" if failed else 0)


if __name__ == "__main__":
    main()
