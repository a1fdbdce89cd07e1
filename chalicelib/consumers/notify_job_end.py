"""Enqueue notifications of job ends from the change stream.

Sending from the stream guarantees that no notification leaves before the end is stored (protocol
rule 9: no frame before the write). An end that is left stays due, and the sweep notifies of it
(protocol rule 26).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from chalicelib.consumers.change_loop import Change, ChangeContext, for_each_change
from chalicelib.domain.jobs.job import Job
from chalicelib.services.notifications.job_ends import JobEndContext, notify_job_end


class NotifyContext(ChangeContext, JobEndContext, Protocol):
    """What notifying of job ends needs."""


def notify_job_ends(ctx: NotifyContext, changes: Iterable[Change], done: Callable[[str], object]) -> None:
    """Enqueue deliveries for each job that has ended and names recipients. Idempotent per change.

    Changes that cannot be read are logged here, for all consumers of the same batch.

    Args:
        done: called with the id of each ended job whose deliveries are stored.

    Raises:
        DeadLetterFailed: the stream must deliver the batch again.
    """
    for_each_change(ctx, "notify_job_ends", changes, partial(_notify, ctx, done), _may_leave, log_unreadable=True)


def _may_leave(job: Job) -> bool:
    """Whether the sweep notifies of it: not of an end that an older version of the code wrote."""
    return job.is_end_due or not (job.notifies and job.status.is_terminal)


def _notify(ctx: NotifyContext, done: Callable[[str], object], before: Job | None, after: Job) -> None:
    if not after.status.is_terminal or (before is not None and before.status is after.status):
        return
    notify_job_end(ctx, after)
    done(after.id)
