"""A provider whose every event, and every other answer, is a step; its background responses live on whether or not anybody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from chalicelib.domain.failures import ProviderConnectionLost, ProviderUnavailable, ReattachRefused, ResponseLost
from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import FetchedResponse, ModelRequest, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from tests.faults.history import Answered, History
from tests.faults.steps import ACTOR, Steps

MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Says:
    """How the provider answers one request: so many pieces, then its final event or `error`. Every answer has a text of its own.

    In the background: no stream can be taken up again `streams_for` seconds after its beginning, and it is forgotten `keeps_for` seconds
    after its end.
    """

    pieces: int = 4
    every: float = 0.4
    error: Exception | None = None
    streams_for: float = 300.0
    keeps_for: float = 600.0

    def usage(self) -> Usage:
        return Usage(input=10, output=self.pieces + 7)


@dataclass(eq=False)
class Background:
    """A response in the background, written by its own task."""

    answer: Answered
    says: Says
    began: float
    ended_at: float | None = None
    cancelled: bool = False
    read: bool = False
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"resp_{self.answer.number}"

    async def live(self) -> None:
        """Write piece after piece, until the end or a cancel."""
        for piece in range(self.says.pieces):
            await asyncio.sleep(self.says.every)
            if self.cancelled:
                break
            self.pieces.append(f"{self.answer.number}.{piece} ")
            self.answer.sent += self.pieces[-1]
            self._ring()
        else:
            self.answer.charged = self.says.usage() if self.says.error is None else None
        self.ended_at = asyncio.get_running_loop().time()
        self._ring()

    async def piece(self, index: int) -> str | None:
        """A piece as soon as there is one, None after the last."""
        while len(self.pieces) <= index and self.ended_at is None:
            await self.grown.wait()
        return self.pieces[index] if index < len(self.pieces) else None

    def outcome(self) -> ResponseEnded:
        if self.cancelled:
            raise ResponseLost
        self.read = True
        if self.says.error is not None:
            raise self.says.error
        return ResponseEnded(self.says.usage(), MODEL)

    def fetched(self) -> FetchedResponse:
        now = asyncio.get_running_loop().time()
        if self.cancelled or (self.ended_at is not None and now > self.ended_at + self.says.keeps_for):
            self.read = True
            raise ResponseLost
        if self.ended_at is None:
            return FetchedResponse("", None)
        try:
            return FetchedResponse(self.answer.sent, self.outcome())
        except Exception as failure:  # noqa: BLE001 - told in the answer, as OpenAI does
            return FetchedResponse(self.answer.sent, None, failure=failure)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.read = True  # whoever stops it cares for it
        self.cancelled = self.cancelled or self.ended_at is None

    def _ring(self) -> None:
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()


@dataclass(eq=False)
class StepProvider:
    """Answers a job's requests as its script says, the last entry again and again. Jobs are told apart by their prompts."""

    steps: Steps
    history: History
    prompt_of: Callable[[str], str]
    scripts: dict[str, list[Says]] = field(default_factory=dict)
    background: dict[str, Background] = field(default_factory=dict)
    listening: int = 0
    _alive: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def open(self) -> int:
        """Streams that are read, and responses that are written."""
        return self.listening + sum(one.ended_at is None for one in self.background.values())

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        script = self.scripts.get(request.prompt, [Says()])
        actor = ACTOR.get()
        assert actor is not None
        job_id = next(claimed for claimed in actor.claims if self.prompt_of(claimed) == request.prompt)
        made = sum(answer.job_id == job_id for answer in self.history.answers)
        says = script[min(made, len(script) - 1)]
        begin = partial(self._begin, says, request.background, job_id, actor.claims[job_id])
        answer = await self.steps.take("provider.create", [request.prompt], begin, ProviderUnavailable)
        response = self.background.get(f"resp_{answer.number}")
        async with self._listening(self._plain(says, answer) if response is None else self._from(response, -1)) as events:
            yield events
        answer.closed = True

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        response = self.background[response_id]
        now = asyncio.get_running_loop().time

        def attach() -> None:
            if response.cancelled or now() > response.began + response.says.streams_for:
                raise ReattachRefused

        await self.steps.take("provider.resume", [response_id, after], attach, ProviderConnectionLost)
        async with self._listening(self._from(response, after)) as events:
            yield events

    async def is_configured(self) -> bool:
        return True

    async def fetch(self, response_id: str) -> FetchedResponse:
        answer: FetchedResponse = await self.steps.take(
            "provider.fetch", [response_id], self.background[response_id].fetched, ProviderConnectionLost
        )
        return answer

    async def cancel(self, response_id: str) -> None:
        await self.steps.take("provider.cancel", [response_id], self.background[response_id].stop, ProviderConnectionLost)

    def _begin(self, says: Says, background: bool, job_id: str, attempt: int) -> Answered:
        answer = self.history.asked(job_id, attempt)
        if background:
            loop = asyncio.get_running_loop()
            response = Background(answer, says, loop.time())
            self.background[response.id] = response
            # It belongs to nobody: no process that dies or freezes takes it along.
            task = asyncio.Task(response.live(), loop=loop)
            self._alive.add(task)
            task.add_done_callback(self._alive.discard)
        return answer

    @asynccontextmanager
    async def _listening(self, events: AsyncGenerator[ProviderEvent]) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        self.listening += 1
        try:
            yield events
        finally:
            self.listening -= 1
            await events.aclose()

    async def _plain(self, says: Says, answer: Answered) -> AsyncGenerator[ProviderEvent]:
        yield ResponseStarted(f"resp_{answer.number}", MODEL)
        for piece in range(says.pieces):
            await asyncio.sleep(says.every)
            text = f"{answer.number}.{piece} "
            yield await self.steps.take("provider.delta", [text], partial(self._send, answer, text), ProviderConnectionLost)
        if says.error is not None:
            raise says.error
        yield await self.steps.take("provider.ended", [], partial(self._charge, answer, says.usage()), ProviderConnectionLost)

    async def _from(self, response: Background, after: int) -> AsyncGenerator[ProviderEvent]:
        """The events of a background response after one of them; each is numbered as its piece is."""
        if after < 0:
            yield ResponseStarted(response.id, MODEL)
        index = after + 1
        while (text := await response.piece(index)) is not None:
            delta = TextDelta(text, index)
            yield await self.steps.take("provider.delta", [text], partial(_same, delta), ProviderConnectionLost)
            index += 1
        yield await self.steps.take("provider.ended", [], response.outcome, ProviderConnectionLost)

    def _send(self, answer: Answered, text: str) -> TextDelta:
        answer.sent += text
        return TextDelta(text)

    def _charge(self, answer: Answered, usage: Usage) -> ResponseEnded:
        answer.charged = usage
        return ResponseEnded(usage, MODEL)


def _same(delta: TextDelta) -> TextDelta:
    return delta
