"""Read several job records, and postpone those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs
from chalicelib.services.log import Log


def load_jobs(jobs: Jobs, log: Log, ids: Sequence[str], retry_at: Ms, *, consistent: bool = False) -> list[Job]:
    """Return the records that exist. A record that cannot be read, such as one that another version
    of the code wrote, is left out and postponed until `retry_at`, so that it does not hide the
    others.

    Raises:
        Unavailable: the store did not answer.
    """
    try:
        return jobs.get_many(ids, consistent=consistent)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - one record is broken; reading each alone finds it
        if len(ids) > 1:
            return [job for job_id in ids for job in load_jobs(jobs, log, [job_id], retry_at, consistent=consistent)]
        log("job_record_unreadable", job_id=ids[0], error=exc)
        jobs.postpone(ids[0], retry_at)
        return []
