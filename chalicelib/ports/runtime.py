"""What is around every use case: time, and the way off an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from chalicelib.domain.units import Ms

T = TypeVar("T")
A = TypeVar("A")


class Clock(Protocol):
    def now(self) -> Ms:
        """Milliseconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Wait, in code that is not asynchronous: only requests that are held do."""


class Offload(Protocol):
    """How a worker calls a synchronous store without stopping its other streams. Every outside call of a worker goes through it."""

    async def __call__(self, call: Callable[..., T], *args: Any) -> T: ...


class ParallelMap(Protocol):
    """How code that is not asynchronous makes many calls of a store at once."""

    def __call__(self, call: Callable[[A], T], each: Iterable[A]) -> list[T]:
        """What each call answered, in order, once all have ended.

        Raises:
            whatever the first that failed raised.
        """
