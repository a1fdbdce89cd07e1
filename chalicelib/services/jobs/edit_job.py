"""Edit a job that has not ended: its start time, expiry, lane, tags and metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from chalicelib.domain.errors import Detail, InvalidRequest, JobNotChangeable, JobNotFound, PreconditionFailed, StaleVersion
from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up, starts_at
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import spec_ttl
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.services.context import JobContext
from chalicelib.services.limits.places import PlaceContext, Places, take_places
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up

MAX_EXPIRY_MS = 30 * DAY_MS


class EditContext(PlaceContext, JobContext, Protocol):
    """What editing a job needs."""


def edit_job(
    ctx: EditContext, job: Job, edit: JobEdit, metadata: dict[str, Any] | None = None, versions: Collection[int] | None = None
) -> Job:
    """Edit the job, and return its record.

    The expiry of the job spec is extended before the job record needs it. New metadata is written
    after the record, by its version, so that of two concurrent edits the later record's metadata
    stays.

    Args:
        metadata: replaces the metadata; None: unchanged.
        versions: edit only a record with one of these versions; None: any.

    Raises:
        PreconditionFailed: the record has another version, or a concurrent edit changed the
            metadata.
        InvalidRequest: the job would expire before it may start.
        JobNotChangeable: the job has ended, or its start cannot be moved because it waits for no
            start time.
        JobNotFound: the job was deleted meanwhile.
        QueueFull: its tenant has as many jobs in the other lane as it may.
    """

    def edit_with(places: Places | None, limits: Mapping[str, int] | None) -> Job | None:
        return update_job(ctx.jobs, job, partial(change, places), limits or None)

    def change(places: Places | None, seen: Job) -> Job | None:
        if versions is not None and seen.version not in versions:
            raise PreconditionFailed
        _check_expiry(seen, edit, ctx.clock.now())
        new = apply_edit(seen, edit, ctx.clock.now(), places)
        if new is not None and new.expires_at > seen.expires_at:
            ctx.job_specs.extend_ttl(seen.id, spec_ttl(new))
        return new

    if edit.lane is None or edit.lane == job.lane or job.status.is_terminal:
        changed = edit_with(None, None)
    else:
        changed = take_places(ctx, job.tenant, edit.lane, job.id, edit_with, kept=job.places)
    if changed is None:
        current = ctx.jobs.get(job.id)
        raise JobNotFound(job.id) if current is None else JobNotChangeable(_refusal_message(current))
    if metadata is not None:
        _put_metadata(ctx, changed, metadata)
    if needs_wake_up(job, changed):
        try_send_wake_up(ctx, changed)
    return changed


def _check_expiry(job: Job, edit: JobEdit, now: Ms) -> None:
    if edit.expires_at is None or job.status.is_terminal:
        return
    start = starts_at(job, edit, now)
    if edit.expires_at <= start:
        raise InvalidRequest(details=(Detail("expires_at", "must be after now, and after the job may begin"),))
    if edit.expires_at > start + MAX_EXPIRY_MS:
        raise InvalidRequest(details=(Detail("expires_at", "must be within 30 days of when the job may begin"),))


def _refusal_message(job: Job) -> str:
    if job.status.is_terminal:
        return f"A {job.status.value} job cannot be changed."
    return f"The start of a {job.status.value} job cannot be moved; the job waits for no start time."


def _put_metadata(ctx: JobContext, job: Job, metadata: dict[str, Any]) -> None:
    spec = ctx.job_specs.get(job.id)
    if spec is None:
        return
    try:
        ctx.job_specs.replace(job.id, job.tenant, replace(spec, metadata=metadata), job.version)
    except StaleVersion as stale:  # a concurrent equal edit: only the spec tells which came first
        raise PreconditionFailed from stale
