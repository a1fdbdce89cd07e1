"""A provider that answers from a script."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from chalicelib.domain.failures import AttemptFailed, NotConfigured, ProviderConnectionLost, ReattachRefused, ResponseLost
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import FetchedResponse, ModelRequest, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta

MODEL = "gpt-4o-mini"
FIRST_DELTA = 4  # the events before it: created, in progress, and the beginnings of the item and of its part


@dataclass
class Script:
    """One answer: `deltas` at an interval, then `end`, or `error` in its place.

    With neither, a background response runs for ever.
    """

    deltas: Sequence[str] = ("Hello", ", ", "world")
    every: float = 0.02  # seconds before each delta
    first: float = 0.3  # seconds before the response starts
    end: ResponseEnded | None = field(default_factory=lambda: ResponseEnded(Usage(input=10, output=3), MODEL))
    error: Exception | None = None
    refusal: bool = False  # the text is a refusal
    refuses: bool = False  # the request itself fails with `error`, so no response starts
    # Background responses only:
    breaks: Sequence[int] = ()  # by connection: it is lost after so many deltas; 0 or no entry: it is not lost
    lost: type[AttemptFailed] = ProviderConnectionLost  # what a lost connection raises
    replays: Sequence[str] | None = None  # the deltas of a resumed stream, where they differ
    streams_for: float = 300.0  # seconds after its start in which the stream can be resumed; 0: never
    keeps_for: float = 600.0  # seconds after its end until the response is deleted
    another: Sequence[str] = ()  # the deltas of a second message, after the others


class BackgroundResponse:
    """A response that runs without a listener. Its state is computed from the loop's time.

    `read` is true once its end has been delivered.
    """

    def __init__(self, number: int, script: Script) -> None:
        self.id = f"resp_{number}"
        self.number = number
        self.script = script
        self.read = False
        self.cancelled = False
        self.deleted = False
        self.connections = 0
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._ends_at = self._started_at + len(script.deltas) * script.every

    @property
    def endless(self) -> bool:
        return self.script.end is None and self.script.error is None

    @property
    def running(self) -> bool:
        return not self.cancelled and (self.endless or self._loop.time() < self._ends_at)

    @property
    def streamable(self) -> bool:
        return self.kept and self._loop.time() < self._started_at + self.script.streams_for

    @property
    def kept(self) -> bool:
        if self.deleted:
            return False
        return self.endless or self._loop.time() < self._ends_at + self.script.keeps_for

    async def events(self, after: int, deltas: Sequence[str]) -> AsyncGenerator[ProviderEvent]:
        """Yield the events above number `after`, each at its time, until this connection breaks."""
        breaks = self.script.breaks[self.connections] if self.connections < len(self.script.breaks) else 0
        self.connections += 1
        if after < 0:
            yield ResponseStarted(self.id, MODEL)
        begin = max(0, after - FIRST_DELTA + 1)
        for index, delta in enumerate(deltas[begin:], begin):
            await self._until(self._started_at + (index + 1) * self.script.every)
            yield TextDelta(delta, FIRST_DELTA + index, self.script.refusal)
            if index - begin + 1 == breaks:
                raise self.script.lost
        await self._until(self._ends_at)
        if self.endless:
            await asyncio.get_running_loop().create_future()
        yield self.outcome()

    def outcome(self) -> ResponseEnded:
        """Deliver the end: return it, or raise the error of the script."""
        self.read = True
        if self.script.error is not None:
            raise self.script.error
        assert self.script.end is not None, "a response without an end has no outcome"
        return self.script.end

    def fetched(self) -> FetchedResponse:
        if self.cancelled or not self.kept:
            raise ResponseLost(provider_status=None if self.cancelled else 404)
        if self.running:
            return FetchedResponse("", None)
        text = repair_surrogates("".join(self.script.deltas))
        try:
            return FetchedResponse(text, self.outcome(), self.script.refusal)
        except AttemptFailed as failure:
            return FetchedResponse(text, None, self.script.refusal, failure)

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._loop.time()))
        if self.cancelled:
            raise ResponseLost


class ScriptedProvider:
    """Answers with its scripts in order, then repeats the last one.

    `requests`, `resumes` (with `after`), `fetches`, `cancels` and `deletes` record the calls.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts or [Script()])
        self.requests: list[ModelRequest] = []
        self.resumes: list[tuple[str, int]] = []
        self.fetches: list[str] = []
        self.cancels: list[str] = []
        self.deletes: list[str] = []
        self.errors: dict[str, list[Exception]] = defaultdict(list)  # by method (resume, fetch, cancel, delete): what its next calls raise
        self.responses: dict[str, BackgroundResponse] = {}
        self.sent: list[str] = []  # the text of each response, as far as its request has read it
        self.open = 0
        self.has_key = True  # without a key every request fails before it is sent

    @property
    def running(self) -> list[str]:
        """The ids of the background responses that have not ended."""
        return [response.id for response in self.responses.values() if response.running]

    @property
    def abandoned(self) -> list[str]:
        """The ids of the background responses that were neither cancelled nor read to the end."""
        return [response.id for response in self.responses.values() if not response.read and not response.cancelled]

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        if not self.has_key:
            raise NotConfigured
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.sent.append("")
        async with self._listening(self._events(script, len(self.sent) - 1, request)) as events:
            yield events

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        assert request.background, "only a response in the background can be resumed"
        self.resumes.append((response_id, after))
        self._raise_next("resume")
        response = self.responses.get(response_id)
        if response is None or not response.streamable:
            raise ReattachRefused(provider_status=400 if response and response.kept else 404)
        replayed = response.script.deltas if response.script.replays is None else response.script.replays
        async with self._listening(response.events(after, replayed)) as events:
            yield events

    async def is_configured(self) -> bool:
        return self.has_key

    async def fetch(self, response_id: str) -> FetchedResponse:
        self.fetches.append(response_id)
        self._raise_next("fetch")
        if response_id not in self.responses:
            raise ResponseLost(provider_status=404)
        return self.responses[response_id].fetched()

    async def cancel(self, response_id: str) -> None:
        self.cancels.append(response_id)
        self._raise_next("cancel")
        response = self.responses.get(response_id)
        if response is not None:
            response.cancelled = response.cancelled or response.running

    async def delete(self, response_id: str) -> None:
        self._raise_next("delete")
        self.deletes.append(response_id)
        response = self.responses.get(response_id)
        if response is not None:
            assert response.read or not response.running or response_id in self.cancels, (
                "a response that a worker may still read was deleted"
            )
            response.deleted = True

    def _raise_next(self, method: str) -> None:
        if self.errors[method]:
            raise self.errors[method].pop(0)

    @asynccontextmanager
    async def _listening(self, events: AsyncGenerator[ProviderEvent]) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        self.open += 1
        try:
            yield events
        finally:
            await events.aclose()
            self.open -= 1

    async def _events(self, script: Script, index: int, request: ModelRequest) -> AsyncGenerator[ProviderEvent]:
        await asyncio.sleep(script.first)
        if script.refuses and script.error is not None:
            raise script.error
        plain = self._plain if request.stream else self._at_once
        async with aclosing(self._in_background(script, index, request.stream) if request.background else plain(script, index)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    self.sent[index] += event.text
                yield event

    async def _in_background(self, script: Script, index: int, streamed: bool) -> AsyncGenerator[ProviderEvent]:
        response = BackgroundResponse(index, script)
        self.responses[response.id] = response
        if not streamed:
            yield ResponseStarted(response.id, MODEL)
            raise ReattachRefused
        async with aclosing(response.events(-1, script.deltas)) as events:
            async for event in events:
                yield event

    async def _at_once(self, script: Script, index: int) -> AsyncGenerator[ProviderEvent]:
        await asyncio.sleep(script.every * len(script.deltas))
        if script.error is not None:
            raise script.error
        yield ResponseStarted(f"resp_{index}", MODEL)
        yield TextDelta("".join(script.deltas), refusal=script.refusal, tokens=len(script.deltas))
        if script.end is not None:
            yield script.end

    async def _plain(self, script: Script, index: int) -> AsyncGenerator[ProviderEvent]:
        yield ResponseStarted(f"resp_{index}", MODEL)
        for delta in script.deltas:
            await asyncio.sleep(script.every)
            yield TextDelta(delta, refusal=script.refusal)
        for number, delta in enumerate(script.another):
            await asyncio.sleep(script.every)
            yield TextDelta(f"\n\n{delta}" if number == 0 else delta, message=number == 0)
        if script.error is not None:
            raise script.error
        if script.end is not None:
            yield script.end
