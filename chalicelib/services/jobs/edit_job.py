"""Change a job that has not ended: move its start, its expiry, its lane; replace its tags and metadata."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest, JobNotChangeable, JobNotFound, PreconditionFailed, StaleVersion
from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up, starts_at
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import COMPLETED_RETENTION_DAYS
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.services.context import JobContext
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up

MAX_EXPIRY_MS = 30 * DAY_MS


def edit_job(
    ctx: JobContext, job: Job, wanted: JobEdit, metadata: dict[str, Any] | None = None, versions: Collection[int] | None = None
) -> Job:
    """The head with the changes. `versions`: what it may be to be changed at all, None for any.

    The body is kept longer before the head says that it will be needed; new metadata is put after the head, by its version, so that of two
    who change it at once the later head's stays.

    Raises:
        PreconditionFailed: it is at none of the versions; or somebody else changed its metadata at the very same moment.
        InvalidRequest: it would expire before it may begin.
        JobNotChangeable: it has ended; or its start is to be moved, and it waits for no time.
        JobNotFound: it was deleted meanwhile.
    """

    def change(seen: Job) -> Job | None:
        if versions is not None and seen.version not in versions:
            raise PreconditionFailed
        _check_expiry(seen, wanted, ctx.clock.now())
        new = apply_edit(seen, wanted, ctx.clock.now())
        if new is not None and new.expires_at > seen.expires_at:
            ctx.job_specs.extend_ttl(seen.id, (new.expires_at + COMPLETED_RETENTION_DAYS * DAY_MS) // 1000)
        return new

    before = job
    changed = update_job(ctx.jobs, job, change)
    if changed is None:
        now = ctx.jobs.get(job.id)
        raise JobNotFound(job.id) if now is None else JobNotChangeable(_why_not(now))
    if metadata is not None:
        _put_metadata(ctx, changed, metadata)
    if needs_wake_up(before, changed):
        try_send_wake_up(ctx, changed)
    return changed


def _check_expiry(job: Job, wanted: JobEdit, now: Ms) -> None:
    if wanted.expires_at is None or job.status.is_terminal:
        return
    start = starts_at(job, wanted, now)
    if wanted.expires_at <= start:
        raise InvalidRequest(details=(Detail("expires_at", "must be after now, and after the job may begin"),))
    if wanted.expires_at > start + MAX_EXPIRY_MS:
        raise InvalidRequest(details=(Detail("expires_at", "must be within 30 days of when the job may begin"),))


def _why_not(job: Job) -> str:
    if job.status.is_terminal:
        return f"A {job.status.value} job cannot be changed."
    return f"The start of a {job.status.value} job cannot be moved; only of one that waits for its time."


def _put_metadata(ctx: JobContext, job: Job, metadata: dict[str, Any]) -> None:
    body = ctx.job_specs.get(job.id)
    if body is None:
        return
    try:
        ctx.job_specs.replace(job.id, job.tenant, replace(body, metadata=metadata), job.version)
    except StaleVersion as stale:  # two heads of one millisecond that say the same: only their bodies tell who was first
        raise PreconditionFailed from stale
