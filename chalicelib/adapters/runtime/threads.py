"""A parallel map over blocking calls, for code that is not asynchronous.

Its threads end before it returns (protocol rule 20: a handler returns after its tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")
MAX_WORKERS = 8  # a write waits about 5 ms and works 1 ms, so more threads would wait for each other


def parallel_map(call: Callable[[A], T], each: Iterable[A]) -> list[T]:
    """Call for each argument on threads and return the results in order.

    Raise the first exception after all calls have ended.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(MAX_WORKERS) as pool:
        futures = [pool.submit(call, one) for one in each]
    return [future.result() for future in futures]


def serial_map(call: Callable[[A], T], each: Iterable[A]) -> list[T]:
    """The same on the caller's thread, for stores that never block."""
    return [call(one) for one in each]
