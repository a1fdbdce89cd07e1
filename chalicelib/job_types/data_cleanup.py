"""Delete jobs that ended long ago, with all their data, before their retention ends.

Deleting is idempotent. A repeated attempt finds and counts only the jobs that are left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import JobNotDeletable
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.jobs.list_jobs import Filters, list_jobs

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun
    from chalicelib.services.worker.task_context import TaskContext

MAX_DELETED = 2_000  # by one job, which takes some minutes
PAGE_SIZE = 100
DEFAULT_DAYS, DEFAULT_FAILED_DAYS = 30, 7  # the same as the retention of jobs
SUCCESSFUL = (Status.COMPLETED, Status.INCOMPLETE)

_DAYS: Schema = {"type": "number", "minimum": 0, "maximum": 365}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "days": {**_DAYS, "description": "Delete completed and incomplete jobs that ended more days ago. Default: 30."},
        "failed_days": {**_DAYS, "description": "The same for all other ended jobs. Default: 7."},
        "dry_run": {"type": "boolean", "description": "Count the jobs without deleting them. Default: false."},
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
        "more": {"type": "boolean", "description": "Whether more jobs may match; then submit another clean-up."},
    },
    "required": ["dry_run", "looked_at", "matched", "deleted", "by_status", "more"],
    "additionalProperties": False,
}


async def clean_up(task: TaskRun) -> dict[str, Any]:
    """Delete the old jobs, or count them. `more`: the limit of one job was reached."""
    task.caller.require(Role.OPERATOR)
    dry_run, now, ctx = bool(task.spec.input.get("dry_run")), task.context.clock.now(), task.context
    scanned, deleted, by_status = 0, 0, dict[str, int]()
    task.start_stage("deletion")
    async for jobs in _pages(task, now):
        old = [job for job in jobs if _is_old(task, job, now)][: MAX_DELETED - sum(by_status.values())]
        scanned += len(jobs)
        deleted += sum(await task.run_sync_each(partial(_delete, ctx), old, concurrency=4)) if not dry_run else 0
        for job in old:
            by_status[job.status.value] = by_status.get(job.status.value, 0) + 1
        task.report_progress(sum(by_status.values()), MAX_DELETED)
        if sum(by_status.values()) >= MAX_DELETED:
            break
    matched = sum(by_status.values())
    return {
        "dry_run": dry_run,
        "looked_at": scanned,
        "matched": matched,
        "deleted": deleted,
        "by_status": by_status,
        "more": matched >= MAX_DELETED,
    }


async def _pages(task: TaskRun, now: Ms) -> AsyncIterator[list[Job]]:
    """Yield the tenant's jobs that were created long enough ago to match, newest first."""
    filters, cursor = Filters(until=now - min(_max_ages(task))), None
    while True:
        page = await task.run_sync(list_jobs, task.context.jobs, task.context.log, task.caller, filters, PAGE_SIZE, cursor)
        yield page.jobs
        cursor = page.next_cursor
        if cursor is None:
            return


def _is_old(task: TaskRun, job: Job, now: Ms) -> bool:
    successful_age, failed_age = _max_ages(task)
    if not job.status.is_terminal or job.id == task.job.id or job.finished_at is None:
        return False
    return job.finished_at <= now - (successful_age if job.status in SUCCESSFUL else failed_age)


def _max_ages(task: TaskRun) -> tuple[Ms, Ms]:
    """Return the ages beyond which successful and other jobs are deleted."""
    given = task.spec.input
    return round(given.get("days", DEFAULT_DAYS) * DAY_MS), round(given.get("failed_days", DEFAULT_FAILED_DAYS) * DAY_MS)


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
