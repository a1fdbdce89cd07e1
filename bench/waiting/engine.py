"""A simulation of discrete events: callbacks in the order of their virtual times, without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random


class Engine:
    """Runs callbacks in virtual time, in seconds. The same seed gives the same run."""

    def __init__(self, seed: str) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after some time."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._number), callback))

    def run(self, until: float) -> None:
        """Run all callbacks that are due before a time."""
        while self._queue and self._queue[0][0] < until:
            self.now, _, callback = heapq.heappop(self._queue)
            callback()
        self.now = until
