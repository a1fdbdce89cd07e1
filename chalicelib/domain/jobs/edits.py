"""Change the start time, expiry, lane or tags of a job that has not ended.

Pure functions from job record to job record, as in `transitions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chalicelib.domain.jobs.job import START_LATER, Job, Status
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS, first_check_at, is_claimable, latest_start, waits_for_parents
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms

LANE_ORDER = tuple(LANES)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEdit:
    """The requested changes; a field that is None stays as it is."""

    run_at: Ms | None = None
    expires_at: Ms | None = None
    lane: str | None = None
    tags: tuple[str, ...] | None = None
    changes_spec: bool = False  # the job spec changes too, so the version must grow in any case


def apply_edit(job: Job, edit: JobEdit, now: Ms, places: tuple[str, ...] | None = None) -> Job | None:
    """Return the edited record; the same object if nothing changes; None if that is not allowed.

    Moving the start moves the expiry and the end of its retries by the same time, unless
    `expires_at` is set.

    Args:
        places: the places in the queue of its tenant after a change of lane; None: those that it has.
    """
    if job.status.is_terminal:
        return None
    new: Job | None = job
    if edit.run_at is not None:
        new = _move_start(job, edit.run_at, now)
    if new is None:
        return None
    if edit.lane is not None and edit.lane != new.lane:
        new = replace(_move_to_lane(new, edit.lane, now), places=new.places if places is None else places)
    if edit.expires_at is not None:
        new = replace(new, expires_at=edit.expires_at)
    if edit.tags is not None:
        new = replace(new, tags=edit.tags)
    if new.is_in_line:  # it is due when it may wait no longer
        new = replace(new, due_at=latest_start(new) or new.due_at)
    return job if new == job and not edit.changes_spec else replace(new, version=job.version + 1, updated_at=now)


def starts_at(job: Job, edit: JobEdit, now: Ms) -> Ms:
    """Return the earliest start of the edited job; it must not expire before."""
    current = job.resume_at if job.status is Status.WAITING else None
    return max(now, edit.run_at if edit.run_at is not None else current or 0)


def needs_wake_up(before: Job, after: Job) -> bool:
    """Whether an edit needs another wake-up: the job starts at another time or in another queue."""
    moved = (queue_of(before), before.resume_at, before.status) != (queue_of(after), after.resume_at, after.status)
    return moved and is_claimable(after)


def _move_start(job: Job, at: Ms, now: Ms) -> Job | None:
    """Move the start of a waiting job.

    A later start adds to the generation, so that the pending wake-up, which would come too early,
    is dropped; an earlier start only needs another wake-up (protocol rule 17: resending keeps the
    generation).
    """
    if job.status is Status.QUEUED and job.started_at is None and at <= now:
        return job  # an earlier request has started it
    if waits_for_parents(job):
        return _move_start_after_parents(job, at, now)
    if job.status is not Status.WAITING or job.reason != START_LATER or job.resume_at is None:
        return None
    if at == job.resume_at:
        return job
    start, generation = max(at, now), job.generation + (at > job.resume_at)
    delta = start - job.resume_at
    moved = replace(job, generation=generation, queued_at=start, expires_at=job.expires_at + delta, retry_until=job.retry_until + delta)
    if at <= now:
        return replace(moved, status=Status.QUEUED, reason=None, resume_at=None, due_at=now + QUEUED_CHECK_DELAY_MS)
    return replace(moved, resume_at=start, due_at=first_check_at(start, now))


def _move_start_after_parents(job: Job, at: Ms, now: Ms) -> Job:
    """Move the start of a job that also waits for its parents. It has no pending wake-up to drop."""
    until = at if at > now else None
    if until == job.resume_at:
        return job
    start = until or now
    delta = start - job.queued_at
    return replace(job, resume_at=until, queued_at=start, expires_at=job.expires_at + delta, retry_until=job.retry_until + delta)


def _move_to_lane(job: Job, lane: str, now: Ms) -> Job:
    """Move a job to another lane.

    Up: it gets another wake-up, and the first of the two to arrive counts. Down: the generation
    grows, so that the pending wake-up in the faster lane is dropped (protocol rule 17: resending
    keeps the generation). A task stays in the queue of tasks, and keeps its wake-up.
    """
    if job.is_task or not is_claimable(job):
        return replace(job, lane=lane)
    down = LANE_ORDER.index(lane) > LANE_ORDER.index(job.lane)
    return replace(job, lane=lane, generation=job.generation + down, due_at=first_check_at(max(now, job.resume_at or 0), now))
