"""Ask whether a job of a type may start in this minute: the rate limit of job types.

A start is counted when it is asked for, in the frames of the type (`domain/limits/sliding_window.py`),
and taken off again if the job does not start. A job that the scheduler releases comes with a grant:
its start is counted already. The concurrency of a type is one of the limits of the slot gate.
"""

from __future__ import annotations

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.limits.sliding_window import added, fits, free_at
from chalicelib.domain.limits.type_rate import ACCOUNT, rate_of
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.wakeup import Grant
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.slot_lines import has_line
from chalicelib.services.worker.context import WorkerContext


async def count_start(ctx: WorkerContext, kind: JobType, job: Job, grant: Grant | None) -> Ms | WaitUntil | None:
    """Count the start of a job against the rate of its type.

    Returns: the time under which it is counted, to be given back if the job does not start; None: the
        type has no rate limit; or that the job waits.

    Raises:
        Unavailable: it may be counted.
    """
    found: Ms | WaitUntil | None = await ctx.offload(_count, ctx, kind, job, grant)
    return found


async def uncount_start(ctx: WorkerContext, job: Job, counted_at: Ms | None) -> None:
    """Take a start off again: the job does not start now. If that fails, it counts for a minute."""
    if counted_at is None:
        return
    try:
        await ctx.offload(ctx.rates.give_back, ACCOUNT, job.type, 0, 1, counted_at)
    except Unavailable as exc:
        ctx.log("start_not_uncounted", type=job.type, tenant=job.tenant, error=exc)


def counted_by(job: Job, grant: Grant | None) -> Ms | None:
    """Return when the scheduler counted the start of a job; None: it did not."""
    return grant.at if grant is not None and grant.cause == cause_of(CauseKind.TYPE, job.type) else None


def _count(ctx: WorkerContext, kind: JobType, job: Job, grant: Grant | None) -> Ms | WaitUntil | None:
    limits, now, counted_at = rate_of(kind.limits.per_minute if kind.limits is not None else None), ctx.clock.now(), counted_by(job, grant)
    if limits is None:
        return None
    if counted_at is not None and grant is not None:
        if grant.is_valid(now):
            return counted_at
        ctx.rates.give_back(ACCOUNT, kind.name, 0, 1, counted_at)
    cause = cause_of(CauseKind.TYPE, kind.name)
    if job.cause != cause and has_line(ctx, cause, job.tenant):  # it stands behind the jobs of its tenant
        return WaitUntil(None, HoldReason.TYPE_RATE, cause)
    frames = ctx.rates.take(ACCOUNT, kind.name, 0, 1, now)
    if fits(frames, limits, 0, now):
        return now
    ctx.rates.give_back(ACCOUNT, kind.name, 0, 1, now)
    return WaitUntil(free_at(added(frames, now, -1, 0), limits, 0, now), HoldReason.TYPE_RATE, cause)
