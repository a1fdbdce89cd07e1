"""What a person may still change on a job that has not ended: when it may begin, by when it must have begun, its lane, its tags.

Pure functions from head to head, as in `transitions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chalicelib.domain.jobs.job import START_LATER, Job, Status
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS, first_check_at, is_claimable, waits_for_parents
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms

LANE_ORDER = tuple(LANES)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEdit:
    """What is to be changed; None leaves it as it is. `body`: the job's content changes with it, so the version must."""

    run_at: Ms | None = None
    expires_at: Ms | None = None
    lane: str | None = None
    tags: tuple[str, ...] | None = None
    body: bool = False


def apply_edit(job: Job, wanted: JobEdit, now: Ms) -> Job | None:
    """The head with the changes; the same one if it says all that already; None if it allows one of them no more.

    A job whose start is moved must begin and be tried as long after its new time as after the old one, unless `expires_at` says more.
    """
    if job.status.is_terminal:
        return None
    new: Job | None = job
    if wanted.run_at is not None:
        new = _begin_at(job, wanted.run_at, now)
    if new is None:
        return None
    if wanted.lane is not None and wanted.lane != new.lane:
        new = _in_lane(new, wanted.lane, now)
    if wanted.expires_at is not None:
        new = replace(new, expires_at=wanted.expires_at)
    if wanted.tags is not None:
        new = replace(new, tags=wanted.tags)
    return job if new == job and not wanted.body else replace(new, version=job.version + 1, updated_at=now)


def starts_at(job: Job, wanted: JobEdit, now: Ms) -> Ms:
    """When the job may begin, once it is changed: before that it cannot expire."""
    waits = job.resume_at if job.status is Status.WAITING else None
    return max(now, wanted.run_at if wanted.run_at is not None else waits or 0)


def needs_wake_up(before: Job, after: Job) -> bool:
    """Whether a change is to be told to a queue: what waits begins at another time, or in another lane."""
    moved = (before.lane, before.resume_at, before.status) != (after.lane, after.resume_at, after.status)
    return moved and is_claimable(after)


def _begin_at(job: Job, at: Ms, now: Ms) -> Job | None:
    """Move the start of what waits for its time. Later disowns the wake-up that would come too early [17]; sooner needs only another."""
    if job.status is Status.QUEUED and job.started_at is None and at <= now:
        return job  # it has been started already
    if waits_for_parents(job):
        return _begin_after_parents(job, at, now)
    if job.status is not Status.WAITING or job.reason != START_LATER or job.resume_at is None:
        return None
    if at == job.resume_at:
        return job
    start, disowned = max(at, now), job.generation + (at > job.resume_at)
    shift = start - job.resume_at
    moved = replace(job, generation=disowned, queued_at=start, expires_at=job.expires_at + shift, retry_until=job.retry_until + shift)
    if at <= now:
        return replace(moved, status=Status.QUEUED, reason=None, resume_at=None, due_at=now + QUEUED_CHECK_DELAY_MS)
    return replace(moved, resume_at=start, due_at=first_check_at(start, now))


def _begin_after_parents(job: Job, at: Ms, now: Ms) -> Job:
    """Move the start of what waits for its parents as well: it waits on, and no wake-up of it is under way."""
    until = at if at > now else None
    if until == job.resume_at:
        return job
    start = until or now
    shift = start - job.queued_at
    return replace(job, resume_at=until, queued_at=start, expires_at=job.expires_at + shift, retry_until=job.retry_until + shift)


def _in_lane(job: Job, lane: str, now: Ms) -> Job:
    """Move up: a wake-up more, in the better lane, and whichever comes first counts. Down: the one in the better lane is disowned [17]."""
    if not is_claimable(job):
        return replace(job, lane=lane)
    down = LANE_ORDER.index(lane) > LANE_ORDER.index(job.lane)
    return replace(job, lane=lane, generation=job.generation + down, due_at=first_check_at(max(now, job.resume_at or 0), now))
