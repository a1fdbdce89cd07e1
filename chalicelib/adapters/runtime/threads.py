"""A parallel map over blocking calls, for code that is not asynchronous.

Its calls end before it returns (protocol rule 20: a handler returns after its tasks). The threads
stay for the next map of the environment: starting eight takes a millisecond, as long as a write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

A = TypeVar("A")
T = TypeVar("T")
MAX_WORKERS = 8  # a write waits about 5 ms and works 1 ms, so more threads would wait for each other


class PooledMap:
    """A parallel map on threads that are started at its first use.

    The caller's thread makes calls too. So a map inside a map goes on when all threads are taken,
    and cannot wait for itself.
    """

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="map")

    def __call__(self, call: Callable[[A], T], each: Iterable[A]) -> list[T]:
        """Call for each argument, and return the results in order.

        Raise the exception of the first call that failed, after all calls have ended.
        """
        arguments = list(each)
        results: list[Any] = [None] * len(arguments)
        failures: dict[int, Exception] = {}
        left = deque(range(len(arguments)))

        def work() -> None:
            while True:
                try:
                    at = left.popleft()
                except IndexError:
                    return
                try:
                    results[at] = call(arguments[at])
                except Exception as exc:  # noqa: BLE001 - raised when all calls have ended
                    failures[at] = exc

        helpers = [self._pool.submit(work) for _ in range(min(MAX_WORKERS, len(arguments)) - 1)]
        try:
            work()
        finally:
            left.clear()  # after a KeyboardInterrupt or the like nothing more is started
            running = [helper for helper in helpers if not helper.cancel()]
            ended = [helper.exception() for helper in running]
        for exc in (*ended, *(failures[at] for at in sorted(failures))):
            if exc is not None:
                raise exc
        return results


def serial_map(call: Callable[[A], T], each: Iterable[A]) -> list[T]:
    """The same on the caller's thread, for stores that never block."""
    return [call(one) for one in each]
