"""Job records that another version of the code wrote, on the in-memory twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.adapters.memory.jobs import MemoryJobs
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.jobs.job import Job

REASON = "'flying' is not a valid Status"


def make_unreadable(jobs: MemoryJobs, *ids: str) -> set[str]:
    """Let the records of these jobs exist and be unreadable, as in the real store.

    Returns the set of their ids; a test may take some out again.
    """
    unreadable, get_many, replace = set(ids), jobs.get_many, jobs.replace

    def refuse(asked: Sequence[str]) -> None:
        found = [job_id for job_id in asked if job_id in unreadable and job_id in jobs.records]
        if found:
            raise UnreadableRecord(dict.fromkeys(found, REASON))

    def read(job_id: str) -> Job | None:
        refuse([job_id])
        return jobs.records.get(job_id)

    def read_many(ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        refuse(ids)
        return get_many(ids, consistent=consistent)

    def swap(seen: Job, new: Job, limits: Mapping[str, int] | None = None) -> None:
        refuse([seen.id])
        replace(seen, new, limits)

    members: dict[str, Any] = {"get": read, "get_many": read_many, "replace": swap}
    vars(jobs).update(members)
    return unreadable
