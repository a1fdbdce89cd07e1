"""Check every part of the system. A part that does not answer is a finding, not an error.

A caller of one tenant is told how each part is, but no figures of all tenants, and only of circuits
that concern it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, tenant_mark
from chalicelib.domain.operations.health import (
    Part,
    QueueLoad,
    WorkerStatus,
    check_change_stream,
    check_provider,
    check_queues,
    check_workers,
    unknown_health,
)
from chalicelib.domain.queues.lanes import JOB_QUEUES, STREAM
from chalicelib.ports import CircuitBreakers, Leases, Prices
from chalicelib.services.context import QueueContext
from chalicelib.services.limits.stage_limits import is_public_model


class HealthContext(QueueContext, Protocol):
    """What the health check reads."""

    @property
    def circuit_breakers(self) -> CircuitBreakers: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def prices(self) -> Prices: ...


def check_health(ctx: HealthContext, caller: Caller) -> dict[str, Part]:
    """Check each part; the result is keyed by its name. Queue figures may be some seconds old."""
    everything = caller.all_tenants
    checks: dict[str, Callable[[], Part]] = {
        "openai": lambda: _provider(ctx, caller),
        "queues": lambda: check_queues({queue: _load(ctx, queue, everything) for queue in JOB_QUEUES}, figures=everything),
        "workers": lambda: _workers(ctx, everything),
        "change_stream": lambda: check_change_stream(ctx.queues.dead_letters(STREAM) if everything else None),
    }
    return {name: _guarded(ctx, name, check) for name, check in checks.items()}


def visible_circuits(ctx: HealthContext, caller: Caller) -> list[CircuitBreaker]:
    """Return the stored circuits that a caller may know of.

    The name of a model can tell about its owner, as that of a fine-tuned one does. So a caller of
    one tenant gets only models that its own jobs have used, and models that everybody can buy.
    """
    tenant, known = tenant_mark(caller.tenant), ctx.circuit_breakers.all()
    return [one for one in known if caller.all_tenants or one.concerns(tenant) or is_public_model(ctx.prices, one.model)]


def _provider(ctx: HealthContext, caller: Caller) -> Part:
    known = visible_circuits(ctx, caller)
    if caller.all_tenants:
        return check_provider(known)
    return check_provider([one.as_seen_by(tenant_mark(caller.tenant)) for one in known], may_close=False)


def _load(ctx: HealthContext, queue: str, everything: bool) -> QueueLoad:
    return QueueLoad(ctx.queues.depth(queue), ctx.queues.dead_letters(queue) if everything else None)


def _workers(ctx: HealthContext, everything: bool) -> Part:
    leases = [WorkerStatus(lease.lane, len(lease.jobs), lease.expires_at) for lease in ctx.leases.all()]
    return check_workers(leases, ctx.clock.now(), figures=everything)


def _guarded(ctx: HealthContext, name: str, check: Callable[[], Part]) -> Part:
    try:
        return check()
    except Exception as exc:  # noqa: BLE001 - a part that cannot be checked is what the health check reports
        ctx.log("health_check_failed", part=name, error=exc)
        return unknown_health()
