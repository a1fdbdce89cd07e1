"""Make jobs of the rows of a hand, once: what is there already stays as it is, because the ids are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from chalicelib.domain.batch import PART, Batch
from chalicelib.domain.body import Body
from chalicelib.domain.errors import AttemptFailed, HeadraceError, Unavailable
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.ids import row_id
from chalicelib.domain.job import Job, JobError, Status
from chalicelib.domain.parents import CANCEL
from chalicelib.domain.row import Row
from chalicelib.domain.submission import Submission
from chalicelib.domain.transitions import KEEP_COMPLETED_DAYS, KEEP_OTHER_DAYS, is_claimable, waits_for_parents
from chalicelib.domain.units import DAY_MS
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.clerk import Clerk
from chalicelib.usecases.let_go import look_at_parents, note_parents
from chalicelib.usecases.plan_job import Plan, plan_job
from chalicelib.usecases.submit_job import new_job


class RowsGone(HeadraceError):
    """The rows of this batch are no longer kept."""


def base_of(batch: Batch, terms: dict[str, Any]) -> Submission:
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
class Common:
    """What all rows of a batch have in common: `base` of their submissions, `named` jobs that others depend on."""

    base: Submission
    named: Mapping[str, str]

    @classmethod
    def of(cls, batch: Batch, terms: dict[str, Any]) -> Common:
        named = {name: row_id(batch.id, number) for name, number in terms.get("rows", {}).items()}
        return cls(base_of(batch, terms), named)


def submitter(batch: Batch) -> Caller:
    """Whoever submitted the batch, as its rows are submitted now."""
    return Caller(tenant=batch.tenant, user=batch.user, role=Role.named(batch.role), key_id=batch.key_id, key_hash="")


def rows_in_hand(clerk: Clerk, batch: Batch) -> list[Row]:
    """The rows of the open hand. A hand lies within a part.

    Raises:
        RowsGone: they are no longer there.
    """
    part = clerk.batch_rows.get_part(batch.tenant, batch.id, batch.released // PART)
    if part is None:
        raise RowsGone
    return part[batch.released % PART : batch.released % PART + batch.wave_end - batch.released]


def release(clerk: Clerk, batch: Batch, common: Common, rows: Sequence[Row], *, again: bool) -> list[Job]:
    """The jobs of these rows, made now or, `again`, by whoever played this hand before; each is woken.

    Raises:
        Unavailable: some may not have been made.
    """
    ids = [row_id(batch.id, row.number) for row in rows]
    there = {job.id: job for job in clerk.jobs.get_many(ids, consistent=True)} if again else {}
    new = [row for row, job_id in zip(rows, ids, strict=True) if job_id not in there]
    jobs = [*there.values(), *clerk.parallel_map(partial(_make, clerk, batch, common, submitter(batch)), new)]
    _wake(clerk, batch, jobs)
    for job in jobs:
        _look_at_parents(clerk, job)
    return jobs


def _make(clerk: Clerk, batch: Batch, common: Common, caller: Caller, row: Row) -> Job:
    """The body, whom it waits for, then the head, as with every job. One that is refused has no body: what could be kept is no request,
    and must not be sent as one by a retry.
    """
    job_id, now = row_id(batch.id, row.number), clerk.clock.now()
    submission = submission_of(common.base, row, common.named)
    try:
        plan = plan_job(clerk.job_type, clerk.prices, caller, submission, 0, clerk.throughput_of)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with one row, the others go on, and the batch has an end
        job = _refused(batch, submission, job_id, exc if isinstance(exc, HeadraceError) else _broke(clerk, batch, job_id, exc), now)
        clerk.jobs.create(job)
        return job
    body, job = _planned(batch, caller, submission, plan, job_id, now)
    clerk.job_specs.put(job.id, job.tenant, body, (job.expires_at + KEEP_COMPLETED_DAYS * DAY_MS) // 1000)
    if waits_for_parents(job):
        note_parents(clerk, job, body)
    clerk.jobs.create(job)
    return job


def _look_at_parents(clerk: Clerk, job: Job) -> None:
    """Once its head is there: some may have ended already."""
    try:
        look_at_parents(clerk, job)
    except Unavailable as exc:  # it is made all the same, and will be looked at
        clerk.log("a job's parents were not looked at", job_id=job.id, tenant=job.tenant, error=exc)


def _planned(batch: Batch, caller: Caller, submission: Submission, plan: Plan, job_id: str, now: int) -> tuple[Body, Job]:
    """Its id is computed, so nothing is made twice; a key besides, as a type may make of an input, would stand in the way of others."""
    return plan.body, replace(new_job(job_id, caller, submission, plan, now), batch_id=batch.id, dedupe_key=None)


def _broke(clerk: Clerk, batch: Batch, job_id: str, problem: Exception) -> AttemptFailed:
    """A fault of ours, as that of a job."""
    clerk.log("no job could be made of a row", job_id=job_id, batch_id=batch.id, tenant=batch.tenant, error=problem)
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
        ttl=now // 1000 + KEEP_OTHER_DAYS * 86_400,
    )


def _wake(clerk: Clerk, batch: Batch, jobs: Sequence[Job]) -> None:
    lanes: defaultdict[str, list[WakeUp]] = defaultdict(list)
    for job in jobs:
        if is_claimable(job):
            lanes[job.lane].append(WakeUp(job.id, job.generation))
    for lane, wake_ups in lanes.items():
        try:
            clerk.queues.send_many(lane, wake_ups, batch.tenant)
        except Unavailable as exc:  # they are made all the same: their records are due and will be looked at
            clerk.log("wake-ups were not sent", batch_id=batch.id, tenant=batch.tenant, error=exc)
