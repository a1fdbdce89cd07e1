"""Broadcast job states to WebSocket subscribers from the change stream.

The worker that wrote a state may die before it broadcasts it (protocol rule 14: write first, then
read).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from chalicelib.consumers.change_loop import Change, for_each_change
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.context import QueueContext
from chalicelib.services.streaming.subscriptions import StreamingContext, broadcast_state


class BroadcastContext(StreamingContext, QueueContext, Protocol):
    """What broadcasting from the change stream needs."""


def broadcast_job_ends(ctx: BroadcastContext, changes: Iterable[Change]) -> None:
    """Broadcast each change of status, and each new resume time or reason of a held job.

    Changes that cannot be read are logged here, for all consumers of the same batch.

    Raises:
        DeadLetterFailed: the stream must deliver the batch again.
    """
    for_each_change(ctx, "broadcast_job_ends", changes, partial(_broadcast, ctx), log_unreadable=True)


def _broadcast(ctx: StreamingContext, before: Job | None, after: Job) -> None:
    if before is None or before.status is not after.status or _is_rescheduled(before, after):
        broadcast_state(ctx, after)


def _is_rescheduled(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.resume_at, before.reason) != (after.resume_at, after.reason)
