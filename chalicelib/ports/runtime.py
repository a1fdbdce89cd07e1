"""Time, and how synchronous calls are made beside other work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from chalicelib.domain.units import Ms

T = TypeVar("T")
A = TypeVar("A")


class Clock(Protocol):
    """The current time."""

    def now(self) -> Ms:
        """Milliseconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Block the thread. Only long polling does; coroutines have a pause of their own."""


class Offload(Protocol):
    """Runs a synchronous call on a thread, so that it does not stop the other streams of a worker.

    A worker makes every call to a store through it: `job = await offload(jobs.get, job_id)`.
    """

    async def __call__(self, call: Callable[..., T], *args: Any) -> T: ...


class ParallelMap(Protocol):
    """Makes many calls to a store at once, for code that is not asynchronous."""

    def __call__(self, call: Callable[[A], T], each: Iterable[A]) -> list[T]:
        """Call `call` for each argument. Return the results in order, after all calls have ended.

        Raises:
            Exception: the exception of the first call that failed.
        """
