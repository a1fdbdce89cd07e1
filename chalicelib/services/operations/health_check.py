"""Check every part of the system. A part that does not answer is a finding, not an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
from chalicelib.ports import CircuitBreakers, Leases
from chalicelib.services.context import QueueContext


class HealthContext(QueueContext, Protocol):
    """What the health check reads."""

    @property
    def circuit_breakers(self) -> CircuitBreakers: ...
    @property
    def leases(self) -> Leases: ...


def check_health(ctx: HealthContext) -> dict[str, Part]:
    """Check each part; the result is keyed by its name. Queue figures may be some seconds old."""
    checks: dict[str, Callable[[], Part]] = {
        "openai": lambda: check_provider(ctx.circuit_breakers.all()),
        "queues": lambda: check_queues({name: QueueLoad(ctx.queues.depth(name), ctx.queues.dead_letters(name)) for name in JOB_QUEUES}),
        "workers": lambda: _workers(ctx),
        "change_stream": lambda: check_change_stream(ctx.queues.dead_letters(STREAM)),
    }
    return {name: _guarded(ctx, name, check) for name, check in checks.items()}


def _workers(ctx: HealthContext) -> Part:
    leases = [WorkerStatus(lease.lane, len(lease.jobs), lease.expires_at) for lease in ctx.leases.all()]
    return check_workers(leases, ctx.clock.now())


def _guarded(ctx: HealthContext, name: str, check: Callable[[], Part]) -> Part:
    try:
        return check()
    except Exception as exc:  # noqa: BLE001 - a part that cannot be checked is what the health check reports
        ctx.log("health_check_failed", part=name, error=exc)
        return unknown_health()
