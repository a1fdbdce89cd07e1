"""Delete an ended job: mark the head, remove the page, remove the head.

In this order, so that a crash anywhere leaves what can be repeated: while anything is kept of it the head is there and says that it is
deleted, so nothing starts it again; and once the head is gone, no late write makes one, because every write needs its version [25].
"""

from __future__ import annotations

from chalicelib.domain.errors import JobNotDeletable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Clock, JobData, Jobs
from chalicelib.services.update_job import update_job


def delete_job(clock: Clock, jobs: Jobs, pages: JobData, job: Job, generation: int | None = None) -> None:
    """Returns when nothing is kept of it. Repeating it, from wherever it was left, succeeds.

    `generation` is what the caller saw: a job that was started again since is not deleted.

    Raises:
        JobNotDeletable: it has not ended, or was started again.
        Unavailable: something may be left; repeat it.
    """

    def forget(seen: Job) -> Job | None:
        return transitions.mark_deleted(seen, clock.now()) if generation in (None, seen.generation) else None

    forgotten = update_job(jobs, job, forget)
    if forgotten is None:
        if jobs.get(job.id) is None:
            return  # somebody else has done it meanwhile
        raise JobNotDeletable
    pages.delete_all(job.id, job.tenant)
    jobs.delete(forgotten)
