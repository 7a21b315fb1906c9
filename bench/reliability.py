"""What hostile files, faults and other settings of a machine do to files: a section of the result at a time.

    inputs       mutated and random inputs to every parser: crashes, hangs, damage that went unnoticed
    header       time and memory of the worst small files with consistent headers
    bundles      hand-made hostile model bundles
    flips        every single bit of every golden file: is it seen?
    golden       golden files decoded by this version and by a reader written from FORMAT.md alone
    kills        commands killed at every step, disks full, pipes closed, memory exhausted: files lost
    salvage      damaged archives: intact images given back
    determinism  files and pixels under other numbers of threads, other orders and another decoder

Without a section it measures all, about an hour on one core.
"""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from metadata import RESULTS, describe_run, write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # fuzz/ is beside bench/

SECTIONS = {
    "inputs": ("fuzz.inputs", "measure_inputs"),
    "header": ("fuzz.hostile", "measure_hostile_header"),
    "bundles": ("bundles", "measure_bundles"),
    "flips": ("golden", "measure_flips"),
    "golden": ("golden", "measure_golden"),
    "kills": ("faults", "measure_faults"),
    "salvage": ("salvage", "measure_salvage"),
    "determinism": ("determinism", "measure_determinism"),
}


def measure(section: str) -> dict[str, Any]:
    """The numbers of one section, and what they were obtained with."""
    module, function = SECTIONS[section]
    began = time.perf_counter()
    numbers = getattr(import_module(module), function)()
    return {**describe_run(began), **numbers}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "reliability.json")
    args = parser.parse_args()
    if unknown := set(args.sections) - SECTIONS.keys():
        parser.error(f"no section {min(unknown)}: there are {', '.join(SECTIONS)}")
    for section in args.sections or SECTIONS:
        print(f"{section} ...", file=sys.stderr, flush=True)
        numbers = measure(section)
        result = json.loads(args.out.read_text()) if args.out.exists() else {}
        result[section] = numbers
        write_result(args.out, {name: result[name] for name in SECTIONS if name in result})
        print(json.dumps({section: numbers}, indent=1)[:2000])


if __name__ == "__main__":
    main()
