"""Create the jobs of a wave. Job ids are computed from the rows, so no job is created twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import HeadraceError, JobTypeNotFound, QueueFull, Unavailable, UnreadableRecord
from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.dependencies import CANCEL
from chalicelib.domain.jobs.job import Job, JobError, Status
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import queue_for, queue_of
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import OTHER_RETENTION_DAYS, is_claimable, spec_ttl, waits_for_parents
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import DAY_MS
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.dependencies.release_dependents import record_dependencies, resolve_dependencies
from chalicelib.services.jobs.plan_job import Plan, plan_job
from chalicelib.services.jobs.submit_job import new_job
from chalicelib.services.limits.places import Places, take_places
from chalicelib.services.load_jobs import LoadedJobs, load_readable_jobs


class LaneFull(HeadraceError):
    """The lane of some rows holds as many jobs as it may; they have no jobs yet.

    Attributes:
        jobs: those of the other rows.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.jobs = list(jobs)


class RowsExpired(HeadraceError):
    """The rows of this batch are no longer stored."""


def base_submission_of(batch: Batch, options: dict[str, Any]) -> Submission:
    """Return the part of a submission that all rows of a batch share."""
    return Submission(job_type=batch.type, priority=batch.lane, options=options["options"], config=options["config"])


def submission_of(base: Submission, row: Row, row_jobs: Mapping[str, str]) -> Submission:
    """Return the submission of a row.

    Args:
        base: the part that all rows share.
        row_jobs: job ids by row id, for parents within the batch; any other parent is a job id.
    """
    return replace(
        base,
        prompt=row.prompt,
        input=row.input,
        priority=row.priority or base.priority,
        metadata=dict(row.metadata),
        depends_on={parent: row_jobs.get(parent, parent) for parent in row.depends_on},
        on_parent_failure=row.on_parent_failure or CANCEL,
        values=dict(row.values),
    )


@dataclass(frozen=True, slots=True)
class RowDefaults:
    """What all rows of a batch share."""

    base: Submission
    row_jobs: Mapping[str, str]  # job ids, by row id, of the rows that other rows depend on

    @classmethod
    def of(cls, batch: Batch, options: dict[str, Any]) -> RowDefaults:
        row_jobs = {row_id: job_id_of_row(batch.id, number) for row_id, number in options.get("rows", {}).items()}
        return cls(base_submission_of(batch, options), row_jobs)


def submitter(batch: Batch) -> Caller:
    """Return the caller that submitted the batch; its rows are submitted with the same rights."""
    return Caller(tenant=batch.tenant, user=batch.user, role=Role.named(batch.role), key_id=batch.key_id, key_hash="")


