"""Pause and resume one job."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.errors import AlreadyPaused, JobNotFound, JobNotPausable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import is_claimable
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.ports import Jobs
from chalicelib.services.context import QueueContext
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up


class PauseJobContext(QueueContext, Protocol):
    """What pausing a job needs."""

    @property
    def jobs(self) -> Jobs: ...


def pause_job(ctx: PauseJobContext, job: Job, by: str, reason: str | None = None, until: Ms | None = None) -> Job:
    """Pause a job that is not running, and return its record. Repeating it changes nothing.

    Raises:
        JobNotPausable: the job is running or has ended.
        AlreadyPaused: it is paused with another reason or end.
        JobNotFound: the job was deleted meanwhile.
        Unavailable: the job may or may not be paused; repeat the request.
    """

    def change(seen: Job) -> Job | None:
        now = ctx.clock.now()
        if transitions.is_paused(seen, now) and seen.pause is not None:
            if (seen.pause.reason, seen.pause.until) != (reason, until):
                raise AlreadyPaused(_already(seen))
            return seen
        return transitions.pause(seen, by, reason, until, now)

    paused = update_job(ctx.jobs, job, change)
    if paused is None:
        raise _refusal(ctx.jobs.get(job.id), job.id)
    if until is not None and transitions.holds_itself(paused):
        try_send_wake_up(ctx, paused)
    return paused


def resume_job(ctx: PauseJobContext, job: Job) -> Job:
    """End the pause of a job, and return its record. A job that is not paused stays as it is.

    Raises:
        JobNotPausable: the job has ended.
        JobNotFound: the job was deleted meanwhile.
        Unavailable: the job may be resumed without a wake-up; the sweeper or a repeated request
            sends it.
    """
    resumed = update_job(ctx.jobs, job, lambda seen: transitions.resume(seen, ctx.clock.now()))
    if resumed is None:
        raise _refusal(ctx.jobs.get(job.id), job.id)
    if resumed is not job and is_claimable(resumed) and not resumed.is_in_line:
        try_send_wake_up(ctx, resumed)
    return resumed


def _refusal(job: Job | None, job_id: str) -> JobNotPausable | JobNotFound:
    if job is None or job.is_deleted:
        return JobNotFound(job_id)
    if job.status.is_terminal:
        return JobNotPausable(f"This job is {job.status.value}; it has ended.")
    return JobNotPausable("This job is running. A job can be paused before it starts, and between two attempts; cancel it instead.")


def _already(job: Job) -> str:
    assert job.pause is not None
    end = f" until {rfc3339(job.pause.until)}" if job.pause.until is not None else ""
    return f"This job has been paused by {job.pause.by} since {rfc3339(job.pause.since)}{end}. Resume it first."
