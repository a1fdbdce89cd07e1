"""`/queues` and `/pauses`: what is paused, pausing and resuming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.limits.pauses import Pause, PauseScope
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import pauses as pause_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.responses.pauses import pause as pause_shape
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.services.batches.manage_batch import get_batch
from chalicelib.services.operations import pauses as pause_service
from chalicelib.services.operations.pauses import PauseRequest
from chalicelib.services.operations.queues import HeldCount, QueueView, count_held, list_queues

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/queues", Role.VIEWER, query=("tenant",))
def queues(request: ApiRequest) -> ApiResponse:
    """List the queues, a job type in a lane each, and which of them are paused, by whom and why."""
    return ApiResponse(body={"data": _queues(request, PauseScope(tenant=request.query.get("tenant"))), "next_cursor": None})


@endpoint(blueprint, "GET", "/queues/{queue}", Role.VIEWER, query=("tenant",))
def queue(request: ApiRequest, queue: str) -> ApiResponse:
    """List the queues of a name: `type:lane`, `type`, `*:lane` or `*`."""
    scope = _queue_scope(request, queue, request.query.get("tenant"))
    return ApiResponse(body={"name": scope.text, "data": _queues(request, scope), "next_cursor": None})


@endpoint(blueprint, "POST", "/queues/{queue}/pause", Role.OPERATOR)
def pause_queue(request: ApiRequest, queue: str) -> ApiResponse:
    """Pause a queue: `type:lane`, `type`, `*:lane` or `*`; its jobs do not start until it is resumed."""
    data = request.json()
    fields = pause_requests.pause_fields(schemas.QUEUE_PAUSE, data, request.container.clock.now())
    return _paused(request, _queue_scope(request, queue, data.get("tenant")), fields)


@endpoint(blueprint, "POST", "/queues/{queue}/resume", Role.OPERATOR)
def resume_queue(request: ApiRequest, queue: str) -> ApiResponse:
    """Resume a queue: its jobs start again, in order."""
    data = job_requests.check(schemas.QUEUE_RESUME, request.json())
    scope = _queue_scope(request, queue, data.get("tenant"))
    ended = pause_service.end_pauses(request.container, request.caller, scope)
    return ApiResponse(body={"name": scope.text, "resumed": bool(ended), "ended": [pause_shape(one, request.caller) for one in ended]})


@endpoint(blueprint, "GET", "/pauses", Role.VIEWER, query=("tenant", "cursor"))
def listing(request: ApiRequest) -> ApiResponse:
    """List the pauses that hold jobs of the key's tenant, or of all tenants."""
    page = pause_service.list_pauses(request.container, request.caller, request.query.get("tenant"), request.query.get("cursor"))
    return ApiResponse(body={"data": [pause_shape(one, request.caller) for one in page.pauses], "next_cursor": page.next_tenant})


@endpoint(blueprint, "POST", "/pauses", Role.OPERATOR)
def create(request: ApiRequest) -> ApiResponse:
    """Pause everything, a tenant, a job type, a lane, a type in a lane, or a batch."""
    data = request.json()
    fields = pause_requests.pause_fields(schemas.PAUSE, data, request.container.clock.now())
    return _paused(request, _checked(request, pause_requests.scope_of(data["scope"])), fields)


@endpoint(blueprint, "DELETE", "/pauses/{pause_id}", Role.OPERATOR, query=("tenant",))
def end(request: ApiRequest, pause_id: str) -> ApiResponse:
    """End a pause: its jobs start again, in order."""
    ended = pause_service.end_pause(request.container, request.caller, pause_id, request.query.get("tenant"))
    return ApiResponse(body=pause_shape(ended, request.caller))


def _paused(request: ApiRequest, scope: PauseScope, fields: pause_requests.PauseFields) -> ApiResponse:
    wanted = PauseRequest(scope=scope, reason=fields.reason, until=fields.until, replace=fields.replaces)
    paused = pause_service.set_pause(request.container, request.caller, wanted)
    return ApiResponse(status=201 if paused.created else 200, body=pause_shape(paused.pause, request.caller))


def _queue_scope(request: ApiRequest, name: str, tenant: str | None) -> PauseScope:
    return _checked(request, pause_requests.queue_scope(name, tenant))


def _checked(request: ApiRequest, scope: PauseScope) -> PauseScope:
    """The scope, whose type and batch exist.

    Raises:
        JobTypeNotFound, BatchNotFound: they do not.
    """
    if scope.type is not None:
        request.container.job_type(scope.type)
    if scope.batch is None:
        return scope
    batch = get_batch(request.container.batches, request.caller, scope.batch, scope.tenant)
    return replace(scope, tenant=batch.tenant)


def _queues(request: ApiRequest, scope: PauseScope) -> list[dict[str, Any]]:
    ctx, caller = request.container, request.caller
    views = list_queues(ctx, caller, scope)
    tenant = scope.tenant if caller.all_tenants else caller.tenant
    causes = [view.pause.cause for view in views if view.pause is not None]
    held = count_held(ctx, tenant, causes) if tenant is not None else {}
    return [_queue(request, view, held) for view in views]


def _queue(request: ApiRequest, view: QueueView, held: dict[str, HeldCount]) -> dict[str, Any]:
    """A queue. `held`: jobs that its pause holds, of every queue in the scope of the pause."""
    count = held.get(view.pause.cause) if view.pause is not None else None
    return {
        "name": f"{view.type}:{view.lane}",
        "job_type": view.type,
        "lane": view.lane,
        "queue": view.queue,
        "paused": view.pause is not None,
        "pause": _pause(request, view.pause),
        "held_by_pause": count.jobs if count is not None else None,
        "held_more": count.is_more if count is not None else None,
        "messages": view.messages,
    }


def _pause(request: ApiRequest, pause: Pause | None) -> dict[str, Any] | None:
    return pause_shape(pause, request.caller) if pause is not None else None
