"""Enqueue notifications of job ends from the change stream.

Sending from the stream guarantees that no notification leaves before the end is stored (protocol
rule 9: no frame before the write). A change that is left is notified of by the sweep: the record of
the job stays due until its deliveries are stored (protocol rule 26).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from chalicelib.consumers.change_loop import Change, ChangeContext, for_each_change
from chalicelib.domain.jobs.job import Job
from chalicelib.services.notifications.job_ends import JobEndContext, notify_job_end


class NotifyContext(ChangeContext, JobEndContext, Protocol):
    """What notifying of job ends needs."""


def notify_job_ends(ctx: NotifyContext, changes: Iterable[Change]) -> None:
    """Enqueue deliveries for each job that has ended and names recipients. Idempotent per change.

    A failure blocks nothing: the job stays due, and the sweep notifies of its end. Only an end that
    an older version of the code wrote is not due; it goes to the dead-letter queue. Changes that
    cannot be read are logged here, for all consumers of the same batch.

    Raises:
        DeadLetterFailed: the stream must deliver the batch again.
    """
    for_each_change(ctx, "notify_job_ends", changes, partial(_notify, ctx), log_unreadable=True)


def _notify(ctx: JobEndContext, before: Job | None, after: Job) -> None:
    if not after.notifies or not after.status.is_terminal or (before is not None and before.status is after.status):
        return
    try:
        notify_job_end(ctx, after)
    except Exception as exc:
        if not after.has_unsent_notifications:
            raise
        ctx.log("notification_left_to_sweep", job_id=after.id, tenant=after.tenant, error=exc)
