"""Decide which due jobs of a deep queue only wait for their turn.

Workers report how far they have got through the queue, tenant by tenant, since a fair queue does not
deliver in the order of all. Jobs that were queued after that are still behind it; the sweeper would
send each of them another wake-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from chalicelib.domain.units import Ms

UNMARKED_MS = 900_000  # how long a job of a tenant without a watermark may wait in a deep queue


def ready_at(job: Job) -> Ms:
    """Return when a job became ready for a worker."""
    return max(job.queued_at, job.resume_at or 0)


def watermarks(jobs: Iterable[Job]) -> dict[str, Ms]:
    """Return for each tenant when its longest waiting job of one invocation became ready."""
    marks: dict[str, Ms] = {}
    for job in jobs:
        marks[job.tenant] = min(marks.get(job.tenant, ready_at(job)), ready_at(job))
    return marks


def newest(reports: Iterable[Mapping[str, Ms]]) -> dict[str, Ms]:
    """Return the newest watermark of each tenant that has one."""
    marks: dict[str, Ms] = {}
    for report in reports:
        for tenant, mark in report.items():
            marks[tenant] = max(marks.get(tenant, 0), mark)
    return marks


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is known of the messages that wait in a queue."""

    is_deep: bool = False  # whether there are any, and workers that read them; otherwise a wake-up that is missing is lost
    marks: Mapping[str, Ms] = field(default_factory=dict)  # the newest watermark of each tenant that has one
    of_all: Ms = 0  # the same of workers of the previous version, which report one for all tenants; 0: none

    def waits(self, job: Job, now: Ms) -> bool:
        """Whether a job's wake-up is, as far as anybody knows, still behind others in the queue.

        So it is behind its tenant's watermark; without one, for a quarter of an hour.
        """
        if not self.is_deep or job.status is not Status.QUEUED or now >= job.expires_at:
            return False
        mark = self.marks.get(job.tenant, self.of_all)
        return ready_at(job) >= mark if mark else now - ready_at(job) < UNMARKED_MS

    def due_until(self, until: Ms, now: Ms) -> Ms:
        """Return the `due_at` up to which jobs have to be read: all that are due later only wait.

        Args:
            until: the `due_at` up to which jobs are due now.
            now: the current time.
        """
        if not self.is_deep:
            return until
        oldest_to_check = max(now - UNMARKED_MS + 1, self.of_all, *self.marks.values())
        return min(until, oldest_to_check + QUEUED_CHECK_DELAY_MS - 1)
