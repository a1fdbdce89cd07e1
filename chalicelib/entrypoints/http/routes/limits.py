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
from chalicelib.entrypoints.http.responses import limits as limits_responses
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, Effect, endpoint
from chalicelib.services.limits.manage_limits import TenantUse, set_limits, view_limits
from chalicelib.services.limits.stage_limits import set_model_limits, view_models, view_types

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/limits", Role.VIEWER)
def limits(request: ApiRequest) -> ApiResponse:
    """Get the limits of the key's tenant, or of all tenants, and those of models and job types; how much is used, and who waits."""
    ctx, caller = request.container, request.caller
    view = view_limits(ctx, caller)
    body = {
        "limits": _tenant(view.tenant, names=caller.all_tenants),
        "tenants": [_tenant(use, names=True) for use in view.tenants] if view.tenants is not None else None,
        "models": [limits_responses.model(use) for use in view_models(ctx, caller)],
        "types": [limits_responses.job_type(use) for use in view_types(ctx, caller)],
    }
    return ApiResponse(body=body)


@endpoint(blueprint, "PUT", "/limits/models/{model}", Role.ADMIN, effect=Effect.STAGE)
def set_limits_of_model(request: ApiRequest, model: str) -> ApiResponse:
    """Set the requests and tokens a minute of a model; what the request does not name stays, null means as learnt from OpenAI."""
    name = name_in_path(model, "model")
    body = job_requests.check(schemas.MODEL_LIMITS, request.json())
    return ApiResponse(body=limits_responses.model(set_model_limits(request.container, request.caller, name, body)))


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
        "fair_by": limits.fair_by,
        "concurrency": limits.concurrency,
        "running": use.running,
        "user_concurrency": limits.user_concurrency,
        "user_running": use.user_running,
        "queued": {name: limits.queued.get(name) for name in QUEUED},
        "shards": limits.shards,
        "updated_at": rfc3339(limits.updated_at or None),
        "updated_by": limits.updated_by if names else None,
    }
