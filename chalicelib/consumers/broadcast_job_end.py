"""Tell watchers how a job ended, from the change stream: the worker that wrote the end may have died before it could tell [14]."""

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
    """For each change to another status, or to another time of a job that is held: tell it. A record that cannot be read is set aside.

    Raises:
        NotSetAside: the stream must give the records again.
    """
    for_each_change(ctx, "broadcast_job_ends", changes, partial(_tell, ctx), dead_letter_unreadable=True)


def _tell(ctx: StreamingContext, before: Job | None, after: Job) -> None:
    if before is None or before.status is not after.status or _waits_anew(before, after):
        broadcast_state(ctx, after)


def _waits_anew(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.resume_at, before.reason) != (after.resume_at, after.reason)
