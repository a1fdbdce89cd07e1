"""A subscriber. It assembles the text, and subscribes again at a hole or after a silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cli.reducer import Resubscribe, TextAssembler, Trimmed
from tests.faults.history import History

SILENCE_SECONDS = 30.0


class Client:
    """One connection's view of one job. `subscribe(attempt, offset)` is a request that may fail.

    `expected_version` is the version of the record that its user knows. An end of an older version
    is not the end.
    """

    def __init__(self, job_id: str, history: History, subscribe: Callable[[int, int], Awaitable[Any]]) -> None:
        self.job_id = job_id
        self.assembly = TextAssembler()
        self.expected_version = 0
        self.silence = SILENCE_SECONDS
        self.trimmed: list[tuple[str | None, int]] = []
        self._history, self._subscribe = history, subscribe
        self._received = asyncio.Event()
        self._must_subscribe = True

    @property
    def is_up_to_date(self) -> bool:
        return self.assembly.over and self.assembly.version >= self.expected_version

    def receive(self, frame: dict[str, Any]) -> None:
        attempt, version = self.assembly.attempt, self.assembly.version
        outcomes = self.assembly.receive(frame)
        if self.assembly.attempt < attempt or self.assembly.version < version:
            self._history.problems.append(f"a subscriber of {self.job_id[-3:]} went back from a{attempt} after {frame}")
        self._must_subscribe = self._must_subscribe or any(isinstance(one, Resubscribe) for one in outcomes)
        self.trimmed += [(self.assembly.status, one.length) for one in outcomes if isinstance(one, Trimmed)]
        self._history.check_shown_text(self.job_id, self.assembly.attempt, self.assembly.text)
        self._received.set()

    async def run(self) -> None:
        """Wait for frames until the task is cancelled. Silence is the only timer."""
        while True:
            self._received.clear()
            if self._must_subscribe and not self.is_up_to_date:
                self._must_subscribe = False
                await self._subscribe(self.assembly.attempt, self.assembly.position)
            try:
                async with asyncio.timeout(self.silence):
                    await self._received.wait()
            except TimeoutError:
                self._must_subscribe = True
