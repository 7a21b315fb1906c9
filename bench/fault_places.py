"""Places that cannot be written to, streams nobody reads, too little memory: the documented end of each.

Every case is a command, a fault and the exit code it must end with, after one line on standard error and
with every file as it was. File systems that are full or read-only are mounted in the child's own namespace.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fault_child import Command, Fault, Outcome, run_child
from fault_scenarios import Tree, is_private, tree

from rcccodec import cli

MEMORY_MIB = (0, 1, 4, 16, 32, 64, 96, 128, 192, 256)  # beyond what is taken before the command begins
SMALL = "small"  # folder that a small or read-only file system is mounted on
SMALL_BYTES = 16 << 10
CLOSED = "closed"  # folder that may not be searched, not even by root
TOO_LONG = "a" * 300
NO_MOUNTS, CHANGED = 97, 98  # exit codes of children; the first: the place cannot be made
_CAPABILITIES_3 = 0x20080522
_SEARCH_ALL = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_NEW_NAMESPACE, _READ_ONLY, _PRIVATE, _RECURSIVE = 0x20000, 1, 1 << 18, 1 << 14

NO_FAULT = Fault()


@dataclass(frozen=True)
class Case:
    """A command that must end with one of ``codes`` and leave ``inputs`` and nothing else."""

    name: str
    words: Sequence[str]
    inputs: Tree
    codes: Sequence[int]
    fault: Fault = NO_FAULT
    mount: str | None = None  # options of a tmpfs on SMALL
    closes: bool = False  # there is CLOSED
    made: Sequence[str] = ()  # results that may be there all the same, whole


def cases(
    digit: bytes, digits: Tree, photo: bytes, large: bytes, small_file: bytes, archive: bytes
) -> Iterator[Case]:
    """All of them: pictures as PNG, ``large`` of some megapixels; .rcc files of one picture and several."""
    mnist, fast = ["-m", "mnist", "--candidates", "2048"], ["-m", "photo", "-e", "1"]
    one = ["compress", "in.png", "-o"]
    file, files = {"in.png": digit}, {f"in/{name}": data for name, data in digits.items()}
    rcc, many = {"a.rcc": small_file}, {"a.rcc": archive}
    writers = [
        ("compress", [*one, "{}o.rcc", *mnist], file),
        ("compress an archive", ["compress", "in", "-o", "{}o.rcc", *mnist], files),
        ("compress a folder", ["compress", "in", "-o", "{}out/", *mnist], files),
        ("decompress", ["decompress", "a.rcc", "-o", "{}o.png"], rcc),
        ("decompress an archive", ["decompress", "a.rcc", "-o", "{}out"], many),
        ("samples", ["samples", "mnist", "-o", "{}o.png"], {}),
        ("rd", ["rd", "gaussian:m=1", "--method", "exact", "--beta", "1", "--json", "{}o.json"], {}),
    ]
    for name, words, inputs in writers:
        below_file = [word.format("in.txt/") for word in words]
        yield Case(f"{name} below a file", below_file, {**inputs, "in.txt": b""}, [6])
        too_long = [word.format(f"{TOO_LONG}/") for word in words]
        yield Case(f"{name} below too long a name", too_long, inputs, [6])
        for below in ("", "deep/"):
            closed = [word.format(f"{CLOSED}/{below}") for word in words]
            what = f"{name} to {CLOSED}/{below}, which may not be searched"
            yield Case(what, closed, inputs, [6], closes=True)
        mounted = [word.format(f"{SMALL}/") for word in words]
        yield Case(f"{name} on a read-only file system", mounted, inputs, [6], mount="ro")
        yield Case(f"{name} on a full disk", mounted, inputs, [6], mount=f"size={SMALL_BYTES}")
    yield Case("compress to a full device", [*one, "/dev/full", *mnist], file, [6])
    for stream in ("/dev/full", "closed"):
        for name, words, inputs, made in (
            ("a file", [*one, "-", *mnist], file, []),
            ("a report", [*one, "o.rcc", *mnist], file, ["o.rcc"]),
            ("JSON", [*one, "o.rcc", *mnist, "--json"], file, ["o.rcc"]),
            ("a picture", ["decompress", "a.rcc", "-o", "-"], rcc, []),
            ("a line", ["decompress", "a.rcc", "-o", "o.png"], rcc, ["o.png"]),
            ("what a file holds", ["info", "a.rcc"], rcc, []),
            ("what a file holds, in JSON", ["info", "a.rcc", "--json"], rcc, []),
            ("models", ["models"], {}, []),
            ("points", ["rd", "gaussian:m=1", "--method", "exact", "--beta", "1"], {}, []),
        ):
            yield Case(f"{name} to {stream}", words, inputs, [6], Fault(stdout=stream), made=made)
    deaf = Fault(stderr="/dev/full")
    yield Case("an error nobody can be told", [*one, "o.rcc", "-m", "nothing"], file, [5], deaf)
    yield Case("wrong usage nobody can be told", ["compress"], file, [2], deaf)
    yield Case("a warning nobody can be told", [*one, "o.rcc", *mnist], file, [0], deaf, made=["o.rcc"])
    for mib in MEMORY_MIB:
        short = Fault(memory_bytes=mib << 20)
        words = ["compress", "large.png", "-o", "o.rcc", *fast]
        yield Case(f"compress in {mib} MiB", words, {"large.png": large}, [0, 7], short, made=["o.rcc"])
        words = ["compress", "large.png", "-o", "o.rcc", *mnist]
        yield Case(f"compress by shared candidates in {mib} MiB", words, {"large.png": large}, [0, 7], short,
                   made=["o.rcc"])  # fmt: skip


def decoding_cases(large_file: bytes) -> Iterator[Case]:
    """A large picture decoded in too little memory."""
    for mib in MEMORY_MIB:
        words = ["decompress", "a.rcc", "-o", "o.png"]
        short = Fault(memory_bytes=mib << 20)
        yield Case(f"decompress in {mib} MiB", words, {"a.rcc": large_file}, [0, 7], short, made=["o.png"])


def wrong_end(case: Case, folder: Path) -> tuple[Outcome, list[str]]:
    """Run a case in an empty folder: how it ended, and what was not as it should be."""
    for name, data in case.inputs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    run, before = cli.run, _nothing
    if case.mount is not None:
        (folder / SMALL).mkdir()
        run, before = _run_and_look, _mounter(case.mount)
    if case.closes:
        (folder / CLOSED).mkdir(mode=0)
        before = _search_no_more
    outcome = run_child(Command(case.words, before=before, run=run), folder, case.fault)
    if case.closes:
        (folder / CLOSED).chmod(0o700)
    if outcome.code == NO_MOUNTS:
        return outcome, []
    wrong = []
    lines = 0 if outcome.code == 0 else 1 + (outcome.code == 2) * 2  # usage errors show how to get help
    if outcome.code not in case.codes or (case.fault.stderr is None and len(outcome.errors) > lines):
        wrong.append(f"exit code {outcome.code} instead of {case.codes}, {outcome.stderr!r:.600}")
    found = tree(folder)
    wrong += [f"{name} is changed or lost" for name in case.inputs if found.get(name) != case.inputs[name]]
    left = [name for name in found if name not in case.inputs and name not in case.made]
    return outcome, wrong + [f"{name} is left over" for name in left]


def _nothing() -> None:
    pass


def _search_no_more() -> None:
    """Give up, as a plain user has never had it, the right to search every folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of 32 capabilities, then of the rest
    if libc.capget(header, sets):
        os._exit(NO_MOUNTS)
    for kind in range(3):
        sets[kind] &= ~_SEARCH_ALL
    if libc.capset(header, sets) or os.access(CLOSED, os.X_OK, effective_ids=True):
        os._exit(NO_MOUNTS)


def _mounter(options: str) -> Callable[[], None]:
    def mount() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        flags = _READ_ONLY if options == "ro" else 0
        data = None if options == "ro" else options.encode()
        private = _PRIVATE | _RECURSIVE
        if (
            libc.unshare(_NEW_NAMESPACE)
            or libc.mount(None, b"/", None, private, None)
            or libc.mount(b"none", SMALL.encode(), b"tmpfs", flags, data)
        ):
            os._exit(NO_MOUNTS)
        if not flags:  # nearly full: what is small still fits
            Path(SMALL, "filler").write_bytes(bytes(SMALL_BYTES - (4 << 10)))
            with open(Path(SMALL, "kept"), "wb") as file:
                file.write(bytes(4 << 10))

    return mount


def _run_and_look(words: list[str]) -> int:
    """The exit code of ``rcc``, or CHANGED with what is new on the small file system, which ends with us."""
    before = tree(Path(SMALL))
    code = cli.run(words)
    after = tree(Path(SMALL))
    changed = [name for name in after.keys() | before.keys() if after.get(name) != before.get(name)]
    if changed := [name for name in changed if not is_private(name) or name.endswith(".tmp")]:
        print("changed:", *changed, file=sys.stderr, flush=True)
        return CHANGED
    return code
