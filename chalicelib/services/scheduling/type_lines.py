"""Release the jobs that wait for the limits of their type: as many as have a slot and may start in this minute."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import JobTypeNotFound, Unavailable, UnreadableRecord
from chalicelib.domain.limits.sliding_window import Frames, Limits
from chalicelib.domain.limits.slots import SlotLimit, tenant_scope, type_scope
from chalicelib.domain.limits.type_rate import ACCOUNT, rate_of
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import SchedulingContext

NO_LIMIT = Limits()


@dataclass(frozen=True, slots=True)
class TypeRoom:
    """What the limits of a type allow now."""

    free: int | None  # slots that are free; None: the number of its running jobs is not limited
    limits: Limits  # of its starts
    frames: Frames = ()  # its starts of the last minutes


def read_room(ctx: SchedulingContext, name: str, now: Ms) -> TypeRoom | None:
    """Read what the limits of a type allow now; None: this version of the code does not know the type."""
    try:
        kind = ctx.job_type(name)
    except JobTypeNotFound:
        return None
    free = None
    if kind.limits is not None and kind.limits.concurrency is not None:
        limit = SlotLimit(scope=type_scope(name), limit=kind.limits.concurrency)
        free = limit.free(ctx.jobs.slots_taken(limit.keys))
    limits = rate_of(kind.limits.per_minute) if kind.limits is not None else None
    return TypeRoom(free, limits or NO_LIMIT, ctx.rates.frames(ACCOUNT, name, now) if limits is not None else ())


def count_starts(ctx: SchedulingContext, name: str, count: int, now: Ms) -> Frames:
    """Count the starts of jobs that are about to be released. Returns the frames with them."""
    return ctx.rates.take(ACCOUNT, name, 0, count, now)


def uncount_starts(ctx: SchedulingContext, name: str, count: int, at: Ms) -> None:
    """Take starts off again, of jobs that are not released."""
    ctx.rates.give_back(ACCOUNT, name, 0, count, at)


def free_of_tenants(ctx: SchedulingContext, tenants: Sequence[str]) -> dict[str, int]:
    """Return how many more jobs may run of those tenants whose number is limited. One request for each hundred keys."""
    limits = {tenant: limit for tenant in tenants if (limit := ctx.limits_of(tenant).slot_limit(tenant_scope(tenant))) is not None}
    taken = ctx.jobs.slots_taken([key for limit in limits.values() for key in limit.keys]) if limits else {}
    return {tenant: limit.free(taken) for tenant, limit in limits.items()}


def weights_of(ctx: SchedulingContext, tenants: Collection[str]) -> dict[str, float]:
    """Return the shares of tenants; 1 for all if they cannot be read: the order is worse, but no job waits for it."""
    try:
        return {tenant: ctx.limits_of(tenant).weight for tenant in tenants}
    except (Unavailable, UnreadableRecord) as exc:
        ctx.log("tenant_limits_unavailable", error=exc)
        return {}
