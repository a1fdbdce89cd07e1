"""Move a job's head on: the one way in which a record changes after it was made."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Jobs

MAX_ATTEMPTS = 10  # each lost round means that somebody else moved the record on


def update_job(jobs: Jobs, job: Job, change: Callable[[Job], Job | None]) -> Job | None:
    """Write `change(job)`, deciding afresh on whatever is there if the record moved on meanwhile.

    Returns the head as it is now: the changed one, or the same one if `change` finds nothing to do; None if `change` does not allow it.

    Raises:
        Throttled: it moved on ten times in a row.
        Unavailable: the store could not be reached; the write may or may not have happened.
    """
    for _ in range(MAX_ATTEMPTS):
        new = change(job)
        if new is None or new is job:
            return new
        try:
            jobs.replace(job, new)
        except StaleVersion as stale:
            if stale.current is None:
                return None
            job = stale.current
        else:
            return new
    raise Throttled
