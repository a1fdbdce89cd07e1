"""Read several job records, of which another version of the code may have written some.

`Jobs.get_many` refuses such a batch as a whole, because an absent record means that its job was
deleted. Whoever can do without the unreadable ones reads here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs
from chalicelib.services.log import Log


@dataclass(frozen=True, slots=True)
class LoadedJobs:
    """The records that exist, and the ids of those that exist and cannot be read."""

    jobs: list[Job]
    unreadable: frozenset[str] = frozenset()


def load_readable_jobs(jobs: Jobs, log: Log, ids: Sequence[str], *, consistent: bool = False) -> LoadedJobs:
    """Read records, in the order asked for. Each one that cannot be read is logged.

    One request for each hundred, and once more if some cannot be read.

    Raises:
        Unavailable: the store did not answer.
    """
    left, unreadable = list(ids), set[str]()
    while left:
        try:
            return LoadedJobs(jobs.get_many(left, consistent=consistent), frozenset(unreadable))
        except UnreadableRecord as exc:
            found = {job_id: exc.problems[job_id] for job_id in left if job_id in exc.problems}
            if not found:  # it is about something else, and would be raised again
                raise
            for job_id, reason in found.items():
                log("job_record_unreadable", job_id=job_id, reason=reason)
            unreadable |= set(found)
            left = [job_id for job_id in left if job_id not in found]
    return LoadedJobs([], frozenset(unreadable))


def load_jobs(jobs: Jobs, log: Log, ids: Sequence[str], retry_at: Ms, *, consistent: bool = False) -> list[Job]:
    """Return the records that exist. One that cannot be read is left out and postponed until
    `retry_at`, so that it is not met at every run.

    Raises:
        Unavailable: the store did not answer.
    """
    loaded = load_readable_jobs(jobs, log, ids, consistent=consistent)
    for job_id in loaded.unreadable:
        jobs.postpone(job_id, retry_at)
    return loaded.jobs
