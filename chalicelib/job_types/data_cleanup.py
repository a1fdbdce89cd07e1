"""Delete jobs that ended long ago, with all that is kept of them, before their time is over by itself.

A deletion can be repeated, so an attempt that begins anew finds what is left and counts that.
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

MAX_DELETED = 2_000  # by one job: some minutes of work
PAGE = 100
DEFAULT_RETENTION_DAYS, KEPT_DAYS_OF_OTHERS = 30, 7  # what retention has anyway
SUCCESSFUL = (Status.COMPLETED, Status.INCOMPLETE)

_DAYS: Schema = {"type": "number", "minimum": 0, "maximum": 365}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "days": {**_DAYS, "description": "What completed, or is incomplete, goes so long after its end. Default: 30."},
        "failed_days": {**_DAYS, "description": "What ended otherwise. Default: 7."},
        "dry_run": {"type": "boolean", "description": "Only count. Default: false."},
    },
    "additionalProperties": False,
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "dry_run": {"type": "boolean"},
        "looked_at": _COUNT,
        "matched": {**_COUNT, "description": "How many ended so long ago."},
        "deleted": _COUNT,
        "by_status": {"type": "object", "additionalProperties": _COUNT, "description": "What matched, by how it ended."},
        "more": {"type": "boolean", "description": "There may be more: submit another."},
    },
    "required": ["dry_run", "looked_at", "matched", "deleted", "by_status", "more"],
    "additionalProperties": False,
}


async def clean_up(task: TaskRun) -> dict[str, Any]:
    """Delete, or count. `more`: there was more to delete than one job does; submit another."""
    task.caller.require(Role.OPERATOR)
    dry, now, tools = bool(task.spec.input.get("dry_run")), task.context.clock.now(), task.context
    looked, deleted, counts = 0, 0, dict[str, int]()
    task.start_stage("deletion")
    async for jobs in _pages(task, now):
        old = [job for job in jobs if _is_old(task, job, now)][: MAX_DELETED - sum(counts.values())]
        looked += len(jobs)
        deleted += sum(await task.run_sync_each(partial(_delete, tools), old, concurrency=4)) if not dry else 0
        for job in old:
            counts[job.status.value] = counts.get(job.status.value, 0) + 1
        task.report_progress(sum(counts.values()), MAX_DELETED)
        if sum(counts.values()) >= MAX_DELETED:
            break
    matched = sum(counts.values())
    return {
        "dry_run": dry,
        "looked_at": looked,
        "matched": matched,
        "deleted": deleted,
        "by_status": counts,
        "more": matched >= MAX_DELETED,
    }


async def _pages(task: TaskRun, now: Ms) -> AsyncIterator[list[Job]]:
    """The tenant's jobs that are old enough to have ended so long ago, newest first."""
    wanted, cursor = Filters(until=now - min(_kept_ms(task))), None
    while True:
        page = await task.run_sync(list_jobs, task.context.jobs, task.caller, wanted, PAGE, cursor)
        yield page.jobs
        cursor = page.next_cursor
        if cursor is None:
            return


def _is_old(task: TaskRun, job: Job, now: Ms) -> bool:
    well, others = _kept_ms(task)
    if not job.status.is_terminal or job.id == task.job.id or job.finished_at is None:
        return False
    return job.finished_at <= now - (well if job.status in SUCCESSFUL else others)


def _kept_ms(task: TaskRun) -> tuple[Ms, Ms]:
    """How long what ended well is kept, and what did not."""
    said = task.spec.input
    return round(said.get("days", DEFAULT_RETENTION_DAYS) * DAY_MS), round(said.get("failed_days", KEPT_DAYS_OF_OTHERS) * DAY_MS)


def _delete(ctx: TaskContext, job: Job) -> int:
    """1 if it is gone; one that somebody started again meanwhile stays."""
    try:
        delete_job(ctx.clock, ctx.jobs, ctx.job_data, job, job.generation)
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
