"""Do work that is no OpenAI call: under the same claim, lease, cancel, time and retries, with a text that is the JSON of what it returns.

Work must be idempotent. It is done again from its beginning when its worker died, its time was over, or a store did not answer; so it
writes what may be written twice, such as an object under one name, and deletes what may be gone already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.failures import AttemptFailed, RequestRefused, StoreUnavailable
from chalicelib.domain.jobs.job import Job, Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import ResponseEnded
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.evaluate_attempt import MAX_MESSAGE_LENGTH
from chalicelib.services.worker.output.transcript_writer import TEXT_RETENTION_DAYS
from chalicelib.services.worker.progress_snapshot import progress_of
from chalicelib.services.worker.task_context import TaskContext

PROGRESS_INTERVAL_SECONDS = 2.0  # how often the progress is kept where polls read it, if it has changed

T = TypeVar("T")


class TaskRun:
    """What a type's `work` is handed: the job, what it asks for, and what may be done about it."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt) -> None:
        self._ctx, self._attempt = ctx, attempt

    @property
    def job(self) -> Job:
        return self._attempt.job

    @property
    def body(self) -> JobSpec:
        return self._attempt.body

    @property
    def context(self) -> TaskContext:
        return self._ctx

    @property
    def caller(self) -> Caller:
        """Whoever submitted the job, with no more rights than they had then."""
        job, role = self.job, Role.named(self.body.role or Role.USER.label)
        return Caller(tenant=job.tenant, user=job.user, role=role, key_id=job.key_id, key_hash="")

    async def run_sync(self, call: Callable[..., T], *args: Any) -> T:
        """Make a call of a port or a use case, off the event loop. A cancel waits until it has returned: no thread outlives the work."""
        made = asyncio.ensure_future(self._ctx.offload(call, *args))
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            await asyncio.wait({made})
            if not made.cancelled():
                made.exception()  # nobody asks for it any more
            raise

    async def run_sync_each(self, call: Callable[..., T], items: list[Any], together: int = 8) -> list[T]:
        """Make the call for each item, so many at a time. The first that fails is raised when those beside it have returned."""
        answers: list[T] = []
        for start in range(0, len(items), together):
            made = await asyncio.gather(*(self.run_sync(call, item) for item in items[start : start + together]), return_exceptions=True)
            for answer in made:
                if isinstance(answer, BaseException):
                    raise answer
                answers.append(answer)
        return answers

    def start_stage(self, stage: str) -> None:
        """Begin a stage of the type."""
        self._attempt.start_stage(stage, self._ctx.clock.now())

    def report_progress(self, done: float, total: float) -> None:
        """Say how far it is: the percentage and the time that is left are made of it."""
        self._attempt.report_progress(done, total, self._ctx.clock.now())

    def record_milestone(self, name: str, description: str) -> None:
        """Say that something was reached."""
        self._attempt.record_milestone(name, description, self._ctx.clock.now())


async def run_task(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded:
    """The end of the work, once what it returned is in the transcript.

    Raises:
        AttemptFailed: there will be none; `RequestRefused` where doing it again would not help.
    """
    work = attempt.kind.handler
    assert work is not None
    noting = asyncio.create_task(_note_progress(ctx, attempt))
    try:
        output = await work(TaskRun(ctx, attempt))
    except AttemptFailed:
        raise
    except Unavailable as exc:
        raise StoreUnavailable from exc
    except HeadraceError as exc:
        raise RequestRefused(_told(exc)) from exc
    finally:
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)
    attempt.put_output(repair_surrogates(json.dumps(output, ensure_ascii=False)))
    return ResponseEnded(Usage(), NO_MODEL)


def _told(problem: HeadraceError) -> str:
    """The first places of what is wrong, as many as are kept whole of a message; the message where no place is named."""
    places = [f"{detail.path} {detail.message}.".strip() for detail in problem.details]
    told = places[0] if places else problem.message
    for number, place in enumerate(places[1:], start=1):
        more = f" And {len(places) - number} more."
        if len(told) + 1 + len(place) + len(more) > MAX_MESSAGE_LENGTH:
            return told + more
        told = f"{told} {place}"
    return told


async def _note_progress(ctx: WorkerContext, attempt: Attempt) -> None:
    """Keep the progress for those who poll, as a chunk without text: its text comes in one piece at the end."""
    known: dict[str, Any] = {}
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_SECONDS)
        shown = attempt.tracker.snapshot()
        if shown == known:
            continue
        now, known = ctx.clock.now(), shown
        chunk = Chunk(job_id=attempt.job.id, attempt=attempt.number, start=0, text="", at=now, progress=progress_of(attempt, now))
        try:
            await ctx.offload(ctx.chunks.put_progress, replace(chunk, ttl=now // 1000 + TEXT_RETENTION_DAYS * 86_400))
        except Unavailable as exc:  # the next one is as good
            ctx.log("progress_not_saved", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)
