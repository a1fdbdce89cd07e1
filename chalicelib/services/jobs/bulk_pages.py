"""Find the next page of jobs of a bulk operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage, JobRef
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Jobs
from chalicelib.services.jobs.list_jobs import Filters, list_jobs
from chalicelib.services.load_jobs import load_readable_jobs
from chalicelib.services.log import Log

PAGE_SIZE = 25  # jobs; progress is saved after each page
ROWS_PER_PAGE = 100  # rows of a batch that are read for one page


class BulkPageContext(Protocol):
    """What finding the jobs of a bulk operation needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def log(self) -> Log: ...
    def row_count(self, tenant: str, batch_id: str) -> int | None:
        """Return how many rows a batch has; None if it does not exist."""


def read_next_page(ctx: BulkPageContext, bulk: BulkOperation, size: int = PAGE_SIZE) -> BulkPage:
    """Return the page after the current one.

    Lists are walked from the newest entry to older ones: a job that fails again meanwhile is listed
    before the cursor, so it is not met twice.
    """
    if bulk.page.last:
        return BulkPage(last=True)
    if bulk.batch_id is not None:
        return _page_of_rows(ctx, bulk, bulk.batch_id)
    return _page_of_ids(ctx, bulk, size) if bulk.ids else _page_of_filters(ctx, bulk, size)


def _page_of_rows(ctx: BulkPageContext, bulk: BulkOperation, batch_id: str) -> BulkPage:
    """Return the next rows of the batch that have jobs in one of the requested states."""
    end = min(bulk.page.position + ROWS_PER_PAGE, bulk.rows)
    ids = [job_id_of_row(batch_id, row) for row in range(bulk.page.position, end)]
    loaded = load_readable_jobs(ctx.jobs, ctx.log, ids, consistent=True)
    matching = [job for job in loaded.jobs if job.status in bulk.states and not job.is_deleted and job.tenant == bulk.tenant]
    return BulkPage(jobs=_job_refs(matching), unreadable=tuple(sorted(loaded.unreadable)), position=end, last=end >= bulk.rows)


def _page_of_ids(ctx: BulkPageContext, bulk: BulkOperation, size: int) -> BulkPage:
    end = bulk.page.position + size
    ids = bulk.ids[bulk.page.position : end]
    caller = _caller_of(bulk)
    deletes = bulk.action is BulkAction.DELETE  # finds incomplete deletions as well
    loaded = load_readable_jobs(ctx.jobs, ctx.log, ids, consistent=True)
    found = [job for job in loaded.jobs if caller.owns(job) and (deletes or not job.is_deleted)]
    missing = tuple(sorted(set(ids) - {job.id for job in found} - loaded.unreadable))
    unreadable = tuple(sorted(loaded.unreadable))
    return BulkPage(jobs=_job_refs(found), missing=missing, unreadable=unreadable, position=end, last=end >= len(bulk.ids))


def _page_of_filters(ctx: BulkPageContext, bulk: BulkOperation, size: int) -> BulkPage:
    status = bulk.statuses[bulk.page.position]
    filters = Filters(**{**bulk.filters, "status": status.value})
    page = list_jobs(ctx.jobs, ctx.log, _caller_of(bulk), filters, size, bulk.page.cursor, ctx.row_count)
    refs = _job_refs(job for job in page.jobs if _is_meant(bulk, job))
    if page.next_cursor is not None:
        return BulkPage(jobs=refs, position=bulk.page.position, cursor=page.next_cursor)
    position = bulk.page.position + 1
    return BulkPage(jobs=refs, position=position, last=position >= len(bulk.statuses))


def _is_meant(bulk: BulkOperation, job: Job) -> bool:
    """Whether a listed job is one that the action changes: jobs that it has paused are held, and listed again."""
    if bulk.action is BulkAction.PAUSE:
        return job.pause is None or job.pause.since < bulk.created_at
    return bulk.action is not BulkAction.RESUME or job.pause is not None


def _job_refs(jobs: Iterable[Job]) -> tuple[JobRef, ...]:
    return tuple(JobRef(job.id, job.generation, job.run) for job in jobs)


def _caller_of(bulk: BulkOperation) -> Caller:
    """Return a caller with the rights of the requester, who was an operator of the tenant."""
    return Caller(tenant=bulk.tenant, user="", role=Role.OPERATOR, key_id="", key_hash="", all_tenants=bulk.all_tenants and bool(bulk.ids))
