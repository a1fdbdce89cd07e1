"""Delete jobs that ended long ago, with all their data, before their retention ends.

One job does a bounded part, so that it ends well within an invocation of a worker; its result has
the cursor with which the next one goes on. Deleting is idempotent. A repeated attempt finds and
counts only the jobs that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import Detail, InvalidRequest, JobNotDeletable
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.ports import JobQuery
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.load_jobs import LoadedJobs, load_readable_jobs

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun
    from chalicelib.services.worker.task_context import TaskContext

MAX_DELETED = 2_000  # by one job
MAX_SECONDS = 60.0  # of one job; a worker starts a job only if it has more time left than this
PAGE_SIZE = 100
DEFAULT_DAYS, DEFAULT_FAILED_DAYS = 30, 7  # the same as the retention of jobs
SUCCESSFUL = (Status.COMPLETED, Status.INCOMPLETE)
WALKED = (Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE, Status.COMPLETED)

_DAYS: Schema = {"type": "number", "minimum": 0, "maximum": 365}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "days": {**_DAYS, "description": "Delete completed and incomplete jobs that ended more days ago. Default: 30."},
        "failed_days": {**_DAYS, "description": "The same for all other ended jobs. Default: 7."},
        "dry_run": {"type": "boolean", "description": "Count the jobs without deleting them. Default: false."},
        "cursor": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "`next_cursor` of the clean-up before, which goes on where that one stopped. Default: from the beginning.",
        },
    },
    "additionalProperties": False,
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "dry_run": {"type": "boolean"},
        "looked_at": _COUNT,
        "matched": {**_COUNT, "description": "How many jobs ended that long ago."},
        "deleted": _COUNT,
        "by_status": {"type": "object", "additionalProperties": _COUNT, "description": "The matched jobs by status."},
        "more": {"type": "boolean", "description": "Whether more jobs may match; then submit another clean-up with `next_cursor`."},
        "next_cursor": {"type": ["string", "null"], "description": "Where the next clean-up goes on; null at the end."},
    },
    "required": ["dry_run", "looked_at", "matched", "deleted", "by_status", "more", "next_cursor"],
    "additionalProperties": False,
}


async def clean_up(task: TaskRun) -> dict[str, Any]:
    """Delete the old jobs, or count them, until a bound of one job is reached.

    Each status is walked from the newest end that is old enough to older ones, so only jobs that
    match are read; completed jobs, which have no such index, from the newest creation.

    Raises:
        InvalidRequest: the cursor is none of a clean-up.
    """
    task.caller.require(Role.OPERATOR)
    dry_run, ctx = bool(task.spec.input.get("dry_run")), task.context
    now = ctx.clock.now()
    until = now + round(min(MAX_SECONDS, task.spec.config.timeout / 2) * 1000)
    scanned, matched, deleted, by_status = 0, 0, 0, Counter[str]()
    next_cursor: str | None = None
    task.start_stage("deletion")
    async for jobs, following in _pages(task, now):
        next_cursor = following
        old = [job for job in jobs if _is_old(task, job, now)]
        scanned, matched = scanned + len(jobs), matched + len(old)
        deleted += sum(await task.run_sync_each(partial(_delete, ctx), old, concurrency=4)) if not dry_run else 0
        by_status.update(job.status.value for job in old)
        task.report_progress(matched, max(matched, MAX_DELETED))
        if matched > MAX_DELETED - PAGE_SIZE or ctx.clock.now() >= until:
            break
    return {
        "dry_run": dry_run,
        "looked_at": scanned,
        "matched": matched,
        "deleted": deleted,
        "by_status": dict(by_status),
        "more": next_cursor is not None,
        "next_cursor": next_cursor,
    }


async def _pages(task: TaskRun, now: Ms) -> AsyncIterator[tuple[list[Job], str | None]]:
    """Yield the tenant's jobs by status, each page with the cursor after it; None: the end.

    Jobs whose record another version of the code wrote are left out.
    """
    store, status, before = task.context.jobs, *_position(task.spec.input.get("cursor"))
    for at in range(WALKED.index(status), len(WALKED)):
        status, cutoff = WALKED[at], now - _max_age(task, WALKED[at])
        query = JobQuery(tenant=task.job.tenant, state=status.value, before=before, limit=PAGE_SIZE)
        if status is Status.COMPLETED:
            query = replace(query, until=cutoff)
        elif before is None:
            query = replace(query, before=f"{cutoff + 1:013d}")  # keys of ended jobs begin with the time of their end
        while True:
            ids, before = await task.run_sync(store.page, query)
            following = f"{status.value}:{before}" if before is not None else f"{WALKED[at + 1].value}:" if at + 1 < len(WALKED) else None
            found = await task.run_sync(load_readable_jobs, store, task.context.log, ids) if ids else LoadedJobs([])
            yield found.jobs, following
            if before is None:
                break
            query = replace(query, before=before)


def _position(cursor: str | None) -> tuple[Status, str | None]:
    """Return the status with which the walk goes on, and the key before which; None: from its newest job."""
    if cursor is None:
        return WALKED[0], None
    name, _, before = cursor.partition(":")
    for status in WALKED:
        if status.value == name:
            return status, before or None
    raise InvalidRequest(details=(Detail("input.cursor", "is not a `next_cursor` of a clean-up"),))


def _is_old(task: TaskRun, job: Job, now: Ms) -> bool:
    if not job.status.is_terminal or job.id == task.job.id or job.finished_at is None:
        return False
    return job.finished_at <= now - _max_age(task, job.status)


def _max_age(task: TaskRun, status: Status) -> Ms:
    """Return the age beyond which a job that ended so is deleted."""
    given = task.spec.input
    days = given.get("days", DEFAULT_DAYS) if status in SUCCESSFUL else given.get("failed_days", DEFAULT_FAILED_DAYS)
    return round(float(days) * DAY_MS)


def _delete(ctx: TaskContext, job: Job) -> int:
    """Delete a job and return 1; return 0 for a job that was retried in the meantime."""
    try:
        delete_job(ctx, job, job.generation)
    except JobNotDeletable:
        return 0
    return 1


JOB_TYPE = JobType(
    name="data_cleanup",
    title="Data clean-up",
    description="Deletes jobs of the tenant that ended long ago, with their texts, results and objects; `dry_run` only counts them.",
    instructions="",
    stages=("setup", "deletion", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(5.0, 30.0, 120.0),
    min_role="operator",
    limits=Limits(concurrency=1, per_minute=10),
    handler=clean_up,
)
