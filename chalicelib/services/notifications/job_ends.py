"""Notify the recipients of a job that it has ended.

The end of such a job is its own outbox: the write that ends it leaves it due, and it stays due
until its deliveries are stored (protocol rule 26). The change stream stores them within a second;
what it could not store, the sweep does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.index_keys import UNNOTIFIED
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.notifications.message import job_ended_message
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.context import JobContext
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries
from chalicelib.services.notifications.settings import parse_recipients

PAGE_SIZE = 100  # jobs of each index shard that are read together
CONCURRENCY = 40  # jobs between two looks at the clock
UNAVAILABLE_BACKOFF_MS = 30_000  # a job whose stores did not answer is tried again by the next sweep
ERROR_BACKOFF_MS = 600_000  # a job that failed otherwise will most likely fail again


class JobEndContext(JobContext, NotificationContext, Protocol):
    """What notifying of job ends needs."""


class OverdueContext(JobEndContext, Protocol):
    """What notifying of many job ends needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


class NotifyResult(StrEnum):
    """What a sweep did with an ended job whose notifications were not stored."""

    NOTIFIED = "notified"
    NOTHING = "nothing"  # they have been stored, or the job was restarted
    FAILED = "failed"  # an error; postponed


def notify_job_end(ctx: JobEndContext, job: Job) -> None:
    """Store and enqueue a delivery for each recipient of a job that has ended; then the job is no
    longer due. Idempotent per run: the message id is derived from it.

    Raises:
        Unavailable: some deliveries may not be stored; the job stays due.
    """
    spec = ctx.job_specs.get(job.id)
    if spec is None:  # the job was deleted since, together with its recipients
        ctx.log("notification_skipped", reason="spec_gone", job_id=job.id, tenant=job.tenant)
    else:
        recipients = parse_recipients(spec.webhook_url, spec.notify)
        enqueue_deliveries(ctx, job.tenant, job.id, recipients, job_ended_message(job, ctx.api_url))
    ctx.jobs.set_notification_due(job, None)


def notify_before_change(ctx: JobEndContext, job: Job) -> None:
    """Notify of the end of a job that is about to be restarted or deleted, if this is not done yet:
    afterwards the end can no longer be read from its record.

    Raises:
        Unavailable: a store did not answer; leave the job as it is.
    """
    if job.has_unsent_notifications:
        notify_job_end(ctx, job)


def notify_overdue_ends(ctx: OverdueContext, until: Ms) -> Counter[NotifyResult]:
    """Notify of the ends that the change stream did not, until none is due or `until` has come.

    One job that fails is postponed and stops no other. Returns how often each result occurred.

    Raises:
        Unavailable: the index of due jobs could not be read.
    """
    done: Counter[NotifyResult] = Counter()
    tried: set[str] = set()  # the index may still list a job that has just been done
    while (now := ctx.clock.now()) < until:
        ids = [job_id for job_id in ctx.jobs.due(UNNOTIFIED, now, PAGE_SIZE) if job_id not in tried]
        if not ids:
            break
        tried.update(ids)
        for start in range(0, len(ids), CONCURRENCY):
            if ctx.clock.now() >= until:
                break
            done.update(_notify_page(ctx, ids[start : start + CONCURRENCY]))
    return done


def _notify_page(ctx: OverdueContext, ids: Sequence[str]) -> list[NotifyResult]:
    jobs = load_jobs(ctx.jobs, ctx.log, ids, ctx.clock.now() + ERROR_BACKOFF_MS, consistent=True)
    return ctx.parallel_map(partial(_notify_or_postpone, ctx), jobs)


def _notify_or_postpone(ctx: OverdueContext, job: Job) -> NotifyResult:
    if not job.has_unsent_notifications:
        return NotifyResult.NOTHING
    try:
        notify_job_end(ctx, job)
    except Exception as exc:  # noqa: BLE001 - one job must not stop the others
        ctx.log("notification_postponed", job_id=job.id, tenant=job.tenant, error=exc)
        backoff = UNAVAILABLE_BACKOFF_MS if isinstance(exc, Unavailable) else ERROR_BACKOFF_MS
        _postpone(ctx, job, ctx.clock.now() + backoff)
        return NotifyResult.FAILED
    return NotifyResult.NOTIFIED


def _postpone(ctx: OverdueContext, job: Job, due_at: Ms) -> None:
    try:
        ctx.jobs.set_notification_due(job, due_at)
    except Unavailable as exc:  # it stays due as it is, and the next sweep tries it again
        ctx.log("notification_not_postponed", job_id=job.id, tenant=job.tenant, error=exc)
