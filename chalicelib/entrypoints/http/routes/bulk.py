"""`/bulk`: operations on many jobs."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.entrypoints.http.requests import bulk as bulk_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.responses import bulk as bulk_responses
from chalicelib.entrypoints.http.server import REPLAYED, ApiRequest, ApiResponse, endpoint
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.bulk_operations import BulkRequest

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/bulk", Role.OPERATOR)
def start(request: ApiRequest) -> ApiResponse:
    """Start a bulk operation on many jobs: retry, cancel, delete, set_priority, pause or resume."""
    data, now = request.json(), request.container.clock.now()
    return run_or_count(request, bulk_requests.bulk_request(data, now), "POST /bulk", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "GET", "/bulk/{bulk_id}", Role.OPERATOR, query=("tenant",))
def read(request: ApiRequest, bulk_id: str) -> ApiResponse:
    """Get a bulk operation and its progress."""
    operation = bulk_operations.get_bulk(request.container, request.caller, bulk_id, request.query.get("tenant"))
    return ApiResponse(body=bulk_responses.bulk(operation))


def run_or_count(request: ApiRequest, bulk_request: BulkRequest, route: str, data: dict[str, Any], *, dry_run: bool) -> ApiResponse:
    """Start a bulk operation: 200 if it is finished, 202 if it continues in the background.

    Args:
        route: the route, which is part of the idempotency key.
        data: the request body; a repeated request must have the same.
        dry_run: only count the matching jobs.
    """
    ctx, caller, key = request.container, request.caller, job_requests.idempotency_key(request)
    if dry_run:
        matched, more = bulk_operations.count_matching(ctx, caller, bulk_request)
        return ApiResponse(body={"dry_run": True, "action": bulk_request.action.value, "matched": matched, "more": more})
    idempotent = IdempotentRequest.of(caller, route, key, data) if key is not None else None
    started = bulk_operations.start_bulk(ctx, caller, bulk_request, idempotent)
    status = 202 if started.bulk.finished_at is None else 200
    return ApiResponse(status=status, body=bulk_responses.bulk(started.bulk), headers=REPLAYED if started.replayed else {})
