"""``rcc`` in a forked child that is killed at a chosen step, signalled, or starved of disk or memory.

Steps are what changes the file system below the child's folder: opening for writing, fsync, rename, link,
mkdir, rmdir, unlink, chmod; a fault at step k comes just before the k-th. A write is cut in two by a limit on
the size of files. The parent must have one thread: it is forked after importing what the commands need.
"""

import contextlib
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rcccodec import cli
from rcccodec.commands import console

# exit codes of a child in which something was raised that rcc let through, and of one that had to be ended
TRACEBACK, HUNG = 99, 96
_CHANGES = {"os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.truncate"}
_COUNTERS = struct.Struct("qq")  # steps, counted calls


@dataclass(frozen=True)
class Fault:
    """What happens to the child; nothing by default.

    step: of the file system, from 1, before which the child sends itself ``signal``. after_s: or the parent
    sends it so late. file_bytes: largest file, whose next byte fails, or kills if ``cuts``. memory_bytes:
    address space beyond what is taken at the start. stdout: a file's name, or "closed" for a pipe without a
    reader, else the outcome has it; stderr: a file's name.
    """

    step: int | None = None
    signal: int = signal.SIGKILL
    after_s: float | None = None
    file_bytes: int | None = None
    cuts: bool = False
    memory_bytes: int | None = None
    stdout: str | None = None
    stderr: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How the child ended: ``code`` is None if a signal killed it. ``calls``: of the functions counted."""

    code: int | None
    stdout: bytes
    stderr: str
    steps: int
    calls: int
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What was said on standard error."""
        return [line for line in self.stderr.splitlines() if line]

    @property
    def errors(self) -> list[str]:
        """The same without notes and warnings."""
        return [line for line in self.lines if not line.startswith(("rcc: note: ", "rcc: warning: "))]


@dataclass(frozen=True)
class Command:
    """Words of ``rcc``, functions to count as (module, name), and what the child does before and instead.

    before: called first, to set the scene in the child alone. run: what to do in place of the command line.
    """

    words: Sequence[str]
    counted: Sequence[tuple[Any, str]] = ()
    before: Callable[[], None] = field(default=lambda: None)
    run: Callable[[list[str]], int] = cli.run


def run_child(command: Command, folder: Path, fault: Fault, *, limit_s: float = 300.0) -> Outcome:
    """Run the command in ``folder``; ended with the code HUNG if it takes more than ``limit_s``."""
    shared = mmap.mmap(-1, _COUNTERS.size)
    sys.stdout.flush()
    sys.stderr.flush()
    ends = [os.pipe(), os.pipe()]
    start_s = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(command, folder, fault, shared, [end for _, end in ends])
    for _, end in ends:
        os.close(end)
    streams, status = _wait(child, [end for end, _ in ends], fault, start_s + limit_s)
    for end, _ in ends:
        os.close(end)
    steps, calls = _COUNTERS.unpack(shared[:])
    code = HUNG if status is None else os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    text = streams[1].decode(errors="replace")
    return Outcome(code, streams[0], text, steps, calls, time.monotonic() - start_s)


def _wait(child: int, ends: list[int], fault: Fault, deadline_s: float) -> tuple[list[bytes], int | None]:
    """Read both pipes to their ends, send what is to be sent; what was read, and the status in time."""
    import selectors

    streams, open_ends = [b"", b""], len(ends)
    send_s = None if fault.after_s is None else time.monotonic() + fault.after_s
    with selectors.DefaultSelector() as selector:
        for number, end in enumerate(ends):
            selector.register(end, selectors.EVENT_READ, number)
        while open_ends:
            now_s = time.monotonic()
            if send_s is not None and now_s >= send_s:
                os.kill(child, fault.signal)
                send_s = None
            if now_s > deadline_s:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return streams, None
            for key, _ in selector.select((send_s or deadline_s) - now_s):
                if data := os.read(key.fd, 1 << 16):
                    streams[key.data] += data
                else:
                    selector.unregister(key.fd)
                    open_ends -= 1
    return streams, os.waitpid(child, 0)[1]


def _become(command: Command, folder: Path, fault: Fault, shared: mmap.mmap, ends: list[int]) -> None:
    """Be the child; does not return."""
    code = TRACEBACK
    try:
        if fault.stdout == "closed":
            reader, ends[0] = os.pipe()
            os.close(reader)
        for number, (end, name) in enumerate(zip(ends, (fault.stdout, fault.stderr), strict=True), 1):
            os.dup2(os.open(name, os.O_WRONLY) if name and name != "closed" else end, number)
            os.close(end)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, console.terminate)
        steps, calls = _counters(folder, fault, shared)
        command.before()
        for module, name in command.counted:
            setattr(module, name, _counted(getattr(module, name), calls))
        _limit(fault)
        steps()
        code = command.run(list(command.words))
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(code)


def _limit(fault: Fault) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if fault.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault.cuts else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_bytes, fault.file_bytes))
    if fault.memory_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * mmap.PAGESIZE + fault.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _counters(folder: Path, fault: Fault, shared: mmap.mmap) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that begin to count steps, and count a call."""
    counts = [0, 0]
    root = os.path.realpath(folder)

    def count(which: int) -> None:
        counts[which] += 1
        shared[:] = _COUNTERS.pack(*counts)
        if which == 0 and counts[0] == fault.step:
            os.kill(os.getpid(), fault.signal)

    def below(path: object) -> bool:
        if isinstance(path, str | bytes | os.PathLike):
            return os.path.abspath(os.fsdecode(path)).startswith(root)
        return False

    def watch(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and below(path)
        else:  # a folder that is removed with all in it names its files by themselves
            changes = event in _CHANGES and (below(arguments[0]) or arguments[-1] not in (-1, None))
        if changes:
            count(0)

    sync = os.fsync

    def counted_sync(descriptor: int) -> None:
        count(0)
        sync(descriptor)

    def begin() -> None:
        os.fsync = counted_sync
        sys.addaudithook(watch)

    return begin, lambda: count(1)


def _counted(function: Callable, count: Callable[[], None]) -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        count()
        return function(*arguments, **options)

    return call
