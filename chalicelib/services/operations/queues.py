"""List the queues: the jobs of a type in a lane, with what is known about them without a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Forbidden, Unavailable
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.limits.pauses import Pause, PauseScope, PauseTarget, pause_of
from chalicelib.domain.queues.lanes import LANES
from chalicelib.ports import Queues
from chalicelib.services.load_pauses import load_pauses
from chalicelib.services.operations.pauses import OperatePausesContext

MAX_COUNTED = 100  # held jobs of a line that are counted: what one request reads
NOBODY = ""  # stands for a tenant without pauses of its own: only those for everybody cover its jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """The jobs of a type in a lane."""

    type: str
    lane: str
    queue: str  # where their wake-ups are: that of the lane, or `work`
    pause: Pause | None  # None: its jobs start
    messages: int | None  # in that queue, of all types and tenants; None: unknown, or not for this key


class QueuesContext(OperatePausesContext, Protocol):
    """What listing queues needs."""

    @property
    def queues(self) -> Queues: ...
    def all_job_types(self) -> tuple[JobType, ...]: ...


@dataclass(frozen=True, slots=True)
class HeldCount:
    """How many jobs a pause holds back, counted up to `MAX_COUNTED`."""

    jobs: int
    is_more: bool


def list_queues(ctx: QueuesContext, caller: Caller, scope: PauseScope) -> list[QueueView]:
    """Return the queues in a scope, by type and lane.

    Of a key of all tenants the pauses for everybody are shown, or those that hold `scope.tenant`.

    Raises:
        Forbidden: the scope is another tenant's.
    """
    if scope.tenant not in (None, caller.tenant) and not caller.all_tenants:
        raise Forbidden(f"This key lists the queues of {caller.tenant} only.")
    tenant = scope.tenant if caller.all_tenants else caller.tenant
    pauses = load_pauses(ctx, tenant) if tenant is not None else ctx.pauses.board().pauses
    now, depths = ctx.clock.now(), dict[str, int | None]()
    views: list[QueueView] = []
    for kind in _kinds(ctx, scope):
        for lane in LANES if scope.lane is None else (scope.lane,):
            queue = queue_for(lane, is_task=kind.is_task)
            if caller.all_tenants and queue not in depths:
                depths[queue] = _depth(ctx, queue)
            pause = pause_of(PauseTarget("", tenant or NOBODY, kind.name, lane), pauses, now)
            views.append(QueueView(type=kind.name, lane=lane, queue=queue, pause=pause, messages=depths.get(queue)))
    return views


def count_held(ctx: QueuesContext, tenant: str, causes: Sequence[str]) -> dict[str, HeldCount]:
    """Return how many jobs of a tenant each of these causes holds. One request each."""
    found = {cause: len(ctx.lines.held(cause, tenant, MAX_COUNTED + 1)) for cause in dict.fromkeys(causes)}
    return {cause: HeldCount(min(count, MAX_COUNTED), count > MAX_COUNTED) for cause, count in found.items()}


def _kinds(ctx: QueuesContext, scope: PauseScope) -> list[JobType]:
    return sorted((kind for kind in ctx.all_job_types() if scope.type in (None, kind.name)), key=lambda kind: kind.name)


def _depth(ctx: QueuesContext, queue: str) -> int | None:
    try:
        return ctx.queues.depth(queue)
    except Unavailable as exc:
        ctx.log("queue_depth_unavailable", queue=queue, error=exc)
        return None
