"""`/health/system` and `/circuits`."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, tenant_mark
from chalicelib.domain.operations.health import Level, Part
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.names import name_in_path
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, Effect, endpoint
from chalicelib.observability import record
from chalicelib.services.operations.force_circuit import close_circuit, end_rate_wait, open_circuit
from chalicelib.services.operations.health_check import check_health, visible_circuits
from chalicelib.services.scheduling.visits import ask_for_visit

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/health/system", Role.VIEWER)
def health(request: ApiRequest) -> ApiResponse:
    """Get the health of each part of the system; its figures are for keys of all tenants."""
    parts = check_health(request.container, request.caller)
    worst = max((part.level for part in parts.values()), default=Level.HEALTHY)
    now = request.container.clock.now()
    shapes = {name: _part(part) for name, part in parts.items()}
    return ApiResponse(body={"status": worst.label, "parts": shapes, **_findings(parts), "generated_at": rfc3339(now)})


@endpoint(blueprint, "GET", "/circuits", Role.VIEWER)
def circuits(request: ApiRequest) -> ApiResponse:
    """List the circuits that concern the key's tenant, or all; circuits that are not listed are closed."""
    known = sorted(visible_circuits(request.container, request.caller), key=lambda circuit: circuit.model)
    return ApiResponse(body={"data": [_circuit(circuit, request) for circuit in known], "next_cursor": None})


@endpoint(blueprint, "POST", "/circuits/{model}/open", Role.ADMIN, effect=Effect.STAGE)
def force_open(request: ApiRequest, model: str) -> ApiResponse:
    """Open a model's circuit: its jobs are held until the circuit is closed by hand."""
    ctx, name = request.container, name_in_path(model, "model")
    reason = job_requests.check(schemas.CIRCUIT, request.json()).get("reason")
    circuit = open_circuit(ctx.circuit_breakers, record, name, request.caller.user, reason, ctx.new_id(), ctx.clock.now())
    return ApiResponse(body=_circuit(circuit, request))


@endpoint(blueprint, "POST", "/circuits/{model}/close", Role.ADMIN, effect=Effect.STAGE)
def force_close(request: ApiRequest, model: str) -> ApiResponse:
    """Close a model's circuit and end its wait for a rate limit, so that its jobs run again."""
    ctx, name = request.container, name_in_path(model, "model")
    job_requests.check(schemas.CIRCUIT, request.json())
    circuit = close_circuit(ctx.circuit_breakers, record, name, request.caller.user, ctx.new_id(), ctx.clock.now())
    end_rate_wait(ctx.rates, name, ctx.clock.now())
    for kind in (CauseKind.CIRCUIT, CauseKind.RATE):  # also if it was closed already: perhaps the last request could not ask
        ask_for_visit(ctx, cause_of(kind, name))
    return ApiResponse(body=_circuit(circuit, request))


def _circuit(circuit: CircuitBreaker, request: ApiRequest) -> dict[str, Any]:
    """A circuit. `until`: when an open circuit allows a probe, or when the present probe is over.

    A key of one tenant sees it as it is for the tenant's jobs. `scope`: `tenant` if only they wait.
    `tenants` and `forced_by` are shown only to keys of all tenants.
    """
    caller, mark = request.caller, tenant_mark(request.caller.tenant)
    own_only = not caller.all_tenants and circuit.state is CircuitState.CLOSED and circuit.own_of(mark) is not None
    tenants = len(circuit.own) if caller.all_tenants else None
    circuit = circuit if caller.all_tenants else circuit.as_seen_by(mark)
    return {
        "model": circuit.model,
        "scope": "tenant" if own_only else "model",
        "tenants": tenants,
        "state": circuit.state.value,
        "reason": circuit.reason,
        "forced": circuit.is_forced,
        "forced_by": circuit.by,
        "failures": circuit.failures,
        "trips": circuit.trips,
        "last_failure_at": rfc3339(circuit.last_failure_at),
        "opened_at": rfc3339(circuit.opened_at),
        "closed_at": rfc3339(circuit.closed_at),
        "until": rfc3339(circuit.until),
    }


def _part(part: Part) -> dict[str, Any]:
    return {"status": part.level.label, **part.facts, **_findings({"": part})}


def _findings(parts: dict[str, Part]) -> dict[str, list[str]]:
    """Issues and recommendations, the worst first."""
    issues = sorted((issue for part in parts.values() for issue in part.issues), key=lambda issue: -issue.level)
    recommendations = dict.fromkeys(issue.recommendation for issue in issues)
    return {"issues": [issue.message for issue in issues], "recommendations": list(recommendations)}
