"""Tell watchers how a job ended, from the change stream: the worker that wrote the end may have died before it could tell [14]."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from chalicelib.consumers.change_loop import Change, for_each_change
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Queues
from chalicelib.services.log import Log
from chalicelib.services.streaming.subscriptions import StreamingContext, broadcast_state


def broadcast_job_ends(ctx: StreamingContext, queues: Queues, log: Log, changes: Iterable[Change]) -> None:
    """For each change to another status, or to another time of a job that is held: tell it. A record that cannot be read is set aside.

    Raises:
        NotSetAside: the stream must give the records again.
    """
    unreadable = "the change record could not be read"
    for_each_change(ctx.clock, queues, log, changes, partial(_tell, ctx), "not announced", unreadable)


def _tell(ctx: StreamingContext, before: Job | None, after: Job) -> None:
    if before is None or before.status is not after.status or _waits_anew(before, after):
        broadcast_state(ctx, after)


def _waits_anew(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.resume_at, before.reason) != (after.resume_at, after.reason)
