"""Decide which due jobs of a lane the sweeper checks while its queue is deep.

Workers report a watermark: how far they have got through the queue. Jobs queued after it only wait
for their turn; without the watermark the sweeper would send each of them another wake-up.
"""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from chalicelib.domain.units import Ms


def watermark(jobs: Iterable[Job]) -> Ms:
    """Return when the job that has waited longest became ready, among the jobs of one invocation."""
    return min(max(job.queued_at, job.resume_at or 0) for job in jobs)


def due_cutoff(until: Ms, watermarks: Iterable[Ms], depth: int) -> Ms:
    """Return the `due_at` up to which the sweeper checks the jobs of a lane.

    Jobs that became ready after the newest watermark are behind it in the queue, so none of their
    wake-ups is missing. Without a watermark or without messages in the queue, all due jobs count.

    Args:
        until: the `due_at` up to which jobs are due now.
        watermarks: the latest reports of the lane's workers.
        depth: messages in the lane's queue.
    """
    newest = max(watermarks, default=0)
    if not newest or not depth:
        return until
    return min(until, newest + QUEUED_CHECK_DELAY_MS - 1)
