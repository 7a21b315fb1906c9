"""One input at a time under watch: what it raises, prints, how long it takes and how much memory.

Allowed outcomes are a result and a documented error. Anything else is a `Fault`: another exception, a second
beyond the bound, memory far above what the input is worth, a warning, a line on standard error, a documented
error of several lines.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rcccodec.errors import RccError

TIME_S, TIME_S_PER_BYTE = 2.0, 1e-6  # of the processor: other work on the machine does not count
WAIT = 10  # times that, by the clock: for what waits without working
SPARE_BYTES, BYTES_PER_BYTE = 32 << 20, 32  # of peak memory: whatever the input, and for each byte of it
_SPACE_BYTES = 4 << 30  # of addresses, above what is there already


class Fault(Exception):
    """An outcome that is neither a result nor a documented error."""


class _TimeUp(BaseException):  # not caught by a parser's `except Exception`
    pass


@dataclass(frozen=True)
class Outcome:
    """``value``: of the result, None if ``refused``. ``fault``: what went wrong, or None."""

    value: Any
    refused: bool
    fault: str | None
    time_s: float
    peak_bytes: int


class Watch:
    """Runs functions of bytes; use as a context, which redirects standard error and bounds the address space.

    Args:
        time_s: allowed for an empty input.
        spare_bytes: of peak memory allowed for an empty input.
    """

    def __init__(self, *, time_s: float = TIME_S, spare_bytes: int = SPARE_BYTES) -> None:
        self._time_s, self._spare_bytes = time_s, spare_bytes
        self._warned: list[str] = []

    @contextmanager
    def watching(self, *, quiet: bool = True) -> Iterator[Watch]:
        """Within, `attempt` can be called; not ``quiet``, standard error is left alone."""
        limits = resource.getrlimit(resource.RLIMIT_AS)
        handlers = {number: signal.signal(number, _stop) for number in (signal.SIGALRM, signal.SIGPROF)}
        sys.stderr.flush()
        kept = os.dup(2)
        with tempfile.TemporaryFile() as said, warnings.catch_warnings():
            self._said = said
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, category, *_: self._warned.append(
                f"{category.__name__}: {message}"
            )
            self._is_quiet = quiet
            if quiet:
                os.dup2(said.fileno(), 2)
            used = _status("VmSize") or 0
            resource.setrlimit(resource.RLIMIT_AS, (used + _SPACE_BYTES, limits[1]))
            try:
                yield self
            finally:
                resource.setrlimit(resource.RLIMIT_AS, limits)
                _set_timers(0)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                os.dup2(kept, 2)
                os.close(kept)

    def attempt(self, run: Callable[[bytes], Any], data: bytes) -> Outcome:
        """What ``run`` makes of ``data``."""
        bound_s = self._time_s + TIME_S_PER_BYTE * len(data)
        value, refused, fault = None, False, None
        resident = reset_peak()
        start_s, stopped = time.process_time(), False
        _set_timers(bound_s)
        try:
            value = run(data)
        except RccError as error:
            refused = True
            if "\n" in str(error) or not str(error).strip():
                fault = f"a {type(error).__name__} that is not one line: {str(error)!r:.100}"
        except _TimeUp:
            stopped = True
        except MemoryError as error:
            fault = f"MemoryError: {error!s:.100}"
        except (Exception, SystemExit) as error:
            fault = f"{type(error).__name__}: {' '.join(str(error).split()):.160}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = f"{type(error).__name__}: {error!s:.160}"  # a panic of Rust code is no Exception
        finally:
            _set_timers(0)
        time_s = time.process_time() - start_s
        peak_bytes = peak_above(resident)
        if stopped or time_s > bound_s:
            fault = f"{time_s:.1f} s for {len(data)} bytes"
        elif fault is None and peak_bytes > self._spare_bytes + BYTES_PER_BYTE * len(data):
            fault = f"{peak_bytes >> 20} MiB of memory for {len(data)} bytes"
        return Outcome(value, refused, fault or self._printed(), time_s, peak_bytes)

    def _printed(self) -> str | None:
        if self._warned:
            text = self._warned[0]
            self._warned.clear()
            return f"a warning: {text:.160}"
        sys.stderr.flush()
        if not self._is_quiet:
            return None
        if size := os.lseek(2, 0, os.SEEK_CUR):
            self._said.seek(0)
            text = self._said.read(size).decode(errors="replace")
            self._said.seek(0)
            self._said.truncate()
            return f"on standard error: {' '.join(text.split()):.160}"
        return None


def _set_timers(bound_s: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, bound_s)
    signal.setitimer(signal.ITIMER_REAL, WAIT * bound_s)


def _stop(_signal: int, _frame: object) -> None:
    raise _TimeUp


def reset_peak() -> int | None:
    """Resident bytes, from which the next peak is counted; None where the system does not say."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return None
    return _status("VmRSS")


def peak_above(resident: int | None) -> int:
    peak = None if resident is None else _status("VmHWM")
    return 0 if peak is None or resident is None else max(0, peak - resident)


def _status(name: str) -> int | None:
    """A size in /proc/self/status, in bytes; None where there is none."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return None
