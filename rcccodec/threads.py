"""Work that gives the same numbers whatever the number of threads.

Torch shares out the sums of one operation among its threads, and the last bits of some depend on how many
there are. Here each item is worked on by one thread alone, and it is items that are shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeVar

import torch

from rcccodec.arithmetic import full_float32

Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[int], None]  # work done since it was last told


class _Stopped(Exception):
    """Another item has failed, or the caller was interrupted."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works with the calling thread alone inside, in full float32 whatever the caller allowed."""
    before = torch.get_num_threads()
    with full_float32():
        if before > 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if before > 1:
                torch.set_num_threads(before)


def each_alone(
    work: Callable[[Item, Tell], Result],
    items: Sequence[Item],
    progress: Tell | None = None,
    *,
    at_once: int | None = None,
) -> list[Result]:
    """``work(item, tell)`` of every item, in order; as many at a time as torch has threads, each on one.

    Args:
        work: uses no grad mode of the caller's, which belongs to his thread; may call ``tell``.
        progress: gets what ``tell`` is given, in the calling thread.
        at_once: items at the most, where memory asks for it; less than 1 counts as 1.

    Raises:
        What ``work`` or ``progress`` raises; the other items end at their next ``tell``.

    Invariant: a result depends on its item alone.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(items), threads if at_once is None else at_once)
    if workers <= 1:
        with one_thread():
            return [work(item, progress or _ignore) for item in items]
    told: SimpleQueue[int | BaseException | None] = SimpleQueue()  # None: an item is done
    left = iter(range(len(items)))
    results: dict[int, Result] = {}
    stop, lock = Event(), Lock()

    def tell(amount: int) -> None:
        if stop.is_set():
            raise _Stopped
        told.put(amount)

    def run() -> None:
        torch.set_num_threads(1)
        while not stop.is_set():
            with lock:
                number = next(left, None)
            if number is None:
                return
            try:
                results[number] = work(items[number], tell)
            except BaseException as error:  # raised again in the calling thread
                told.put(error)
                return
            told.put(None)

    running: list[Thread] = []
    try:
        with full_float32():
            with suppress(RuntimeError):  # the system gives no more threads
                for _ in range(workers):
                    thread = Thread(target=run)
                    thread.start()
                    running.append(thread)
            wanted = len(items) if running else 0
            while wanted:
                news = told.get()
                if isinstance(news, BaseException):
                    raise news
                if news is None:
                    wanted -= 1
                elif progress is not None:
                    progress(news)
    finally:
        stop.set()
        for thread in running:
            thread.join()
        torch.set_num_threads(threads)  # what new threads get; ours asked for 1
    if not running:
        with one_thread():
            return [work(item, progress or _ignore) for item in items]
    return [results[number] for number in range(len(items))]


def _ignore(_: int) -> None:
    pass
