"""Send word of a job's end to whom it names, from the change stream: so nothing is said outside before the end is written [9].

What cannot be read at all is set aside by `announce_ends`, which sees the same changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from chalicelib.consumers.change_loop import Change, for_each_change
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.notifications.message import job_ended_message
from chalicelib.ports import JobSpecs
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries
from chalicelib.services.notifications.settings import parse_recipients


def notify_job_ends(ctx: NotificationContext, bodies: JobSpecs, api_url: str | None, changes: Iterable[Change]) -> None:
    """Of each end that somebody wants to hear of. A change that comes again sends nothing new.

    Raises:
        NotSetAside: the stream must give the records again.
    """
    tell = partial(_tell, ctx, bodies, api_url)
    for_each_change(ctx.clock, ctx.queues, ctx.log, changes, tell, "not sent word of")


def _tell(ctx: NotificationContext, bodies: JobSpecs, api_url: str | None, before: Job | None, after: Job) -> None:
    if not after.notifies or not after.status.is_terminal or (before is not None and before.status is after.status):
        return
    body = bodies.get(after.id)
    if body is None:  # deleted meanwhile, and whom to tell with it
        ctx.log("nobody was sent word: the body is gone", job_id=after.id, tenant=after.tenant)
        return
    enqueue_deliveries(ctx, after.tenant, after.id, parse_recipients(body.webhook_url, body.notify), job_ended_message(after, api_url))
