"""One attempt while it runs: its text, its progress, and the signal by which its readers learn that there is more.

The worker that streams appends; the log reader and the socket readers take what they need when they are ready. Nothing here waits for a
reader, so none of them can slow the stream or the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from chalicelib.domain.execution.progress import ProgressTracker
from chalicelib.domain.execution.response_cache import CachedResponse, CacheLookup
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk, Transcript, join_chunks
from chalicelib.domain.failures import ResponseLost
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.limits.admission import HoldReason
from chalicelib.domain.metrics.estimate import REQUEST_TOKENS, estimate_tokens
from chalicelib.domain.metrics.throughput import UNMEASURED
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.text import SurrogateJoiner, repair_surrogates, split_text
from chalicelib.domain.units import Ms
from chalicelib.ports import Price
from chalicelib.services.prompts.model_request import instructions

CACHED_DELTAS = 100  # in which a cached answer is read, so that its milestones come where they were
ResumeCursor = tuple[int | None, int | None]  # the number of an event, and the offset at which its text ends; None before the first


class Signal:
    """Wakes everybody who waits. Nobody waiting costs nothing, which is what happens at nearly every token."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify_all(self) -> None:
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
    """`job` is the head as claimed, then as ended. `complete`: no more text comes here. `over`: the record says how it ended.

    `kept` is the log of a durable attempt that a former worker began: this one goes on where it ends, at `begins_at`. `response_id` is
    its response, `sequence` the last event of it that was read.
    """

    def __init__(self, job: Job, body: JobSpec, kind: JobType, owner: str, now: Ms, kept: Sequence[Chunk] = ()) -> None:
        self.job = job
        self.body = body
        self.kind = kind
        self.owner = owner
        self.generation = job.generation
        self.transcript = Transcript(job.attempt)
        self.tracker = ProgressTracker(kind, min(kind.typical_tokens, body.config.max_tokens))
        self.tracker.calibrate(UNMEASURED, body.config.max_tokens)
        self.events: list[dict[str, Any]] = []
        self.refused = False
        self.response_id = job.response_id
        self.begun = job.is_resumable  # the provider has made a response: from here on it charges
        self.started_at = job.response_at or now
        self.first_token_at: Ms | None = None
        self.begins_at = 0
        self.sequence: int | None = None
        self.complete = False
        self.over = False
        self.final: Frame | None = None
        self.watched_until: Ms = 0
        self.probe: str | None = None  # the mark under which it tries an open circuit out
        self.turn: str | None = None  # the mark of its slot among those of its type
        self.held_until: Ms | None = None  # it could not be made, and has cost nothing: its job waits so long
        self.held_why = HoldReason.CIRCUIT_OPEN
        self.local = False  # the type's own fallback answers, and no provider
        self.looked_up: CacheLookup | None = None  # what the cache said, if it was asked
        self.looked_up_by = ""  # the key of the request there
        self.price: Price | None = None  # found off the event loop: the first look at the price list takes a quarter of a second
        self.calls = 0  # requests to the provider for this attempt, by whichever worker
        self.taken_up_at, self.cpu_at_start = now, time.process_time()
        self.cancelled = asyncio.Event()
        if job.cancel_requested:
            self.cancelled.set()
        self._joiner = SurrogateJoiner()
        self._more = Signal()
        self._repeated = ""  # text that is kept already, and comes again
        self._marks: deque[ResumeCursor] = deque()
        self._mark: ResumeCursor = (None, None)
        if kept:
            self._take_up(kept)
        self._note(self.tracker.begin(now))

    @cached_property
    def input_tokens(self) -> int:
        """About what the request has, until the provider says: worth some milliseconds, so it is counted once."""
        return estimate_tokens(self.body.prompt) + estimate_tokens(instructions(self.body.config, self.kind)) + REQUEST_TOKENS

    @property
    def received(self) -> int:
        """Tokens so far, as deltas count them."""
        return self.tracker.tokens_received

    @property
    def number(self) -> int:
        return self.transcript.attempt

    def append(self, delta: str, now: Ms, sequence: int | None = None) -> None:
        """Take some more text from the provider, of its event number `sequence`.

        Raises:
            ResponseLost: a former worker was sent another text.
        """
        if self.first_token_at is None:
            self.first_token_at = now
            self.start_stage(self.kind.streaming_stage, now)
        self._add(self._news(self._joiner.feed(delta)), now)
        if self.body.config.durable:
            self.sequence = sequence
            if not self._joiner.holds:
                self._marks.append((sequence, len(self.transcript) - len(self._repeated)))

    def put_output(self, text: str) -> None:
        """Take all the text of work that is no answer of a provider: no tokens, and no first one."""
        self.transcript.append(text)
        self._more.notify_all()

    def report_progress(self, done: float, total: float, now: Ms) -> None:
        """So much of the work is done."""
        self._note(self.tracker.report_progress(done, total, now))

    def record_milestone(self, name: str, description: str, now: Ms) -> None:
        """A milestone."""
        self._note(self.tracker.add_milestone(name, description, now))

    def append_rest(self, text: str, now: Ms) -> None:
        """Take the whole text of the response, of which what is here must be the beginning.

        Raises:
            ResponseLost: it is another text.
        """
        text, here = repair_surrogates(text), self.transcript.text
        if not text.startswith(here):
            raise ResponseLost("OpenAI gave back another text than it had sent.")
        self._joiner, self._repeated = SurrogateJoiner(), ""
        if self.first_token_at is None and text:
            self.first_token_at = now
        self._add(text[len(here) :], now)

    def use_cached_response(self, cached: CachedResponse, answer: Result, now: Ms) -> None:
        """Take the whole of another job's answer. It counts the tokens that it had, and costs nothing."""
        self.looked_up = CacheLookup(job_id=cached.job_id, at=cached.stored_at)
        self.start_stage(self.kind.stages[1], now)
        self.first_token_at = now
        size = max(1, -(-len(answer.text) // CACHED_DELTAS))
        left, parts = answer.usage.output if answer.usage else 0, -(-len(answer.text) // size)
        for number, piece in enumerate(split_text(answer.text, size)):
            tokens_of_it = left // (parts - number)
            left -= tokens_of_it
            self._add(piece, now, tokens_of_it)

    @property
    def is_cached(self) -> bool:
        """Whether the answer is another job's: the provider was not asked, and says nothing by it."""
        return self.looked_up is not None and self.looked_up.hit

    @property
    def is_free(self) -> bool:
        """Whether no provider is asked: the answer is another job's, or the type's own, or its work is none."""
        return self.local or self.is_cached or self.kind.handler is not None

    def resume_cursor(self, end: int) -> ResumeCursor:
        """The provider's last event whose text lies wholly before `end`, and where its text ends: from there a successor goes on [7]."""
        while self._marks and (self._marks[0][1] or 0) <= end:
            self._mark = self._marks.popleft()
        return self._mark

    def start_stage(self, stage: str, now: Ms) -> None:
        """Begin a stage, if the type has it."""
        self._note(self.tracker.start_stage(stage, now))

    def finish_text(self, now: Ms) -> None:
        """No more text comes: readers may send all there is, and end."""
        self._add(self._joiner.flush(), now)
        self.detach()

    def detach(self) -> None:
        """No more text comes here: half a character that is held back is the successor's."""
        self.complete = True
        self._more.notify_all()

    def finish(self, job: Job, final: Frame | None) -> None:
        """The record says how the attempt ended; `final` is what watchers are told."""
        self.job, self.final, self.over = job, final, True
        self._more.notify_all()

    def notify_readers(self) -> None:
        """A reader has caught up: whoever waits for the readers looks again. While text still comes nobody does."""
        if self.complete:
            self._more.notify_all()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at again whenever something was added."""
        while not condition():
            await self._more.wait()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the text is complete."""
        try:
            async with asyncio.timeout(seconds):
                await self.wait_until(lambda: self.complete)
        except TimeoutError:
            return

    def _take_up(self, kept: Sequence[Chunk]) -> None:
        text, last = join_chunks(kept, 0), kept[-1]
        self.transcript.append(text)
        self.tracker.restore(last.progress, text)
        self.begins_at = len(text)
        self.sequence, self._mark = last.sequence, (last.sequence, last.sequence_offset)
        self._repeated = text[last.sequence_offset or 0 :]
        measured = last.progress.get("performance_metrics") or {}
        latency, self.calls = measured.get("network_latency_ms"), measured.get("api_call_count") or 0
        self.first_token_at = self.started_at + (latency or 0)

    def _news(self, text: str) -> str:
        """What of `text` is not kept yet."""
        known = self._repeated[: len(text)]
        if not text.startswith(known):
            raise ResponseLost("OpenAI repeated another text than it had sent.")
        self._repeated = self._repeated[len(known) :]
        return text[len(known) :]

    def _add(self, text: str, now: Ms, tokens_of_it: int = 1) -> None:
        if text:
            self.transcript.append(text)
            self._note(self.tracker.feed(text, now, tokens_of_it))
            self._more.notify_all()

    def _note(self, events: list[dict[str, Any]]) -> None:
        if events:
            self.events.extend(events)
            self._more.notify_all()
