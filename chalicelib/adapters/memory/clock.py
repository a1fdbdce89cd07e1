"""A clock that moves only when a test moves it, and calls that are made inline."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chalicelib.domain.units import Ms

T = TypeVar("T")

START: Ms = 1_763_800_000_000  # a day in November 2025, so that ids and times have their usual length
SETTLE_TURNS = 50  # turns of the event loop after which all runnable coroutines have run


class ManualClock:
    """A clock that moves only by `advance`, `sleep` and `run`. Coroutines wait on it with `pause`."""

    def __init__(self, start: Ms = START) -> None:
        self._now = start
        self._waiting: list[tuple[Ms, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> Ms:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move time and wake the coroutines whose pause is over."""
        self._now += round(seconds * 1000)
        while self._waiting and self._waiting[0][0] <= self._now:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Wait like `asyncio.sleep`, for at least one turn of the event loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._now + max(1, round(seconds * 1000)), next(self._order), waiter))
        await waiter

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end. When all coroutines wait, move time to the end of the next pause."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(SETTLE_TURNS):
                await asyncio.sleep(0)
            if not task.done():
                self._jump()
        return task.result()

    def _jump(self) -> None:
        while self._waiting and self._waiting[0][2].done():  # cancelled meanwhile
            heapq.heappop(self._waiting)
        if self._waiting:
            self.advance((self._waiting[0][0] - self._now) / 1000)


async def run_inline(call: Callable[..., T], *args: Any) -> T:
    """An `Offload` for stores that never block.

    It takes one turn of the event loop, so that other coroutines run in between.
    """
    await asyncio.sleep(0)
    return call(*args)
