"""A watcher's client that keeps the rules: it puts the text together, asks at holes, and subscribes again when it hears nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cli.reducer import Resubscribe, TextAssembler, Trimmed
from tests.faults.history import History

SILENCE = 30.0  # seconds


class Client:
    """One connection's view of one job. `subscribe(attempt, offset)` is a request that may fail; silence is its only timer.

    `wants` is the version of the record that its user knows of: until it has heard of that, it is not at rest.
    """

    def __init__(self, job_id: str, history: History, subscribe: Callable[[int, int], Awaitable[Any]]) -> None:
        self.job_id = job_id
        self.assembly = TextAssembler()
        self.wants = 0
        self.silence = SILENCE
        self.trimmed: list[tuple[str | None, int]] = []
        self._history, self._subscribe = history, subscribe
        self._heard = asyncio.Event()
        self._ask = True

    @property
    def at_rest(self) -> bool:
        return self.assembly.over and self.assembly.version >= self.wants

    def receive(self, frame: dict[str, Any]) -> None:
        attempt, version = self.assembly.attempt, self.assembly.version
        outcomes = self.assembly.receive(frame)
        if self.assembly.attempt < attempt or self.assembly.version < version:
            self._history.problems.append(f"a watcher of {self.job_id[-3:]} was thrown back from a{attempt} by {frame}")
        self._ask = self._ask or any(isinstance(one, Resubscribe) for one in outcomes)
        self.trimmed += [(self.assembly.status, one.length) for one in outcomes if isinstance(one, Trimmed)]
        self._history.shown(self.job_id, self.assembly.attempt, self.assembly.text)
        self._heard.set()

    async def run(self) -> None:
        """Listen until the task is cancelled."""
        while True:
            self._heard.clear()
            if self._ask and not self.at_rest:
                self._ask = False
                await self._subscribe(self.assembly.attempt, self.assembly.position)
            try:
                async with asyncio.timeout(self.silence):
                    await self._heard.wait()
            except TimeoutError:
                self._ask = True
