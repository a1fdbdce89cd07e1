"""A provider that says what a test tells it to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chalicelib.domain.job import Usage
from chalicelib.ports import Delta, Ended, ModelRequest, ProviderEvent, Started


@dataclass
class Script:
    """One answer: `deltas` at an interval, then `end`, or `error` in its place. `first` is the wait before the first."""

    deltas: Sequence[str] = ("Hello", ", ", "world")
    every: float = 0.02
    first: float = 0.3
    end: Ended | None = field(default_factory=lambda: Ended(Usage(input=10, output=3), "gpt-4o-mini"))
    error: Exception | None = None
    refusal: bool = False
    refuses: bool = False  # the request itself, before a response is begun


class ScriptedProvider:
    """Answers with its scripts in order, the last one again and again. `requests` and `closed` are what it saw."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts or [Script()])
        self.requests: list[ModelRequest] = []
        self.sent: list[str] = []  # the text of each response, as far as it was read
        self.open = 0

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.sent.append("")
        self.open += 1
        events = self._events(script, len(self.sent) - 1)
        try:
            yield events
        finally:
            await events.aclose()
            self.open -= 1

    async def _events(self, script: Script, index: int) -> AsyncGenerator[ProviderEvent]:
        await asyncio.sleep(script.first)
        if script.refuses and script.error is not None:
            raise script.error
        yield Started(f"resp_{index}", "gpt-4o-mini")
        for delta in script.deltas:
            await asyncio.sleep(script.every)
            self.sent[index] += delta
            yield Delta(delta, refusal=script.refusal)
        if script.error is not None:
            raise script.error
        if script.end is not None:
            yield script.end
