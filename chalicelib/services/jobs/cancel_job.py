"""Cancel a job: at once, or by a request to the worker that runs it, which stores its text and
usage (protocol rule 10: a running job is cancelled by its owner).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Jobs, Subscriptions
from chalicelib.services.context import Context
from chalicelib.services.update_job import update_job


class CancelContext(Context, Protocol):
    """What cancelling a job needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def subscriptions(self) -> Subscriptions: ...


def cancel_job(ctx: CancelContext, job: Job, only: Collection[Status] | None = None) -> Job:
    """Cancel the job, and return its record: terminal, or with `cancel_requested`. Idempotent.

    A job that has ended is returned unchanged.

    Args:
        only: leave a job in any other status unchanged; None: any status.
    """

    def cancel(seen: Job) -> Job | None:
        return transitions.cancel(seen, ctx.clock.now()) if only is None or seen.status in only else None

    cancelled = update_job(ctx.jobs, job, cancel)
    if cancelled is None:
        return ctx.jobs.get(job.id) or job
    if not cancelled.status.is_terminal:
        ctx.subscriptions.request_cancel(job.id, cancelled.generation, ctx.clock.now() // 1000 + 86_400)
    return cancelled
