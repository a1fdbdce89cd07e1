"""Compute the sort keys of job lists and the partitions of the index of due jobs."""

from __future__ import annotations

from zlib import crc32

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.queue_routing import queue_of

DUE_SHARDS = 8  # of each due partition: every job is written to it, and one shard takes 1,000/s

ENDED = "ended"  # the due partition of ended jobs whose recipients or dependents are not served

# Lists of these statuses are sorted by the time of the end, all others by creation.
LISTED_BY_END = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE})


def sort_key(job: Job, *, by_end: bool) -> str:
    """Return a job's position in a list; sorts as text. Ids sort by creation."""
    return f"{job.finished_at or 0:013d}#{job.id}" if by_end else job.id


def due_partition(job: Job) -> str | None:
    """Return the partition of the due index that holds a job: the name of its queue, `ENDED`, or None.

    Queued and running jobs are in their queue's partition; jobs that wait for a time share the
    partition None. They are apart so that a deep queue does not hide the retries behind it.
    """
    if job.status.is_terminal:
        return ENDED
    return queue_of(job) if job.status in (Status.QUEUED, Status.PROCESSING) else None


def due_shard(job_id: str) -> int:
    """Return the shard of a due partition that holds a job."""
    return crc32(job_id.encode()) % DUE_SHARDS
