"""`/failed-jobs`: what failed and why, started again or deleted; and dead letters."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import JobNotDeletable, JobNotFound, Unavailable
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import bulk as bulk_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.routes.bulk import run_or_count
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.observability import record
from chalicelib.ports import Queues
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.bulk_operations import BulkRequest
from chalicelib.services.jobs.list_jobs import list_jobs
from chalicelib.services.operations.redrive_dead_letters import redrive as redrive_lanes

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/failed-jobs", Role.OPERATOR)
def listing(request: ApiRequest) -> ApiResponse:
    """List failed jobs with their errors, the last to fail first; and how many dead letters each lane has."""
    ctx, filters = request.container, job_requests.filters(request, schemas.FAILED_FILTERS, status=Status.FAILED.value)
    limit, cursor = job_requests.number(request, "limit", 20, 1, 100), request.query.get("cursor")
    page = list_jobs(ctx.jobs, request.caller, filters, limit, cursor)
    rows = [job_responses.record(job, None, ctx.endpoints.get("ws_url"), content=True) for job in page.jobs]
    letters = None if cursor else _dead_letters(ctx.queues)
    return ApiResponse(
        body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until), "dead_letters": letters}
    )


@endpoint(blueprint, "POST", "/failed-jobs/retry", Role.OPERATOR)
def retry(request: ApiRequest) -> ApiResponse:
    """Start failed jobs again: those that are named, or all."""
    data = request.json()
    wish = bulk_requests.failed_jobs_request(data, BulkAction.RETRY)
    return run_or_count(request, wish, "POST /failed-jobs/retry", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs", Role.OPERATOR)
def purge(request: ApiRequest) -> ApiResponse:
    """Delete all failed jobs, or all that the filters find: only with `?all=true`."""
    said = {name: bulk_requests.word(value) for name, value in request.query.items()}
    return run_or_count(request, bulk_requests.failed_jobs_request(said, BulkAction.DELETE), "", said, dry_run=bool(said.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs/{job_id}", Role.OPERATOR)
def delete(request: ApiRequest, job_id: str) -> ApiResponse:
    """Delete a failed job and all that is kept of it; 202 if that goes on by itself."""
    job = request.container.jobs.get(job_id)
    if job is None or not request.caller.owns(job):
        raise JobNotFound(job_id)
    if job.status is not Status.FAILED:
        raise JobNotDeletable(f"This job is {job.status.value}; only failed jobs are deleted here.")
    begun = bulk_operations.start_bulk(request.container, request.caller, BulkRequest(action=BulkAction.DELETE, ids=(job_id,)))
    if begun.bulk.finished_at is None:
        return ApiResponse(status=202, body={"job_id": job_id, "deleted": False, "bulk_id": begun.bulk.id})
    if begun.bulk.skipped:
        raise JobNotDeletable("This job has been started again.")
    return ApiResponse(body={"job_id": job_id, "deleted": True})


@endpoint(blueprint, "POST", "/failed-jobs/redrive", Role.ADMIN)
def redrive(request: ApiRequest) -> ApiResponse:
    """Wake the jobs of dead letters again, by what their records say. The queues are of all tenants."""
    ctx, data = request.container, job_requests.check(schemas.REDRIVE, request.json())
    lane = data.get("lane")
    done = redrive_lanes(ctx.clock, ctx.jobs, ctx.queues, [lane] if lane else LANES)
    totals = {name: sum(counts[name] for counts in done.lanes.values()) for name in ("redriven", "dropped", "kept")}
    record("dead_letters_redriven", tenant=request.caller.tenant, key_id=request.caller.key_id, **totals)
    return ApiResponse(body={**totals, "lanes": {name: dict(counts) for name, counts in done.lanes.items()}, "more": done.more})


def _dead_letters(queues: Queues) -> dict[str, int] | None:
    """By lane; None where they cannot be counted just now, which must not hide the jobs."""
    try:
        return {lane: queues.dead_letters(lane) for lane in LANES}
    except Unavailable as exc:
        record("dead_letter_count_failed", error=exc)
        return None
