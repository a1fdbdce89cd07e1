"""The order of lists: by creation, which ids say, or by the end where jobs that have ended badly are asked for; and the parts of the
index of what is due.
"""

from __future__ import annotations

from zlib import crc32

from chalicelib.domain.jobs.job import Job, Status

DUE_SHARDS = 8  # parts of each group: one would take a thousand changes a second, and every job passes through

LISTED_BY_END = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE})


def sort_key(job: Job, *, by_end: bool) -> str:
    """Where a job stands in a list; sorts as text."""
    return f"{job.finished_at or 0:013d}#{job.id}" if by_end else job.id


def due_partition(job: Job) -> str | None:
    """Among what a job is looked at when it is due: the queued and running jobs of its lane, or (None) all that waits for a time.

    They are apart because a deep queue must not hide the retries behind it.
    """
    return job.lane if job.status in (Status.QUEUED, Status.PROCESSING) else None


def due_shard(job_id: str) -> int:
    return crc32(job_id.encode()) % DUE_SHARDS
