"""A provider whose events and responses are steps.

Its background responses run without a listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from chalicelib.domain.failures import ProviderConnectionLost, ProviderUnavailable, ReattachRefused, ResponseLost
from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import FetchedResponse, ModelRequest, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from tests.faults.history import History, ResponseLog
from tests.faults.steps import ACTOR, Steps

MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class ScriptedAnswer:
    """How the provider answers one request: text pieces, then the final event or `error`.

    No two responses have the same text.
    """

    pieces: int = 4
    every: float = 0.4  # seconds before each piece
    error: Exception | None = None
    # Background responses only:
    streams_for: float = 300.0  # seconds after its start in which the stream can be resumed
    keeps_for: float = 600.0  # seconds after its end until the response is deleted

    def usage(self) -> Usage:
        return Usage(input=10, output=self.pieces + 7)


@dataclass(eq=False)
class BackgroundResponse:
    """A background response, produced by its own task."""

    log: ResponseLog
    script: ScriptedAnswer
    started_at: float
    ended_at: float | None = None
    cancelled: bool = False
    deleted: bool = False
    read: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"resp_{self.log.number}"

    async def run(self) -> None:
        """Produce one piece after the other, until the end or a cancel."""
        for piece in range(self.script.pieces):
            await asyncio.sleep(self.script.every)
            if self.cancelled:
                break
            self.pieces.append(f"{self.log.number}.{piece} ")
            self.log.sent += self.pieces[-1]
            self._notify()
        else:
            self.log.charged = self.script.usage() if self.script.error is None else None
        self.ended_at = asyncio.get_running_loop().time()
        self._notify()

    async def piece(self, index: int) -> str | None:
        """Wait for a piece and return it. Return None if the response ends before it."""
        while len(self.pieces) <= index and self.ended_at is None:
            await self.changed.wait()
        return self.pieces[index] if index < len(self.pieces) else None

    def outcome(self) -> ResponseEnded:
        if self.cancelled:
            raise ResponseLost
        self.read = True
        if self.script.error is not None:
            raise self.script.error
        return ResponseEnded(self.script.usage(), MODEL)

    def fetched(self) -> FetchedResponse:
        now = asyncio.get_running_loop().time()
        if self.cancelled or self.deleted or (self.ended_at is not None and now > self.ended_at + self.script.keeps_for):
            self.read = True
            raise ResponseLost
        if self.ended_at is None:
            return FetchedResponse("", None)
        try:
            return FetchedResponse(self.log.sent, self.outcome())
        except Exception as failure:  # noqa: BLE001 - returned in the response, as by OpenAI
            return FetchedResponse(self.log.sent, None, failure=failure)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.read = True  # a cancelled response need not be read
        self.cancelled = self.cancelled or self.ended_at is None

    def delete(self) -> None:
        self.deleted = True

    def _notify(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


@dataclass(eq=False)
class StepProvider:
    """Answers a job's requests in the order of its scripts, then repeats the last script.

    A request belongs to the job that has its prompt.
    """

    steps: Steps
    history: History
    prompt_of: Callable[[str], str]
    scripts: dict[str, list[ScriptedAnswer]] = field(default_factory=dict)
    background: dict[str, BackgroundResponse] = field(default_factory=dict)
    open_streams: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def open(self) -> int:
        """The number of open streams and of background responses that have not ended."""
        return self.open_streams + sum(one.ended_at is None for one in self.background.values())

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        scripts = self.scripts.get(request.prompt, [ScriptedAnswer()])
        actor = ACTOR.get()
        assert actor is not None
        job_id = next(claimed for claimed in actor.claims if self.prompt_of(claimed) == request.prompt)
        earlier = sum(log.job_id == job_id for log in self.history.responses)
        script = scripts[min(earlier, len(scripts) - 1)]
        start = partial(self._start, script, request.background, job_id, actor.claims[job_id])
        log = await self.steps.perform("provider.create", [request.prompt], start, ProviderUnavailable)
        response = self.background.get(f"resp_{log.number}")
        async with self._opened(self._plain_events(script, log) if response is None else self._background_events(response, -1)) as events:
            yield events

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        response = self.background[response_id]
        now = asyncio.get_running_loop().time

        def attach() -> None:
            if response.cancelled or response.deleted or now() > response.started_at + response.script.streams_for:
                raise ReattachRefused

        await self.steps.perform("provider.resume", [response_id, after], attach, ProviderConnectionLost)
        async with self._opened(self._background_events(response, after)) as events:
            yield events

    async def is_configured(self) -> bool:
        return True

    async def fetch(self, response_id: str) -> FetchedResponse:
        fetched: FetchedResponse = await self.steps.perform(
            "provider.fetch", [response_id], self.background[response_id].fetched, ProviderConnectionLost
        )
        return fetched

    async def cancel(self, response_id: str) -> None:
        await self.steps.perform("provider.cancel", [response_id], self.background[response_id].stop, ProviderConnectionLost)

    async def delete(self, response_id: str) -> None:
        await self.steps.perform("provider.delete", [response_id], self.background[response_id].delete, ProviderConnectionLost)

    def _start(self, script: ScriptedAnswer, background: bool, job_id: str, attempt: int) -> ResponseLog:
        log = self.history.record_request(job_id, attempt)
        if background:
            loop = asyncio.get_running_loop()
            response = BackgroundResponse(log, script, loop.time())
            self.background[response.id] = response
            # Not a task of the actor, because it must not end or freeze with the actor's process.
            task = asyncio.Task(response.run(), loop=loop)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return log

    @asynccontextmanager
    async def _opened(self, events: AsyncGenerator[ProviderEvent]) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        self.open_streams += 1
        try:
            yield events
        finally:
            self.open_streams -= 1
            await events.aclose()

    async def _plain_events(self, script: ScriptedAnswer, log: ResponseLog) -> AsyncGenerator[ProviderEvent]:
        yield ResponseStarted(f"resp_{log.number}", MODEL)
        for piece in range(script.pieces):
            await asyncio.sleep(script.every)
            text = f"{log.number}.{piece} "
            yield await self.steps.perform("provider.delta", [text], partial(self._send, log, text), ProviderConnectionLost)
        if script.error is not None:
            raise script.error
        yield await self.steps.perform("provider.ended", [], partial(self._charge, log, script.usage()), ProviderConnectionLost)

    async def _background_events(self, response: BackgroundResponse, after: int) -> AsyncGenerator[ProviderEvent]:
        """Yield the events after event number `after`. An event has the number of its piece."""
        if after < 0:
            yield ResponseStarted(response.id, MODEL)
        index = after + 1
        while (text := await response.piece(index)) is not None:
            delta = TextDelta(text, index)
            yield await self.steps.perform("provider.delta", [text], partial(_same, delta), ProviderConnectionLost)
            index += 1
        yield await self.steps.perform("provider.ended", [], response.outcome, ProviderConnectionLost)

    def _send(self, log: ResponseLog, text: str) -> TextDelta:
        log.sent += text
        return TextDelta(text)

    def _charge(self, log: ResponseLog, usage: Usage) -> ResponseEnded:
        log.charged = usage
        return ResponseEnded(usage, MODEL)


def _same(delta: TextDelta) -> TextDelta:
    return delta
