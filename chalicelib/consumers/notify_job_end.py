"""Enqueue notifications of job ends from the change stream.

Sending from the stream guarantees that no notification leaves before the end is stored (protocol
rule 9: no frame before the write). A change that is left is notified by the sweep: the record of
the job stays due until its deliveries are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from chalicelib.consumers.change_loop import Change, ChangeContext, for_each_change
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.notifications.message import job_ended_message
from chalicelib.services.context import JobContext
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries
from chalicelib.services.notifications.settings import parse_recipients


class NotifyContext(ChangeContext, JobContext, NotificationContext, Protocol):
    """What notifying of job ends needs."""


def notify_job_ends(ctx: NotifyContext, changes: Iterable[Change]) -> None:
    """Enqueue deliveries for each job that has ended and names recipients. Idempotent per change.

    Records that cannot be read are dead-lettered here, for all consumers of the same batch.

    Raises:
        DeadLetterFailed: the stream must deliver the batch again.
    """
    for_each_change(ctx, "notify_job_ends", changes, partial(_notify, ctx), dead_letter_unreadable=True)


def _notify(ctx: NotifyContext, before: Job | None, after: Job) -> None:
    if not after.notifies or not after.status.is_terminal or (before is not None and before.status is after.status):
        return
    spec = ctx.job_specs.get(after.id)
    if spec is None:  # the job was deleted since, together with its recipients
        ctx.log("notification_skipped", reason="spec_gone", job_id=after.id, tenant=after.tenant)
        return
    recipients = parse_recipients(spec.webhook_url, spec.notify)
    enqueue_deliveries(ctx, after.tenant, after.id, recipients, job_ended_message(after, ctx.api_url))
