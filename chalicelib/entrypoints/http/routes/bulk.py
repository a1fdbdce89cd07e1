"""`/bulk`: one wish for many jobs."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.entrypoints.http.requests import bulk as bulk_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.server import REPLAYED, ApiRequest, ApiResponse, endpoint
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.bulk_operations import BulkRequest

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/bulk", Role.OPERATOR)
def start(request: ApiRequest) -> ApiResponse:
    """Do one thing to many jobs: retry, cancel, delete, set_priority."""
    data = request.json()
    return run_or_count(request, bulk_requests.bulk_request(data), "POST /bulk", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "GET", "/bulk/{bulk_id}", Role.OPERATOR)
def read(request: ApiRequest, bulk_id: str) -> ApiResponse:
    """How far a bulk action has come."""
    return ApiResponse(
        body=job_responses.bulk(bulk_operations.get_bulk(request.container, request.caller, bulk_id, request.query.get("tenant")))
    )


def run_or_count(request: ApiRequest, wish: BulkRequest, route: str, data: dict[str, Any], *, dry_run: bool) -> ApiResponse:
    """Do it, or count: 200 if it is finished, 202 while it goes on by itself."""
    ctx, caller = request.container, request.caller
    if dry_run:
        matched, more = bulk_operations.count_matching(ctx, caller, wish)
        return ApiResponse(body={"dry_run": True, "action": wish.action.value, "matched": matched, "more": more})
    key = job_requests.idempotency_key(request)
    begun = bulk_operations.start_bulk(ctx, caller, wish, IdempotentRequest.of(caller, route, key, data) if key is not None else None)
    status = 202 if begun.bulk.finished_at is None else 200
    return ApiResponse(status=status, body=job_responses.bulk(begun.bulk), headers=REPLAYED if begun.replayed else {})
