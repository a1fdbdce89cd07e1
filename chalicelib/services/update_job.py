"""Change a job record: the one way in which it changes after it was created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Jobs
from chalicelib.services.compare_and_swap import update


def update_job(jobs: Jobs, job: Job, change: Callable[[Job], Job | None], limits: Mapping[str, int] | None = None) -> Job | None:
    """Write `change(job)`, deciding again on the newer record if another writer came first.

    Args:
        limits: how many slots each key has that the change takes.

    Returns: the record as it is now: changed, or the same object if `change` found nothing to do;
    None if `change` does
        not allow it or the job is gone.

    Raises:
        SlotsFull: all slots of a key are taken. Nothing was written.
        Throttled: other writers came first ten times in a row.
        Unavailable: the store could not be reached; the write may or may not have happened.
    """
    return update(jobs.replace if limits is None else partial(jobs.replace, limits=limits), job, change)
