"""Serve the ends of jobs that the change stream has left: notify recipients and release dependents.

The change stream is quick but not certain: it may be throttled, lack a permission, be dead, or lag
until its records are dropped. An end stays due until it is served (protocol rule 26), so a
scheduled function finds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol

from chalicelib.consumers.release_dependents import ReleaseContext, release_all
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.index_keys import ENDED
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.notifications.job_ends import JobEndContext, notify_job_end

PAGE_SIZE = 100  # jobs of each index shard that are read together
CONCURRENCY = 40  # jobs between two looks at the clock
UNAVAILABLE_BACKOFF_MS = 30_000  # a job whose stores did not answer is tried again by the next run
ERROR_BACKOFF_MS = 600_000  # a job that failed otherwise will most likely fail again


class OverdueContext(JobEndContext, ReleaseContext, Protocol):
    """What serving overdue ends needs."""


class EndResult(StrEnum):
    """What was done with the end of a job."""

    SERVED = "served"
    NOTHING = "nothing"  # it has been served, or the job was restarted
    FAILED = "failed"  # an error; postponed


def serve_overdue_ends(ctx: OverdueContext, until: Ms) -> Counter[EndResult]:
    """Serve overdue ends until none is left or `until` has come.

    One that fails is postponed and stops no other. Returns how often each result occurred.

    Raises:
        Unavailable: the index of due jobs could not be read.
    """
    done: Counter[EndResult] = Counter()
    tried: set[str] = set()  # the index may still list a job that has just been served
    while (now := ctx.clock.now()) < until:
        ids = [job_id for job_id in ctx.jobs.due(ENDED, now, PAGE_SIZE) if job_id not in tried]
        if not ids:
            break
        tried.update(ids)
        for start in range(0, len(ids), CONCURRENCY):
            if ctx.clock.now() >= until:
                break
            done.update(_serve_page(ctx, until, ids[start : start + CONCURRENCY]))
    return done


def _serve_page(ctx: OverdueContext, until: Ms, ids: Sequence[str]) -> list[EndResult]:
    jobs = load_jobs(ctx.jobs, ctx.log, ids, ctx.clock.now() + ERROR_BACKOFF_MS, consistent=True)
    return ctx.parallel_map(partial(_serve_or_postpone, ctx, until), jobs)


def _serve_or_postpone(ctx: OverdueContext, until: Ms, job: Job) -> EndResult:
    if not job.is_end_due:
        return EndResult.NOTHING
    try:
        notify_job_end(ctx, job)
        if job.has_dependents and not release_all(ctx, job, until):
            raise Unavailable("Some dependents were not released.")
        ctx.jobs.set_end_due(job, None)
    except Exception as exc:  # noqa: BLE001 - one job must not stop the others
        ctx.log("end_not_served", job_id=job.id, tenant=job.tenant, error=exc)
        _postpone(ctx, job, ctx.clock.now() + (UNAVAILABLE_BACKOFF_MS if isinstance(exc, Unavailable) else ERROR_BACKOFF_MS))
        return EndResult.FAILED
    return EndResult.SERVED


def _postpone(ctx: OverdueContext, job: Job, due_at: Ms) -> None:
    try:
        ctx.jobs.set_end_due(job, due_at)
    except Unavailable as exc:  # it stays due as it is, and the next run tries it again
        ctx.log("end_not_postponed", job_id=job.id, tenant=job.tenant, error=exc)
