"""Items are worked on alone, in order; what goes wrong ends the others; the caller's threads come back."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from rcccodec.threads import Tell, each_alone, one_thread

ITEMS = list(range(7))


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def threads_of_another() -> int:
    """What a thread that is new now is given."""
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    return found[0]


def test_each_item_has_one_thread_and_results_are_in_order(threads: int) -> None:
    made = each_alone(lambda i, _: (i, torch.get_num_threads(), threading.current_thread()), ITEMS)
    assert [i for i, _, _ in made] == ITEMS
    assert {count for _, count, _ in made} == {1}
    assert len({thread for _, _, thread in made}) <= threads
    assert threads_of_another() == threads


def test_items_are_shared_out(threads: int) -> None:
    """As many at a time as there are threads: each waits for all the others."""
    together = threading.Barrier(threads, timeout=20)
    each_alone(lambda _, tell: together.wait(), range(2 * threads))


@pytest.mark.parametrize("at_once", [0, 1, 2])
def test_fewer_at_once_if_asked(threads: int, at_once: int) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def work(_: int, tell: Tell) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    each_alone(work, ITEMS, at_once=at_once)
    assert most[0] <= max(1, at_once)


def test_progress_is_told_in_the_calling_thread() -> None:
    told = []
    each_alone(
        lambda i, tell: [tell(i), tell(1)], ITEMS, lambda n: told.append((n, threading.current_thread()))
    )
    assert sorted(n for n, _ in told) == sorted(ITEMS + [1] * len(ITEMS))
    assert {thread for _, thread in told} == {threading.current_thread()}


@pytest.mark.parametrize("given", [0, 1])
def test_a_system_that_gives_no_more_threads_is_no_fault(
    threads: int, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, start = [], threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if len(started) == given:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    told: list[int] = []
    made = each_alone(lambda i, tell: (tell(i), i, torch.get_num_threads()), ITEMS, told.append)
    monkeypatch.undo()
    assert made == [(None, i, 1) for i in ITEMS]
    assert sorted(told) == ITEMS
    assert len(started) == (given if threads > 1 else 0)


def test_no_item_is_no_work() -> None:
    assert each_alone(lambda i, _: i, []) == []


@pytest.mark.parametrize("where", ["work", "progress"])
def test_what_is_raised_ends_the_others(threads: int, where: str) -> None:
    steps = [0] * len(ITEMS)

    def work(i: int, tell: Tell) -> None:
        if where == "work" and i == 1:
            raise KeyError("planted")
        for _ in range(5000):
            steps[i] += 1
            tell(1)
            time.sleep(1e-3)

    def progress(_: int) -> None:
        if where == "progress":
            raise KeyError("planted")

    began = time.perf_counter()
    with pytest.raises(KeyError, match="planted"):
        each_alone(work, ITEMS[1:] if threads == 1 else ITEMS, progress)
    assert sum(steps) <= 2500
    assert time.perf_counter() - began < 20
    assert threads_of_another() == threads


def test_one_thread_is_for_the_inside_only(threads: int) -> None:
    def fail() -> None:
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        raise KeyError

    with pytest.raises(KeyError), one_thread():
        fail()
    assert torch.get_num_threads() == threads
