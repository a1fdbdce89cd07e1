"""Stop a job: at once if nobody works on it, else by asking the worker, which keeps the text and the usage [10]."""

from __future__ import annotations

from collections.abc import Collection

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Clock, Jobs, Subscriptions
from chalicelib.services.update_job import update_job


def cancel_job(clock: Clock, jobs: Jobs, watchers: Subscriptions, job: Job, only: Collection[Status] | None = None) -> Job:
    """The head afterwards: terminal, or with `cancel_requested`. Asking twice does no harm; an ended job stays as it is, and so does one
    that is in none of the states `only`, if they are said.
    """
    cancelled = update_job(jobs, job, lambda seen: transitions.cancel(seen, clock.now()) if only is None or seen.status in only else None)
    if cancelled is None:
        return jobs.get(job.id) or job
    if not cancelled.status.is_terminal:
        watchers.request_cancel(job.id, cancelled.generation, clock.now() // 1000 + 86_400)
    return cancelled
