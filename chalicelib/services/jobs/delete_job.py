"""Delete an ended job: mark its record as deleted, remove its data, remove the record.

After a crash in between, the deletion can be repeated: while data is left the record is there,
marked as deleted, so nothing restarts the job. Once the record is gone no late write creates it
again (protocol rule 25: no unconditional update of a record).
"""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.errors import JobNotDeletable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import JobData
from chalicelib.services.notifications.job_ends import JobEndContext, notify_before_change
from chalicelib.services.update_job import update_job


class DeleteContext(JobEndContext, Protocol):
    """What deleting a job needs."""

    @property
    def job_data(self) -> JobData: ...


def delete_job(ctx: DeleteContext, job: Job, generation: int | None = None) -> None:
    """Delete the job and all its data. Repeating it succeeds.

    Args:
        generation: as the caller saw it; a job that was restarted since is not deleted. None: any.

    Raises:
        JobNotDeletable: the job has not ended, or was restarted.
        Unavailable: data may be left; repeat it.
    """

    def mark(seen: Job) -> Job | None:
        if generation not in (None, seen.generation):
            return None
        notify_before_change(ctx, seen)
        return transitions.mark_deleted(seen, ctx.clock.now())

    marked = update_job(ctx.jobs, job, mark)
    if marked is None:
        if ctx.jobs.get(job.id) is None:
            return  # a concurrent deletion has completed
        raise JobNotDeletable
    ctx.job_data.delete_all(job.id, job.tenant)
    ctx.jobs.delete(marked)
