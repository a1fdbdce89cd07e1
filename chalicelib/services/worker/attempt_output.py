"""The output of one attempt while it is produced: its text, its progress, and the signal that tells readers of news.

The worker appends; the transcript writer and the socket writers read when they are ready. The worker never waits for a
reader, so no reader can slow the stream or the other readers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from chalicelib.domain.execution.progress import ProgressTracker
from chalicelib.domain.execution.transcript import Chunk, Transcript, join_chunks
from chalicelib.domain.failures import ResponseLost
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.text import SurrogateJoiner, repair_surrogates
from chalicelib.domain.units import Ms

# Number of a provider event, and the transcript offset at which its text ends; None before the first event.
ResumeCursor = tuple[int | None, int | None]


class Signal:
    """Wakes all waiters. Without waiters, as at nearly every token, it costs nothing."""

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


class AttemptOutput:
    """What readers of an attempt see.

    Attributes:
        events: stages, milestones and progress in the order in which they happened.
        first_token_at: when the first text came, None before.
        begins_at: transcript offset at which this worker continues; 0 unless it resumes a durable attempt.
        sequence: the last provider event that was read, of a durable attempt.
        complete: no more text comes from this worker.
        over: the job record says how the attempt ended.
    """

    def __init__(self, number: int, kind: JobType, tracker: ProgressTracker, *, durable: bool) -> None:
        self.transcript = Transcript(number)
        self.tracker = tracker
        self.events: list[dict[str, Any]] = []
        self.first_token_at: Ms | None = None
        self.begins_at = 0
        self.sequence: int | None = None
        self.complete = False
        self.over = False
        self._kind = kind
        self._durable = durable
        self._joiner = SurrogateJoiner()
        self._changed = Signal()
        self._repeated = ""  # text that is stored already and that the provider sends again
        self._marks: deque[ResumeCursor] = deque()
        self._cursor: ResumeCursor = (None, None)

    @property
    def received(self) -> int:
        """Tokens so far, one per delta."""
        return self.tracker.tokens_received

    def begin(self, now: Ms) -> None:
        """Start the first stage."""
        self._record(self.tracker.begin(now))

    def resume(self, chunks: Sequence[Chunk], started_at: Ms) -> int:
        """Continue the stored transcript of a durable attempt.

        Returns: the provider requests that earlier workers made for it.
        """
        text, last = join_chunks(chunks, 0), chunks[-1]
        self.transcript.append(text)
        self.tracker.restore(last.progress, text)
        self.begins_at = len(text)
        self.sequence, self._cursor = last.sequence, (last.sequence, last.sequence_offset)
        self._repeated = text[last.sequence_offset or 0 :]
        metrics = last.progress.get("performance_metrics") or {}
        self.first_token_at = started_at + (metrics.get("network_latency_ms") or 0)
        return metrics.get("api_call_count") or 0

    def append(self, delta: str, now: Ms, sequence: int | None = None, tokens: int = 1) -> None:
        """Append text from the provider; `sequence` is the number of its event, `tokens` how many it stands for.

        Raises:
            ResponseLost: the provider repeats an event with other text than an earlier worker received.
        """
        if self.first_token_at is None:
            self.first_token_at = now
            self.start_stage(self._kind.streaming_stage, now)
        self._add(self._skip_repeated(self._joiner.feed(delta)), now, tokens)
        if self._durable:
            self.sequence = sequence
            if not self._joiner.holds:
                self._marks.append((sequence, len(self.transcript) - len(self._repeated)))

    def append_rest(self, text: str, now: Ms) -> None:
        """Append what is missing of the whole text of a response.

        Raises:
            ResponseLost: the transcript is not the beginning of `text`.
        """
        text, present = repair_surrogates(text), self.transcript.text
        if not text.startswith(present):
            raise ResponseLost("OpenAI gave back another text than it had sent.")
        self._joiner, self._repeated = SurrogateJoiner(), ""
        if self.first_token_at is None and text:
            self.first_token_at = now
        self._add(text[len(present) :], now)

    def append_counted(self, text: str, now: Ms, tokens: int) -> None:
        """Append text that stands for `tokens` tokens, as a cached response does."""
        if self.first_token_at is None:
            self.first_token_at = now
        self._add(text, now, tokens)

    def put_task_output(self, text: str) -> None:
        """Append the output of a task handler: it has no tokens, and no first one."""
        self.transcript.append(text)
        self._changed.notify_all()

    def start_stage(self, stage: str, now: Ms) -> None:
        """Begin a stage, if the job type has it."""
        self._record(self.tracker.start_stage(stage, now))

    def report_progress(self, done: float, total: float, now: Ms) -> None:
        self._record(self.tracker.report_progress(done, total, now))

    def record_milestone(self, name: str, description: str, now: Ms) -> None:
        self._record(self.tracker.add_milestone(name, description, now))

    def resume_cursor(self, end: int) -> ResumeCursor:
        """The last provider event whose text lies before `end`, and where that text ends: a successor resumes there
        (protocol rule 7: chunks are appended where none ends).
        """
        while self._marks and (self._marks[0][1] or 0) <= end:
            self._cursor = self._marks.popleft()
        return self._cursor

    def flush(self, now: Ms) -> None:
        """The provider sends no more text: append what was held back. Writers end with `detach`."""
        self._add(self._joiner.flush(), now)

    def detach(self) -> None:
        """No more text or events come from this worker: writers send what is left and end.

        Half a surrogate pair that is held back is left to the successor.
        """
        self.complete = True
        self._changed.notify_all()

    def finish(self) -> None:
        """The job record says how the attempt ended."""
        self.over = True
        self._changed.notify_all()

    def notify_readers(self) -> None:
        """A reader has caught up: wake the waiter for that. While text still comes there is none."""
        if self.complete:
            self._changed.notify_all()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is checked again whenever something was added."""
        while not condition():
            await self._changed.wait()

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the text is complete."""
        try:
            async with asyncio.timeout(seconds):
                await self.wait_until(lambda: self.complete)
        except TimeoutError:
            return

    def _skip_repeated(self, text: str) -> str:
        """The part of `text` that is not stored yet."""
        known = self._repeated[: len(text)]
        if not text.startswith(known):
            raise ResponseLost("OpenAI repeated another text than it had sent.")
        self._repeated = self._repeated[len(known) :]
        return text[len(known) :]

    def _add(self, text: str, now: Ms, tokens: int = 1) -> None:
        if text:
            self.transcript.append(text)
            self._record(self.tracker.feed(text, now, tokens))
            self._changed.notify_all()

    def _record(self, events: list[dict[str, Any]]) -> None:
        if events:
            self.events.extend(events)
            self._changed.notify_all()
