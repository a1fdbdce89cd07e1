"""Notify the recipients of a job that it has ended.

The end is its own outbox: the write that ends the job leaves it due, and it stays due until its
deliveries are stored and its dependents are released (protocol rule 26).
"""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.notifications.message import job_ended_message
from chalicelib.services.context import JobContext
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries
from chalicelib.services.notifications.settings import parse_recipients


class JobEndContext(JobContext, NotificationContext, Protocol):
    """What notifying of job ends needs."""


def notify_job_end(ctx: JobEndContext, job: Job) -> None:
    """Store and enqueue a delivery for each recipient of a job that has ended. Idempotent per run:
    the message id is derived from it.

    Raises:
        Unavailable: some deliveries may not be stored; repeat it.
    """
    if not job.notifies:
        return
    spec = ctx.job_specs.get(job.id)
    if spec is None:  # the job was deleted since, together with its recipients
        ctx.log("notification_skipped", reason="spec_gone", job_id=job.id, tenant=job.tenant)
        return
    recipients = parse_recipients(spec.webhook_url, spec.notify)
    enqueue_deliveries(ctx, job.tenant, job.id, recipients, job_ended_message(job, ctx.api_url))


def notify_before_change(ctx: JobEndContext, job: Job) -> None:
    """Notify of the end of a job that is about to be restarted or deleted, if this is not done yet:
    afterwards the end can no longer be read from its record.

    Raises:
        Unavailable: a store did not answer; leave the job as it is.
    """
    if job.is_end_due:
        notify_job_end(ctx, job)
