"""Time that a test holds in its hand, and calls that are made on the spot."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chalicelib.domain.units import Ms

T = TypeVar("T")

START: Ms = 1_763_800_000_000  # a day in November 2025: real ids and real times are of this size
SETTLE_TURNS = 50  # rounds of the event loop after which everything that can run has run


class ManualClock:
    """A clock that moves only when it is told to. Coroutines wait on it with `pause`; `run` moves it to whatever is due next."""

    def __init__(self, start: Ms = START) -> None:
        self._now = start
        self._waiting: list[tuple[Ms, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> Ms:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake whoever waited for it."""
        self._now += round(seconds * 1000)
        while self._waiting and self._waiting[0][0] <= self._now:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def pause(self, seconds: float) -> None:
        """What coroutines take for `asyncio.sleep`; at least one turn of the event loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._now + max(1, round(seconds * 1000)), next(self._order), waiter))
        await waiter

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end; when everything waits, time jumps to the next one due."""
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
    """An `Offload` for stores that never block; one turn of the event loop, so that others run in between as they would."""
    await asyncio.sleep(0)
    return call(*args)
