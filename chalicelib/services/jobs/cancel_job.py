"""Cancel a job: at once, or by a request to the worker that runs it, which stores its text and
usage (protocol rule 10: a running job is cancelled by its owner).
"""

from __future__ import annotations

from collections.abc import Collection

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Clock, Jobs, Subscriptions
from chalicelib.services.update_job import update_job


def cancel_job(clock: Clock, jobs: Jobs, subscriptions: Subscriptions, job: Job, only: Collection[Status] | None = None) -> Job:
    """Cancel the job, and return its record: terminal, or with `cancel_requested`. Idempotent.

    A job that has ended is returned unchanged.

    Args:
        only: leave a job in any other status unchanged; None: any status.
    """
    cancelled = update_job(jobs, job, lambda seen: transitions.cancel(seen, clock.now()) if only is None or seen.status in only else None)
    if cancelled is None:
        return jobs.get(job.id) or job
    if not cancelled.status.is_terminal:
        subscriptions.request_cancel(job.id, cancelled.generation, clock.now() // 1000 + 86_400)
    return cancelled
