"""Apply the action of a bulk operation to the jobs of its current page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from chalicelib.domain.errors import HeadraceError, JobNotFound, Unavailable, UnreadableRecord
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, JobOutcome, JobRef
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.jobs.cancel_job import CancelContext, cancel_job
from chalicelib.services.jobs.delete_job import DeleteContext, delete_job
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.pause_job import pause_job, resume_job
from chalicelib.services.jobs.retry_job import RetryContext, retry_job
from chalicelib.services.load_jobs import load_readable_jobs


class BulkActionContext(RetryContext, CancelContext, DeleteContext, Protocol):
    """What the actions need."""


def apply_page(ctx: BulkActionContext, bulk: BulkOperation) -> list[JobOutcome]:
    """Apply the action to each job of the current page.

    Idempotent: after a crash in the middle of the page, the jobs that were done count as done
    again.

    Raises:
        Unavailable: a store did not answer; repeat the page.
    """
    refs = bulk.page.jobs
    loaded = load_readable_jobs(ctx.jobs, ctx.log, [ref.job_id for ref in refs], consistent=True)
    jobs = {job.id: job for job in loaded.jobs}
    return [
        JobOutcome(ref.job_id, "skipped", UnreadableRecord.code)
        if ref.job_id in loaded.unreadable
        else _apply_to_job(ctx, bulk, ref, jobs.get(ref.job_id))
        for ref in refs
    ]


def _apply_to_job(ctx: BulkActionContext, bulk: BulkOperation, ref: JobRef, job: Job | None) -> JobOutcome:
    try:
        _ACTIONS[bulk.action](ctx, bulk, ref, job)
    except Unavailable:
        raise
    except HeadraceError as exc:
        return JobOutcome(ref.job_id, "skipped", exc.code)
    except Exception as exc:  # noqa: BLE001 - one job must not stop the others
        ctx.log("bulk_operation_job_failed", bulk_id=bulk.id, job_id=ref.job_id, tenant=bulk.tenant, error=exc)
        return JobOutcome(ref.job_id, "failed", "internal_error")
    return JobOutcome(ref.job_id, "done")


def _retry(ctx: BulkActionContext, _bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    retry_job(ctx, _require_job(ref, job), None, ref.generation)


def _cancel(ctx: BulkActionContext, bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    current = _require_job(ref, job)
    if current.run > ref.run:
        return  # this operation cancelled it before, and a manual retry has restarted it since
    if current.status.is_terminal and current.status is not Status.CANCELLED:
        raise _JobHasEnded
    if not current.status.is_terminal:
        cancelled = cancel_job(ctx, current, bulk.states or None)
        if not (cancelled.status.is_terminal or cancelled.cancel_requested):
            raise _JobHasStarted


def _delete(ctx: BulkActionContext, _bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    if job is not None:
        delete_job(ctx, job, ref.generation)


def _set_priority(ctx: BulkActionContext, bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    edit_job(ctx, _require_job(ref, job), JobEdit(lane=bulk.lane))


def _pause(ctx: BulkActionContext, bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    pause_job(ctx, _require_job(ref, job), bulk.created_by, bulk.reason, bulk.until)


def _resume(ctx: BulkActionContext, _bulk: BulkOperation, ref: JobRef, job: Job | None) -> None:
    resume_job(ctx, _require_job(ref, job))


def _require_job(ref: JobRef, job: Job | None) -> Job:
    if job is None or job.is_deleted:
        raise JobNotFound(ref.job_id)
    return job


class _JobHasEnded(HeadraceError):
    """The job has already ended."""

    code = "job_has_ended"


class _JobHasStarted(HeadraceError):
    """The job has started, and the operation is only for jobs that have not."""

    code = "job_has_started"


_ACTIONS: dict[BulkAction, Callable[[BulkActionContext, BulkOperation, JobRef, Job | None], None]] = {
    BulkAction.RETRY: _retry,
    BulkAction.CANCEL: _cancel,
    BulkAction.DELETE: _delete,
    BulkAction.SET_PRIORITY: _set_priority,
    BulkAction.PAUSE: _pause,
    BulkAction.RESUME: _resume,
}