def rows_in_wave(ctx: BatchContext, batch: Batch) -> list[Row]:
    """Return the rows of the open wave. A wave lies within one stored object.

    Raises:
        RowsExpired: the rows are no longer stored.
    """
    part = ctx.batch_rows.get_part(batch.tenant, batch.id, batch.released // ROWS_PER_OBJECT)
    if part is None:
        raise RowsExpired
    start = batch.released % ROWS_PER_OBJECT
    return part[start : start + batch.wave_end - batch.released]


def release_rows(ctx: BatchContext, batch: Batch, defaults: RowDefaults, rows: Sequence[Row], *, resumed: bool) -> list[Job]:
    """Create the jobs of these rows, send their wake-ups and resolve their dependencies.

    A row whose lane is full gets no job yet; the others do.

    Args:
        resumed: an earlier caller may have created some of the jobs.

    Raises:
        LaneFull: the lanes of some rows are full; repeat the call later, as `resumed`.
        Unavailable: some jobs may not have been created.
    """
    ids = [job_id_of_row(batch.id, row.number) for row in rows]
    loaded = load_readable_jobs(ctx.jobs, ctx.log, ids, consistent=True) if resumed else LoadedJobs([])
    existing = {job.id for job in loaded.jobs} | loaded.unreadable
    new = [row for row, job_id in zip(rows, ids, strict=True) if job_id not in existing]
    full = _full_queues(ctx, batch, defaults.base, new)
    created = ctx.parallel_map(partial(_try_to_create, ctx, batch, defaults, full), new)
    jobs = [*loaded.jobs, *(job for job in created if job is not None)]
    _send_wake_ups(ctx, batch, jobs)
    for job in jobs:
        _resolve_dependencies(ctx, job)
    if None in created:
        raise LaneFull(jobs)
    return jobs


def _full_queues(ctx: BatchContext, batch: Batch, base: Submission, rows: Sequence[Row]) -> set[str]:
    """Return the queues of these rows that hold as many messages as they may."""
    queues = {queue_for(row.priority or base.priority, is_task=batch.model == NO_MODEL) for row in rows}
    return {queue for queue in queues if ctx.queues.depth(queue) >= ctx.max_lane_depth}


def _try_to_create(ctx: BatchContext, batch: Batch, defaults: RowDefaults, full: set[str], row: Row) -> Job | None:
    """Create the job of a row; None if its lane is full, for all tenants or for this one.

    Args:
        full: queues and lanes that are known to be full; one that is found full is added.
    """
    lane = row.priority or defaults.base.priority
    if {lane, queue_for(lane, is_task=batch.model == NO_MODEL)} & full:
        return None
    try:
        return _create_job(ctx, batch, defaults, submitter(batch), row)
    except QueueFull:
        full.add(lane)
        return None


def _create_job(ctx: BatchContext, batch: Batch, defaults: RowDefaults, caller: Caller, row: Row) -> Job:
    """Write job spec, dependency record and job record (protocol rule 24: object, record, message).

    A row that cannot be planned gets a failed job without a spec, so that a retry does not send an
    invalid request. An unknown type is no reason on the batch's first day: a newer version of the
    code may have accepted the batch.

    Raises:
        JobTypeNotFound: as above; the batch is tried again later.
        QueueFull: the tenant has as many jobs in the lane as it may.
        Unavailable: the job may not have been created.
    """
    job_id, now = job_id_of_row(batch.id, row.number), ctx.clock.now()
    shards = ctx.limits_of(batch.tenant).shards_at(now)
    submission = submission_of(defaults.base, row, defaults.row_jobs)
    try:
        plan = plan_job(ctx.job_type, ctx.prices, caller, submission, 0, ctx.throughput_of)
    except Unavailable:
        raise
    except Exception as exc:
        if isinstance(exc, JobTypeNotFound) and now < batch.created_at + DAY_MS:
            raise
        job = _failed_job(batch, submission, job_id, exc if isinstance(exc, HeadraceError) else _unforeseen(ctx, batch, job_id, exc), now)
        ctx.jobs.create(replace(job, shards=shards))
        return job
    planned = replace(_planned_job(batch, caller, submission, plan, job_id, now), shards=shards)

    def create(places: Places, limits: Mapping[str, int]) -> Job:
        job = replace(planned, places=places)
        ctx.job_specs.put(job.id, job.tenant, plan.spec, spec_ttl(job))
        if waits_for_parents(job):
            record_dependencies(ctx, job, plan.spec)
        ctx.jobs.create(job, limits=limits)
        return job

    return take_places(ctx, planned.tenant, planned.lane, planned.id, create)


def _resolve_dependencies(ctx: BatchContext, job: Job) -> None:
    """Resolve the dependencies after the job record is written: parents may have ended already."""
    try:
        resolve_dependencies(ctx, job)
    except (Unavailable, UnreadableRecord) as exc:  # the job exists, and is due for the sweeper
        ctx.log("dependencies_not_resolved", job_id=job.id, tenant=job.tenant, error=exc)


def _planned_job(batch: Batch, caller: Caller, submission: Submission, plan: Plan, job_id: str, now: int) -> Job:
    """Return the job of a row, without a dedupe key, because equal rows must all run."""
    return replace(new_job(job_id, caller, submission, plan, now), batch_id=batch.id, dedupe_key=None)


def _unforeseen(ctx: BatchContext, batch: Batch, job_id: str, exc: Exception) -> AttemptFailed:
    """Log an unforeseen error, and return the error that the user sees."""
    ctx.log("row_submission_failed", job_id=job_id, batch_id=batch.id, tenant=batch.tenant, error=exc)
    return AttemptFailed("No job could be created from this row.")


def _failed_job(batch: Batch, submission: Submission, job_id: str, exc: HeadraceError, now: int) -> Job:
    """Return a failed job for a row that was valid when the batch was submitted and is not now."""
    error = JobError(
        code=exc.code,
        error_class=exc.error_class if isinstance(exc, AttemptFailed) else "invalid_request",
        retryable=False,
        message="; ".join(f"{detail.path} {detail.message}" for detail in exc.details)[:300] or exc.message,
        suggestion="Correct the row and submit it again.",
        attempt=0,
    )
    return Job(
        id=job_id,
        tenant=batch.tenant,
        user=batch.user,
        key_id=batch.key_id,
        type=batch.type,
        lane=submission.priority,
        model=batch.model,
        status=Status.FAILED,
        created_at=now,
        queued_at=now,
        updated_at=now,
        finished_at=now,
        expires_at=now + DAY_MS,
        due_at=None,
        error=error,
        length=0,
        batch_id=batch.id,
        ttl=now // 1000 + OTHER_RETENTION_DAYS * 86_400,
    )


def _send_wake_ups(ctx: BatchContext, batch: Batch, jobs: Sequence[Job]) -> None:
    queues: defaultdict[str, list[WakeUp]] = defaultdict(list)
    for job in jobs:
        if is_claimable(job):
            queues[queue_of(job)].append(WakeUp(job.id, job.generation))
    for queue, wake_ups in queues.items():
        try:
            ctx.queues.send_many(queue, wake_ups, batch.tenant)
        except Unavailable as exc:  # the jobs exist, and are due for the sweeper
            ctx.log("wake_ups_not_sent", batch_id=batch.id, tenant=batch.tenant, error=exc)
