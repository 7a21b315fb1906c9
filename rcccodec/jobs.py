"""Work shared by processes: results in the order in which they are ready, and no process left behind."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

from rcccodec.errors import RccError

Task = TypeVar("Task")
Result = TypeVar("Result")


def count_jobs(wanted: int) -> int:
    """Processes to use; 0 asks for one a core that this process may run on."""
    if wanted or not hasattr(os, "sched_getaffinity"):
        return wanted or os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def run_jobs(function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Yield ``function(task)`` of every task: here and in order for one job, else as processes end them.

    Args:
        function: importable by name. Every process runs it with one torch thread.
        tasks: anything that can be pickled.

    Raises:
        RccError: a process died. Whatever ``function`` raises is raised here.

    Invariant: when the iterator is closed or anything is raised, Ctrl-C included, the processes are ended at
    once; they also end when this one is killed.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from map(function, tasks)
        return
    before = set(multiprocessing.active_children())
    # a fork of a process that holds torch's threads may hang
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)
    done = False
    try:
        with _interrupts_held():
            futures = [executor.submit(function, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
        done = True
    except BrokenProcessPool:
        raise RccError("a worker process died; out of memory? try fewer --jobs") from None
    finally:
        executor.shutdown(wait=done, cancel_futures=True)
        if not done:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait, here until the end of this and in processes started meanwhile for ever.

    It reaches them too, and Python would print a traceback of each that has not come to ``_begin``.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would lift the mask on its own start
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
