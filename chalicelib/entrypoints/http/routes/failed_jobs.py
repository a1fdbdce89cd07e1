"""`/failed-jobs`: list, retry and delete failed jobs; redrive dead letters."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import JobNotDeletable, JobNotFound, Unavailable
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import bulk as bulk_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.routes.bulk import run_or_count
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, Effect, endpoint
from chalicelib.observability import record
from chalicelib.ports import Queues
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.bulk_operations import BulkRequest
from chalicelib.services.jobs.list_jobs import list_jobs
from chalicelib.services.operations.redrive_dead_letters import redrive as redrive_queues

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/failed-jobs", Role.OPERATOR, query=(*schemas.FAILED_FILTERS, *schemas.PAGE))
def listing(request: ApiRequest) -> ApiResponse:
    """List failed jobs with their errors, latest failure first; for keys of all tenants also count dead letters by queue."""
    ctx, filters = request.container, job_requests.filters(request, status=Status.FAILED.value)
    limit, cursor = job_requests.number(request, "limit", 20, 1, 100), request.query.get("cursor")
    page = list_jobs(ctx.jobs, ctx.log, request.caller, filters, limit, cursor)
    ws_url, now = ctx.endpoints.get("ws_url"), ctx.clock.now()
    rows = [job_responses.record(job, None, ws_url, now=now, content=True) for job in page.jobs]
    dead_letters = _dead_letters(ctx.queues) if request.caller.all_tenants and not cursor else None
    return ApiResponse(
        body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until), "dead_letters": dead_letters}
    )


@endpoint(blueprint, "POST", "/failed-jobs/retry", Role.OPERATOR)
def retry(request: ApiRequest) -> ApiResponse:
    """Retry failed jobs: the given ids, or all that match the filters."""
    data = request.json()
    bulk_request = bulk_requests.failed_jobs_request(data, BulkAction.RETRY)
    return run_or_count(request, bulk_request, "POST /failed-jobs/retry", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs", Role.OPERATOR, query=(*schemas.FAILED_FILTERS, "all", "dry_run"))
def purge(request: ApiRequest) -> ApiResponse:
    """Delete all failed jobs, or all that match the filters; requires `?all=true`."""
    data = {name: bulk_requests.query_value(value) for name, value in request.query.items()}
    return run_or_count(request, bulk_requests.failed_jobs_request(data, BulkAction.DELETE), "", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs/{job_id}", Role.OPERATOR)
def delete(request: ApiRequest, job_id: str) -> ApiResponse:
    """Delete a failed job and all its data; 202 if the deletion continues in the background."""
    job = request.container.jobs.get(job_id)
    if job is None or not request.caller.owns(job):
        raise JobNotFound(job_id)
    if job.status is not Status.FAILED:
        raise JobNotDeletable(f"This job is {job.status.value}; this route deletes only failed jobs.")
    started = bulk_operations.start_bulk(request.container, request.caller, BulkRequest(action=BulkAction.DELETE, ids=(job_id,)))
    if started.bulk.finished_at is None:
        return ApiResponse(status=202, body={"job_id": job_id, "deleted": False, "bulk_id": started.bulk.id})
    if started.bulk.skipped:
        raise JobNotDeletable("This job has been retried since; it was not deleted.")
    return ApiResponse(body={"job_id": job_id, "deleted": True})


@endpoint(blueprint, "POST", "/failed-jobs/redrive", Role.ADMIN, effect=Effect.STAGE)
def redrive(request: ApiRequest) -> ApiResponse:
    """Redrive dead letters of all tenants: wake their jobs again if the records allow it."""
    ctx, data = request.container, job_requests.check(schemas.REDRIVE, request.json())
    lane = data.get("lane")
    done = redrive_queues(ctx, [lane] if lane else JOB_QUEUES)
    totals = {name: sum(counts[name] for counts in done.queues.values()) for name in ("redriven", "dropped", "kept")}
    record("dead_letters_redriven", tenant=request.caller.tenant, key_id=request.caller.key_id, **totals)
    return ApiResponse(body={**totals, "lanes": {name: dict(counts) for name, counts in done.queues.items()}, "more": done.more})


def _dead_letters(queues: Queues) -> dict[str, int] | None:
    """Dead letters by queue of jobs. None if they cannot be counted now; the jobs are listed anyway."""
    try:
        return {queue: queues.dead_letters(queue) for queue in JOB_QUEUES}
    except Unavailable as exc:
        record("dead_letter_count_failed", error=exc)
        return None
