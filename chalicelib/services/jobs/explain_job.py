"""Read what is stored about a job, for the story of its waits and decisions."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.explain.story import Event, Records, tell_story
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.waiting import JobWait, WaitLimit
from chalicelib.ports import Results
from chalicelib.services.scheduling.waits import WaitContext, limit_of


class ExplainContext(WaitContext, Protocol):
    """What explaining a job needs."""

    @property
    def results(self) -> Results: ...


def explain_job(ctx: ExplainContext, job: Job, queue_position: int | None, wait: JobWait, *, content: bool) -> list[Event]:
    """Return the story of a job.

    Args:
        queue_position: about how many jobs are in its queue; None: it is not queued.
        wait: what is known of its wait now.
        content: False for who may not read error messages.
    """
    records = Records(
        job=job,
        attempts=ctx.results.attempts(job.id) if job.attempt else (),
        limits=_limits(ctx, job),
        wait=wait,
        queue_position=queue_position,
        content=content,
    )
    return tell_story(records, ctx.clock.now())


def _limits(ctx: ExplainContext, job: Job) -> dict[int, WaitLimit]:
    """Return the limits for which the job has waited, as they are now, by the number of the wait."""
    known: dict[tuple[str, str | None], WaitLimit | None] = {}
    for wait in job.waits:
        key = wait.reason, wait.cause
        if key in known:
            continue
        try:
            known[key] = limit_of(ctx, job, *key, ctx.clock.now())
        except (Unavailable, UnreadableRecord) as exc:
            ctx.log("wait_not_read", job_id=job.id, tenant=job.tenant, cause=wait.cause, error=exc)
            known[key] = None
    limits = ((number, known[wait.reason, wait.cause]) for number, wait in enumerate(job.waits))
    return {number: limit for number, limit in limits if limit is not None}
