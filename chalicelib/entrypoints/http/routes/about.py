"""`/health`, `/me` and `/job-types`."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.slots import SlotLimit, type_scope
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.settings import settings

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/health", None)
def health(request: ApiRequest) -> ApiResponse:
    """Check that the API answers; calls no other service."""
    return ApiResponse(body={"status": "ok", "stage": request.container.settings.stage, "time": rfc3339(request.container.clock.now())})


@endpoint(blueprint, "GET", "/me", Role.VIEWER)
def me(request: ApiRequest) -> ApiResponse:
    """Get the tenant, user, role and limits of the API key."""
    caller, ctx = request.caller, request.container
    key = ctx.api_keys.key(caller.key_hash)
    return ApiResponse(
        body={
            "tenant": caller.tenant,
            "user": caller.user,
            "role": caller.role.label,
            "key_id": caller.key_id,
            "expires_at": rfc3339(key.expires_at) if key else None,
            "limits": {"requests_per_minute": settings().requests_per_minute},
            "websocket": ctx.endpoints.get("ws_url"),
        }
    )


@endpoint(blueprint, "GET", "/job-types", Role.VIEWER)
def types(request: ApiRequest) -> ApiResponse:
    """List the job types of this deployment."""
    return ApiResponse(body={"data": [_type(kind) for kind in request.container.all_job_types()], "next_cursor": None})


@endpoint(blueprint, "GET", "/job-types/{name}", Role.VIEWER)
def one_type(request: ApiRequest, name: str) -> ApiResponse:
    """Get a job type; for keys of all tenants `in_use` counts its running jobs if their number is limited."""
    kind, ctx = request.container.job_type(name), request.container
    in_use = None
    if request.caller.all_tenants and kind.limits is not None and kind.limits.concurrency is not None:
        limit = SlotLimit(scope=type_scope(kind.name), limit=kind.limits.concurrency)
        in_use = limit.used(ctx.jobs.slots_taken(limit.keys))
    return ApiResponse(body={**_type(kind), "in_use": in_use})


def _type(kind: JobType) -> dict[str, Any]:
    return {
        "job_type": kind.name,
        "title": kind.title,
        "description": kind.description,
        "default_model": None if kind.handler is not None else kind.default_model,
        "max_tokens": None if kind.handler is not None else kind.max_tokens,
        "least_role": kind.min_role,
        "limits": {
            "concurrency": kind.limits.concurrency if kind.limits else None,
            "per_minute": kind.limits.per_minute if kind.limits else None,
        },
        "stages": list(kind.stages),
        "retry_schedule_seconds": list(kind.retry_schedule),
        "works_without_key": kind.fallback is not None,
        "preliminary": kind.preliminary,
        "options_schema": kind.options_schema,
        "input_schema": kind.input_schema,
        "response_schema": kind.response_schema,
    }
