"""Take a place in the queue of a tenant: queued-jobs limits, by lane and in total.

A job has its places from its creation, or a retry, until it has ended. They are counted in the
write of its record, so the numbers are exact. A tenant without such a limit makes no request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeVar

from chalicelib.domain.errors import QueueFull, SlotsFull
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.slots import scope_of, slot_keys
from chalicelib.domain.limits.tenant_limits import TOTAL, TenantLimits, queue_in, queue_scope
from chalicelib.ports import Jobs

TRIES = 3  # each after another look: others took the last place
RETRY_AFTER = 30  # seconds

T = TypeVar("T")
Places = tuple[str, ...]


class PlaceContext(Protocol):
    """What taking a place needs."""

    @property
    def jobs(self) -> Jobs: ...
    def limits_of(self, tenant: str) -> TenantLimits: ...


def take_places(
    ctx: PlaceContext, tenant: str, lane: str, job_id: str, write: Callable[[Places, Mapping[str, int]], T], *, kept: Collection[str] = ()
) -> T:
    """Make a write that takes the places of a job in a lane.

    Args:
        write: gets the keys of the places, and how many places each key has.
        kept: places that the job has already; those of other lanes are given back.

    Raises:
        QueueFull: the tenant has as many jobs there as it may.
    """
    staying = tuple(key for key in kept if scope_of(key) in (queue_scope(tenant, lane), queue_scope(tenant, TOTAL)))
    limits = [limit for limit in ctx.limits_of(tenant).places_of(lane) if limit.scope not in map(scope_of, staying)]
    if not limits:
        return write(staying, {})
    full = ""
    for _ in range(TRIES):
        taken = ctx.jobs.slots_taken([key for limit in limits for key in limit.keys])
        found = slot_keys(job_id, limits, taken)
        if isinstance(found, str):
            used = next(limit.used(taken) for limit in limits if limit.scope == found)
            raise _full(ctx, tenant, found, used)
        try:
            return write((*staying, *found.keys), found.limits)
        except SlotsFull as exc:
            full = exc.scope
    raise _full(ctx, tenant, full, None)


def take_places_again(ctx: PlaceContext, job: Job, write: Callable[[Places, Mapping[str, int]], T]) -> T:
    """Like `take_places`, for a job that has ended and begins anew; one that has not ended keeps its places."""
    if not job.status.is_terminal:
        return write(job.places, {})
    return take_places(ctx, job.tenant, job.lane, job.id, write)


def _full(ctx: PlaceContext, tenant: str, scope: str, used: int | None) -> QueueFull:
    lane = queue_in(scope)
    limit = ctx.limits_of(tenant).queued.get(lane, 0)
    count = limit if used is None else used
    where = "in all lanes together" if lane == TOTAL else f"in the {lane} lane"
    message = f"This tenant may have {limit} unfinished jobs {where}, and has {count}. Try again when some have ended."
    facts = {"lane": None if lane == TOTAL else lane, "limit": limit, "open": count}
    return QueueFull(message, retry_after=RETRY_AFTER, facts=facts)
