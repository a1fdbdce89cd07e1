"""`/limits`."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.limits.tenant_limits import QUEUED, LimitsChange
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.names import name_in_path
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, Effect, endpoint
from chalicelib.services.limits.manage_limits import TenantUse, set_limits, view_limits

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/limits", Role.VIEWER)
def limits(request: ApiRequest) -> ApiResponse:
    """Get the limits that concern the key's tenant, and how much of them is used; or those of all tenants."""
    view = view_limits(request.container, request.caller)
    tenants = [_tenant(use, names=True) for use in view.tenants] if view.tenants is not None else None
    return ApiResponse(body={"limits": _tenant(view.tenant, names=request.caller.all_tenants), "tenants": tenants})


@endpoint(blueprint, "PUT", "/limits/tenants/{tenant}", Role.ADMIN, effect=Effect.STAGE)
def set_tenant_limits(request: ApiRequest, tenant: str) -> ApiResponse:
    """Set limits of a tenant; what the request does not name stays, null means as the stage's settings say."""
    name = name_in_path(tenant, "tenant")
    body = job_requests.check(schemas.TENANT_LIMITS, request.json())
    change = LimitsChange(values={field: value for field, value in body.items() if field != "queued"}, queued=_queued(body))
    return ApiResponse(body=_tenant(set_limits(request.container, name, change, request.caller.user), names=True))


def _queued(body: dict[str, Any]) -> dict[str, int | None]:
    """The limits by lane. Null for the whole means null for each of them."""
    if "queued" not in body:
        return {}
    queued: dict[str, int | None] = body["queued"] if body["queued"] is not None else dict.fromkeys(QUEUED)
    return queued


def _tenant(use: TenantUse, *, names: bool) -> dict[str, Any]:
    """The limits of a tenant that hold, and the jobs that count against them; null: there is no such limit.

    Args:
        names: say which operator set them.
    """
    limits = use.limits
    return {
        "tenant": limits.tenant,
        "weight": limits.weight,
        "fair_by": limits.fair_by.value,
        "concurrency": limits.concurrency,
        "running": use.running,
        "user_concurrency": limits.user_concurrency,
        "user_running": use.user_running,
        "queued": {name: limits.queued.get(name) for name in QUEUED},
        "shards": limits.shards,
        "updated_at": rfc3339(limits.updated_at or None),
        "updated_by": limits.updated_by if names else None,
    }
