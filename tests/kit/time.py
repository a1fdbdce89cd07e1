"""An event loop with virtual time: when every task waits, the clock jumps to the next timer.

Hours of leases and retries pass in milliseconds, and the order of events is the same in every run.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from chalicelib.adapters.memory.clock import START

T = TypeVar("T")


class _Jump(selectors.BaseSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        self._loop, self._inner = loop, selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = self._inner.select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: every task waits, and there is no timer")
        if not ready and timeout:
            self._loop.moment += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> Any:
        return self._inner.unregister(fileobj)

    def get_map(self) -> Any:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time.

    `made` lists the open ones; a fixture closes them after each test.
    """

    made: ClassVar[list[JumpingLoop]] = []

    def __init__(self) -> None:
        self.moment = 0.0
        super().__init__(_Jump(self))
        self.made.append(self)

    def time(self) -> float:
        return self.moment


class LoopClock:
    """The clock port, on the loop's virtual time."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return START + round(self._loop.moment * 1000)

    def sleep(self, seconds: float) -> None:
        self._loop.moment += seconds

    def advance(self, seconds: float) -> None:
        self._loop.moment += seconds


class SkewedClock:
    """A clock that is `seconds` ahead, or behind if negative."""

    def __init__(self, clock: LoopClock, seconds: float) -> None:
        self._clock, self._ms = clock, round(seconds * 1000)

    def now(self) -> int:
        return self._clock.now() + self._ms

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)


def run(loop: JumpingLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, and assert that no task is left.

    (protocol rule 20: a handler returns after its tasks)
    """
    result = loop.run_until_complete(work)
    left = asyncio.all_tasks(loop)
    assert not left, f"tasks are still running after their handler returned: {left}"
    return result
