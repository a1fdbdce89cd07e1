"""One attempt while it runs: its text, its progress, and the signal by which its readers learn that there is more.

The worker that streams appends; the log reader and the socket readers take what they need when they are ready. Nothing here waits for a
reader, so none of them can slow the stream or the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from chalicelib.domain.body import Body
from chalicelib.domain.estimate import REQUEST_TOKENS, tokens
from chalicelib.domain.frames import Frame
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.job_type import JobType
from chalicelib.domain.progress import Tracker
from chalicelib.domain.text import Joiner
from chalicelib.domain.transcript import Transcript
from chalicelib.ports import Price
from chalicelib.usecases.model_request import instructions


class Signal:
    """Wakes everybody who waits. Nobody waiting costs nothing, which is what happens at nearly every token."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


class Attempt:
    """`job` is the head as claimed, then as ended. `complete`: no more text comes. `over`: the record says how it ended."""

    def __init__(self, job: Job, body: Body, kind: JobType, owner: str, now: Ms) -> None:
        self.job = job
        self.body = body
        self.kind = kind
        self.owner = owner
        self.generation = job.generation
        self.transcript = Transcript(job.attempt)
        self.tracker = Tracker(kind, min(kind.typical_tokens, body.config.max_tokens))
        self.events: list[dict[str, Any]] = []
        self.refused = False
        self.begun = False  # the provider has made a response: from here on it charges
        self.started_at = now
        self.first_token_at: Ms | None = None
        self.complete = False
        self.over = False
        self.final: Frame | None = None
        self.watched_until: Ms = 0
        self.price: Price | None = None  # found off the event loop: the first look at the price list takes a quarter of a second
        self.cpu_at_start = time.process_time()
        self.cancelled = asyncio.Event()
        self._joiner = Joiner()
        self._more = Signal()
        self._note(self.tracker.begin(now))

    @cached_property
    def input_tokens(self) -> int:
        """About what the request has, until the provider says: worth some milliseconds, so it is counted once."""
        return tokens(self.body.prompt) + tokens(instructions(self.body.config, self.kind)) + REQUEST_TOKENS

    @property
    def received(self) -> int:
        """Tokens so far, as deltas count them."""
        return self.tracker.tokens_received

    @property
    def number(self) -> int:
        return self.transcript.attempt

    def append(self, delta: str, now: Ms) -> None:
        """Take some more text from the provider."""
        if self.first_token_at is None:
            self.first_token_at = now
            self.enter(self.kind.streaming_stage, now)
        self._add(self._joiner.feed(delta), now)

    def enter(self, stage: str, now: Ms) -> None:
        """Begin a stage, if the type has it."""
        self._note(self.tracker.enter(stage, now))

    def finish_text(self, now: Ms) -> None:
        """No more text comes: readers may send all there is, and end."""
        self._add(self._joiner.flush(), now)
        self.complete = True
        self._more.ring()

    def conclude(self, job: Job, final: Frame | None) -> None:
        """The record says how the attempt ended; `final` is what watchers are told."""
        self.job, self.final, self.over = job, final, True
        self._more.ring()

    def note_progress(self) -> None:
        """A reader has caught up: whoever waits for the readers looks again. While text still comes nobody does."""
        if self.complete:
            self._more.ring()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at again whenever something was added."""
        while not condition():
            await self._more.wait()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the text is complete."""
        try:
            async with asyncio.timeout(seconds):
                await self.until(lambda: self.complete)
        except TimeoutError:
            return

    def _add(self, text: str, now: Ms) -> None:
        if text:
            self.transcript.append(text)
            self._note(self.tracker.feed(text, now))
            self._more.ring()

    def _note(self, events: list[dict[str, Any]]) -> None:
        if events:
            self.events.extend(events)
            self._more.ring()
