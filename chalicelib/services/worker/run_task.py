"""Run a task: a job whose type has a handler and asks no model.

Claim, lease, cancel, timeout and retries are those of every job. The text of the attempt is the
JSON of what the handler returns.

Handlers must be idempotent. One is run again from its beginning if its worker died, its time ran
out or a store did not answer. So it may only write what can be written twice, such as an object
under a fixed name, and must tolerate that what it deletes is already gone.
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

PROGRESS_INTERVAL_SECONDS = 2.0  # how often the progress is stored for polling clients, if it has changed

T = TypeVar("T")


class TaskRun:
    """The argument of a task handler: the job, its spec, the ports, and how to report progress."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt) -> None:
        self._ctx, self._attempt = ctx, attempt

    @property
    def job(self) -> Job:
        return self._attempt.job

    @property
    def spec(self) -> JobSpec:
        return self._attempt.spec

    @property
    def context(self) -> TaskContext:
        return self._ctx

    @property
    def caller(self) -> Caller:
        """The caller who submitted the job, with the role they had then."""
        job, role = self.job, Role.named(self.spec.role or Role.USER.label)
        return Caller(tenant=job.tenant, user=job.user, role=role, key_id=job.key_id, key_hash="")

    async def run_sync(self, call: Callable[..., T], *args: Any) -> T:
        """Call a port or a service on a thread, off the event loop.

        If the handler is cancelled, the cancellation waits until the call has returned, so that no
        thread outlives it.
        """
        running = asyncio.ensure_future(self._ctx.offload(call, *args))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # marks it as retrieved; otherwise asyncio would log it
            raise

    async def run_sync_each(self, call: Callable[..., T], items: list[Any], concurrency: int = 8) -> list[T]:
        """Make the call for each item, `concurrency` at a time, and return the results in order.

        If calls fail, the others of their group are awaited, then the first error is raised.
        """
        results: list[T] = []
        for start in range(0, len(items), concurrency):
            group = items[start : start + concurrency]
            for result in await asyncio.gather(*(self.run_sync(call, item) for item in group), return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
                results.append(result)
        return results

    def start_stage(self, stage: str) -> None:
        """Start a stage of the type."""
        self._attempt.output.start_stage(stage, self._ctx.clock.now())

    def report_progress(self, done: float, total: float) -> None:
        """Report how much is done; the percentage and the remaining time are computed from it."""
        self._attempt.output.report_progress(done, total, self._ctx.clock.now())

    def record_milestone(self, name: str, description: str) -> None:
        """Record a milestone."""
        self._attempt.output.record_milestone(name, description, self._ctx.clock.now())


async def run_task(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded:
    """Run the type's handler and append its output to the transcript.

    Raises:
        AttemptFailed: the handler failed; `RequestRefused` if a retry would not help.
    """
    handler = attempt.kind.handler
    assert handler is not None
    saving = asyncio.create_task(_save_progress(ctx, attempt))
    try:
        output = await handler(TaskRun(ctx, attempt))
    except AttemptFailed:
        raise
    except Unavailable as exc:
        raise StoreUnavailable from exc
    except HeadraceError as exc:
        raise RequestRefused(_refusal_message(exc)) from exc
    finally:
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
    attempt.output.put_task_output(repair_surrogates(json.dumps(output, ensure_ascii=False)))
    return ResponseEnded(Usage(), NO_MODEL)


def _refusal_message(error: HeadraceError) -> str:
    """Return as many details of the error as fit into the job record, or else its message."""
    details = [f"{detail.path} {detail.message}.".strip() for detail in error.details]
    message = details[0] if details else error.message
    for number, detail in enumerate(details[1:], start=1):
        rest = f" And {len(details) - number} more."
        if len(message) + 1 + len(detail) + len(rest) > MAX_MESSAGE_LENGTH:
            return message + rest
        message = f"{message} {detail}"
    return message


async def _save_progress(ctx: WorkerContext, attempt: Attempt) -> None:
    """Store the progress for polling clients, as a chunk without text, whenever it has changed."""
    saved: dict[str, Any] = {}
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_SECONDS)
        current = attempt.output.tracker.snapshot()
        if current == saved:
            continue
        now, saved = ctx.clock.now(), current
        chunk = Chunk(job_id=attempt.job.id, attempt=attempt.number, start=0, text="", at=now, progress=progress_of(attempt, now))
        try:
            await ctx.offload(ctx.chunks.put_progress, replace(chunk, ttl=now // 1000 + TEXT_RETENTION_DAYS * 86_400))
        except Unavailable as exc:  # the next write stores newer progress
            ctx.log("progress_not_saved", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)
