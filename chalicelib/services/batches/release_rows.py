"""Make jobs of the rows of a hand, once: what is there already stays as it is, because the ids are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.dependencies import CANCEL
from chalicelib.domain.jobs.job import Job, JobError, Status
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import COMPLETED_RETENTION_DAYS, OTHER_RETENTION_DAYS, is_claimable, waits_for_parents
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import DAY_MS
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.dependencies.release_dependents import record_dependencies, resolve_dependencies
from chalicelib.services.jobs.plan_job import Plan, plan_job
from chalicelib.services.jobs.submit_job import new_job


class RowsExpired(HeadraceError):
    """The rows of this batch are no longer kept."""


def base_submission_of(batch: Batch, terms: dict[str, Any]) -> Submission:
    """What all rows of a batch have in common."""
    return Submission(job_type=batch.type, priority=batch.lane, options=terms["options"], config=terms["config"])


def submission_of(base: Submission, row: Row, named: Mapping[str, str]) -> Submission:
    """What is submitted for a row. `named` are the jobs of rows by their own names; what is not among them is a job itself."""
    return replace(
        base,
        prompt=row.prompt,
        input=row.input,
        priority=row.priority or base.priority,
        metadata=dict(row.metadata),
        depends_on={parent: named.get(parent, parent) for parent in row.depends_on},
        on_parent_failure=row.on_parent_failure or CANCEL,
        values=dict(row.values),
    )


@dataclass(frozen=True, slots=True)
class RowDefaults:
    """What all rows of a batch have in common: `base` of their submissions, `named` jobs that others depend on."""

    base: Submission
    named: Mapping[str, str]

    @classmethod
    def of(cls, batch: Batch, terms: dict[str, Any]) -> RowDefaults:
        named = {name: job_id_of_row(batch.id, number) for name, number in terms.get("rows", {}).items()}
        return cls(base_submission_of(batch, terms), named)


def submitter(batch: Batch) -> Caller:
    """Whoever submitted the batch, as its rows are submitted now."""
    return Caller(tenant=batch.tenant, user=batch.user, role=Role.named(batch.role), key_id=batch.key_id, key_hash="")


def rows_in_wave(ctx: BatchContext, batch: Batch) -> list[Row]:
    """The rows of the open hand. A hand lies within a part.

    Raises:
        RowsGone: they are no longer there.
    """
    part = ctx.batch_rows.get_part(batch.tenant, batch.id, batch.released // ROWS_PER_OBJECT)
    if part is None:
        raise RowsExpired
    return part[batch.released % ROWS_PER_OBJECT : batch.released % ROWS_PER_OBJECT + batch.wave_end - batch.released]


def release_rows(ctx: BatchContext, batch: Batch, common: RowDefaults, rows: Sequence[Row], *, again: bool) -> list[Job]:
    """The jobs of these rows, made now or, `again`, by whoever played this hand before; each is woken.

    Raises:
        Unavailable: some may not have been made.
    """
    ids = [job_id_of_row(batch.id, row.number) for row in rows]
    there = {job.id: job for job in ctx.jobs.get_many(ids, consistent=True)} if again else {}
    new = [row for row, job_id in zip(rows, ids, strict=True) if job_id not in there]
    jobs = [*there.values(), *ctx.parallel_map(partial(_make, ctx, batch, common, submitter(batch)), new)]
    _wake(ctx, batch, jobs)
    for job in jobs:
        _look_at_parents(ctx, job)
    return jobs


def _make(ctx: BatchContext, batch: Batch, common: RowDefaults, caller: Caller, row: Row) -> Job:
    """The body, whom it waits for, then the head, as with every job. One that is refused has no body: what could be kept is no request,
    and must not be sent as one by a retry.
    """
    job_id, now = job_id_of_row(batch.id, row.number), ctx.clock.now()
    submission = submission_of(common.base, row, common.named)
    try:
        plan = plan_job(ctx.job_type, ctx.prices, caller, submission, 0, ctx.throughput_of)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with one row, the others go on, and the batch has an end
        job = _refused(batch, submission, job_id, exc if isinstance(exc, HeadraceError) else _broke(ctx, batch, job_id, exc), now)
        ctx.jobs.create(job)
        return job
    body, job = _planned(batch, caller, submission, plan, job_id, now)
    ctx.job_specs.put(job.id, job.tenant, body, (job.expires_at + COMPLETED_RETENTION_DAYS * DAY_MS) // 1000)
    if waits_for_parents(job):
        record_dependencies(ctx, job, body)
    ctx.jobs.create(job)
    return job


def _look_at_parents(ctx: BatchContext, job: Job) -> None:
    """Once its head is there: some may have ended already."""
    try:
        resolve_dependencies(ctx, job)
    except Unavailable as exc:  # it is made all the same, and will be looked at
        ctx.log("dependencies_not_resolved", job_id=job.id, tenant=job.tenant, error=exc)


def _planned(batch: Batch, caller: Caller, submission: Submission, plan: Plan, job_id: str, now: int) -> tuple[JobSpec, Job]:
    """Its id is computed, so nothing is made twice; a key besides, as a type may make of an input, would stand in the way of others."""
    return plan.body, replace(new_job(job_id, caller, submission, plan, now), batch_id=batch.id, dedupe_key=None)


def _broke(ctx: BatchContext, batch: Batch, job_id: str, problem: Exception) -> AttemptFailed:
    """A fault of ours, as that of a job."""
    ctx.log("row_submission_failed", job_id=job_id, batch_id=batch.id, tenant=batch.tenant, error=problem)
    return AttemptFailed("No job could be made of this row.")


def _refused(batch: Batch, submission: Submission, job_id: str, exc: HeadraceError, now: int) -> Job:
    """A row that was fit to be submitted when the batch was, and is no longer: its job has failed, and is counted and shown as such."""
    error = JobError(
        code=exc.code,
        error_class=exc.error_class if isinstance(exc, AttemptFailed) else "invalid_request",
        retryable=False,
        message="; ".join(f"{one.path} {one.message}" for one in exc.details)[:300] or exc.message,
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


def _wake(ctx: BatchContext, batch: Batch, jobs: Sequence[Job]) -> None:
    lanes: defaultdict[str, list[WakeUp]] = defaultdict(list)
    for job in jobs:
        if is_claimable(job):
            lanes[job.lane].append(WakeUp(job.id, job.generation))
    for lane, wake_ups in lanes.items():
        try:
            ctx.queues.send_many(lane, wake_ups, batch.tenant)
        except Unavailable as exc:  # they are made all the same: their records are due and will be looked at
            ctx.log("wake_ups_not_sent", batch_id=batch.id, tenant=batch.tenant, error=exc)
