"""A provider that says what a test tells it to say."""

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
    """One answer: `deltas` at an interval, then `end`, or `error` in its place. `first` is the wait before the first.

    The rest is for answers in the background. `breaks`: the connection that listens first, second ... is lost (`lost`) after so many
    deltas; a 0, or an entry too few, lets it go on. `replays`: the deltas are others for whoever resumes. With neither `end` nor `error`
    the response runs for ever. OpenAI's own times: no stream of it can be resumed `streams_for` seconds after its beginning (0: never),
    and it is forgotten `keeps_for` seconds after its end.
    """

    deltas: Sequence[str] = ("Hello", ", ", "world")
    every: float = 0.02
    first: float = 0.3
    end: ResponseEnded | None = field(default_factory=lambda: ResponseEnded(Usage(input=10, output=3), MODEL))
    error: Exception | None = None
    refusal: bool = False
    refuses: bool = False  # the request itself, before a response is begun
    breaks: Sequence[int] = ()
    lost: type[AttemptFailed] = ProviderConnectionLost
    replays: Sequence[str] | None = None
    streams_for: float = 300.0
    keeps_for: float = 600.0


class BackgroundResponse:
    """A response that lives on whether or not anybody listens: what there is of it is worked out from the time of its loop.

    `read`: somebody has learned how it ended.
    """

    def __init__(self, number: int, script: Script) -> None:
        self.id = f"resp_{number}"
        self.number = number
        self.script = script
        self.read = False
        self.cancelled = False
        self.listened = 0
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._ends_at = self._began + len(script.deltas) * script.every

    @property
    def endless(self) -> bool:
        return self.script.end is None and self.script.error is None

    @property
    def running(self) -> bool:
        return not self.cancelled and (self.endless or self._loop.time() < self._ends_at)

    @property
    def streamable(self) -> bool:
        return self.kept and self._loop.time() < self._began + self.script.streams_for

    @property
    def kept(self) -> bool:
        return self.endless or self._loop.time() < self._ends_at + self.script.keeps_for

    async def events(self, after: int, deltas: Sequence[str]) -> AsyncGenerator[ProviderEvent]:
        """What comes after an event, at its time, until this listener's connection breaks."""
        breaks = self.script.breaks[self.listened] if self.listened < len(self.script.breaks) else 0
        self.listened += 1
        if after < 0:
            yield ResponseStarted(self.id, MODEL)
        begin = max(0, after - FIRST_DELTA + 1)
        for index, delta in enumerate(deltas[begin:], begin):
            await self._until(self._began + (index + 1) * self.script.every)
            yield TextDelta(delta, FIRST_DELTA + index, self.script.refusal)
            if index - begin + 1 == breaks:
                raise self.script.lost
        await self._until(self._ends_at)
        if self.endless:
            await asyncio.get_running_loop().create_future()
        yield self.outcome()

    def outcome(self) -> ResponseEnded:
        """How it ended, told to somebody."""
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
    """Answers with its scripts in order, the last one again and again.

    `requests`, `resumes` (with `after`), `fetches` and `cancels` are what it was asked. `trouble["fetch"]` holds what the next calls
    of that method raise instead.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts or [Script()])
        self.requests: list[ModelRequest] = []
        self.resumes: list[tuple[str, int]] = []
        self.fetches: list[str] = []
        self.cancels: list[str] = []
        self.trouble: dict[str, list[Exception]] = defaultdict(list)
        self.responses: dict[str, BackgroundResponse] = {}
        self.sent: list[str] = []  # the text of each response, as far as it was read by whoever asked for it
        self.open = 0
        self.keyed = True  # without a key every request is refused before it is sent

    @property
    def running(self) -> list[str]:
        """The background responses that are being written, whether or not anybody listens."""
        return [response.id for response in self.responses.values() if response.running]

    @property
    def abandoned(self) -> list[str]:
        """The background responses that nobody has cancelled and of which nobody has learned how they ended."""
        return [response.id for response in self.responses.values() if not response.read and not response.cancelled]

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        if not self.keyed:
            raise NotConfigured
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.sent.append("")
        async with self._listening(self._events(script, len(self.sent) - 1, request.background)) as events:
            yield events

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        assert request.background, "only a response in the background can be resumed"
        self.resumes.append((response_id, after))
        self._give_trouble("resume")
        response = self.responses.get(response_id)
        if response is None or not response.streamable:
            raise ReattachRefused(provider_status=400 if response and response.kept else 404)
        replayed = response.script.deltas if response.script.replays is None else response.script.replays
        async with self._listening(response.events(after, replayed)) as events:
            yield events

    async def is_configured(self) -> bool:
        return self.keyed

    async def fetch(self, response_id: str) -> FetchedResponse:
        self.fetches.append(response_id)
        self._give_trouble("fetch")
        if response_id not in self.responses:
            raise ResponseLost(provider_status=404)
        return self.responses[response_id].fetched()

    async def cancel(self, response_id: str) -> None:
        self.cancels.append(response_id)
        self._give_trouble("cancel")
        response = self.responses.get(response_id)
        if response is not None:
            response.cancelled = response.cancelled or response.running

    def _give_trouble(self, method: str) -> None:
        if self.trouble[method]:
            raise self.trouble[method].pop(0)

    @asynccontextmanager
    async def _listening(self, events: AsyncGenerator[ProviderEvent]) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        self.open += 1
        try:
            yield events
        finally:
            await events.aclose()
            self.open -= 1

    async def _events(self, script: Script, index: int, background: bool) -> AsyncGenerator[ProviderEvent]:
        await asyncio.sleep(script.first)
        if script.refuses and script.error is not None:
            raise script.error
        async with aclosing(self._in_background(script, index) if background else self._plain(script, index)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    self.sent[index] += event.text
                yield event

    def _in_background(self, script: Script, index: int) -> AsyncGenerator[ProviderEvent]:
        response = BackgroundResponse(index, script)
        self.responses[response.id] = response
        return response.events(-1, script.deltas)

    async def _plain(self, script: Script, index: int) -> AsyncGenerator[ProviderEvent]:
        yield ResponseStarted(f"resp_{index}", MODEL)
        for delta in script.deltas:
            await asyncio.sleep(script.every)
            yield TextDelta(delta, refusal=script.refusal)
        if script.error is not None:
            raise script.error
        if script.end is not None:
            yield script.end
