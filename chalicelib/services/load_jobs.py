"""Read heads together, even if some of them cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs
from chalicelib.services.log import Log


def load_jobs(jobs: Jobs, log: Log, ids: Sequence[str], again: Ms, *, consistent: bool = False) -> list[Job]:
    """The heads that exist. A record that another version of the code has written, or a person, hides no other: it is put off until
    `again` without being read.

    Raises:
        Unavailable: the store did not answer.
    """
    try:
        return jobs.get_many(ids, consistent=consistent)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - one of them is wrong: which, is seen when each is read alone
        if len(ids) > 1:
            return [job for job_id in ids for job in load_jobs(jobs, log, [job_id], again, consistent=consistent)]
        log("job_record_unreadable", job_id=ids[0], error=exc)
        jobs.postpone(ids[0], again)
        return []
