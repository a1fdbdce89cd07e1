"""Compute the sort keys of job lists, and the partitions of the indexes.

The lists of a busy tenant are in several shards, because a partition of an index takes 1,000 writes a
second, and one that is full throttles the table. A job remembers how many its tenant had when it was
submitted, so it stays in its shard when they become more.
"""

from __future__ import annotations

from hashlib import sha256
from zlib import crc32

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.queues.causes import cause_mark
from chalicelib.domain.queues.lanes import LANES

DUE_SHARDS = 8  # of each due partition: every job is written to it, and one shard takes 1,000/s

ENDED = "ended"  # the due partition of ended jobs whose recipients or dependents are not served
IN_LINE = "in_line"  # the due partition of jobs that are held in a line: due when they may wait no longer

# Lists of these statuses are sorted by the time of the end, all others by creation.
LISTED_BY_END = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE})


def sort_key(job: Job, *, by_end: bool) -> str:
    """Return a job's position in a list; sorts as text. Ids sort by creation."""
    return f"{job.finished_at or 0:013d}#{job.id}" if by_end else job.id


def due_partition(job: Job) -> str | None:
    """Return the partition of the due index that holds a job: the name of its queue, `ENDED`,
    `IN_LINE` or None.

    Queued and running jobs are in their queue's partition; jobs that wait for a time share the
    partition None. They are apart so that a deep queue, or a million held jobs, does not hide the
    retries behind it.
    """
    if job.status.is_terminal:
        return ENDED
    if job.is_in_line:
        return IN_LINE
    return queue_of(job) if job.status in (Status.QUEUED, Status.PROCESSING) else None


def due_shard(job_id: str) -> int:
    """Return the shard of a due partition that holds a job."""
    return crc32(job_id.encode()) % DUE_SHARDS


LINE_RANKS = {lane: rank for rank, lane in enumerate(LANES)}  # by the lane of a job: the urgent ones come first


def tenant_shard(job: Job) -> int:
    """Return the shard of its tenant's partitions that holds a job."""
    return crc32(job.id.encode()) % job.shards if job.shards > 1 else 0


def shard_key(partition: str, shard: int) -> str:
    """Return the key of a shard of a tenant's partition. The first one has the name that the partition has without shards."""
    return f"{partition}#{shard}" if shard else partition


def shard_keys(partition: str, shards: int) -> list[str]:
    """Return the keys of all shards of a tenant's partition."""
    return [shard_key(partition, shard) for shard in range(max(1, shards))]


def line_key(tenant: str, cause: str, *, by_user: bool = False) -> str:
    """Return the partition of the index `by_line` with the jobs of one line; see `shard_key`.

    A cause may have two lines of a tenant: one by lane and age, and one by user. `u` is no
    hexadecimal digit, so no key is one of the other kind.
    """
    return f"{tenant}#{cause_mark(cause)}" + ("#u" if by_user else "")


def place_in_line(job: Job) -> str:
    """Return where a job stands in its line: by lane, then by the time since when it is ready. In a
    line by user the user comes first.
    """
    place = f"{LINE_RANKS.get(job.lane, len(LINE_RANKS))}#{job.queued_at:013d}#{job.id}"
    return f"{user_mark(job.user)}#{place}" if job.line_by_user else place


def is_by_user(place: str) -> bool:
    """Whether a place is one in a line by user: the rank of a lane has one digit."""
    return place.find("#") > 1


def user_mark(user: str) -> str:
    """Return what stands for a user in places: short, whatever characters the name has."""
    return sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def user_part(place: str) -> tuple[str, str]:
    """Return the first and the last place, in a line by user, that a job of the same user can have
    before `place`. Places have one length.
    """
    return f"{place.partition('#')[0]}#", place[:-1] + chr(ord(place[-1]) - 1)


def same_lane(place: str) -> str:
    """Return how the places begin, in a line by user, of the jobs of the same user and lane."""
    mark, rank, *_ = place.split("#")
    return f"{mark}#{rank}#"


def behind_lane(place: str) -> str:
    """Return what comes, in a line by user, after all jobs of the same user and lane, and before all others that do."""
    mark, rank, *_ = place.split("#")
    return f"{mark}#{int(rank) + 1}#"
