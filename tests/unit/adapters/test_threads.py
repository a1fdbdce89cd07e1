"""The parallel map: its calls end before it returns, its threads stay, and maps may be nested."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from chalicelib.adapters.runtime.threads import MAX_WORKERS, PooledMap


def test_results_are_in_the_order_of_the_arguments() -> None:
    assert PooledMap()(lambda number: number * 2, range(100)) == [number * 2 for number in range(100)]
    assert PooledMap()(str, []) == []


def test_calls_run_at_once_on_at_most_eight_threads() -> None:
    """Each waits until eight run; a ninth could not begin."""
    meeting = threading.Barrier(MAX_WORKERS, timeout=30)
    running, most, lock = [0], [0], threading.Lock()

    def call(_: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        meeting.wait()
        with lock:
            running[0] -= 1

    PooledMap()(call, range(MAX_WORKERS * 3))

    assert most == [MAX_WORKERS]


def test_threads_are_kept_for_the_next_map() -> None:
    parallel_map, threads = PooledMap(), set[int]()
    for _ in range(50):
        parallel_map(lambda _: threads.add(threading.get_ident()), range(20))

    assert len(threads) <= MAX_WORKERS + 1  # and the caller's


def test_one_argument_needs_no_thread() -> None:
    assert PooledMap()(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_nested_maps_end_although_every_thread_waits_for_an_inner_map() -> None:
    parallel_map = PooledMap()

    def nested(depth: int) -> Callable[[int], int]:
        return (lambda number: sum(parallel_map(nested(depth - 1), range(number + 10)))) if depth else (lambda _: 1)

    assert sum(parallel_map(nested(2), range(12))) == sum(sum(i + 10 for i in range(n + 10)) for n in range(12))


def test_the_first_failure_is_raised_after_all_calls_have_ended() -> None:
    ended = list[int]()

    def call(number: int) -> None:
        ended.append(number)
        if number in (3, 7):
            raise ValueError(number)

    with pytest.raises(ValueError, match="3"):
        PooledMap()(call, range(20))

    assert sorted(ended) == list(range(20))


def test_an_interrupt_starts_nothing_more_and_waits_for_what_runs() -> None:
    caller, started, ended = threading.get_ident(), list[int](), list[int]()
    interrupted = threading.Event()

    def call(number: int) -> None:
        started.append(number)
        if threading.get_ident() == caller:
            interrupted.set()
            raise KeyboardInterrupt
        interrupted.wait(30)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        PooledMap()(call, range(MAX_WORKERS * 100_000))

    assert len(started) == len(ended) + 1
    assert len(started) < MAX_WORKERS * 100_000
