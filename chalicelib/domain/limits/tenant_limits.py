"""The limits of a tenant: its share, how many of its jobs run at once, how many may wait, and how many
shards the indexes have for its jobs.

An operator of all tenants sets them. What is not set is as the stage's settings say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.limits.slots import SlotLimit, shards_of, tenant_scope, user_scope
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms

TOTAL = "total"  # the queued-jobs limit of all lanes together
QUEUED = (TOTAL, *LANES)  # what queued-jobs limits are for
MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0
MAX_CONCURRENCY = 100_000
MAX_QUEUED = 100_000_000
MAX_INDEX_SHARDS = 16
SHARDS_DELAY_MS = 120_000  # before new shards are written: every reader knows of them by then


class FairBy(StrEnum):
    """Among whom the share of a tenant is divided."""

    TENANT = "tenant"  # nobody: its jobs start by lane and age, whoever submitted them
    USER = "user"  # its users: each gets as much as the others that wait, and its jobs start by lane and age


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """The limits of a tenant. None: as the stage's settings say."""

    tenant: str
    version: int = 0  # grows with each write; 0: nothing is stored
    weight: float = 1.0  # its share, compared with the other tenants that wait for the same
    fair_by: str = FairBy.TENANT.value  # a value of `FairBy`; one of a newer version of the code counts as the default
    was_by_user: bool = False  # it was `FairBy.USER` once: jobs may still wait in lines by user
    concurrency: int | None = None  # its jobs that run at once
    user_concurrency: int | None = None  # the same for each of its users
    queued: Mapping[str, int] = field(default_factory=dict)  # its jobs that have not ended, by lane and in total
    # The highest limits so far: slots may be taken in as many shards as they had.
    highest_concurrency: int = 0
    highest_user_concurrency: int = 0
    highest_queued: Mapping[str, int] = field(default_factory=dict)
    # In how many shards the indexes have its jobs: readers read all of them at once, jobs that are
    # submitted before `shards_from` are in the first `former_shards`.
    shards: int = 1
    shards_from: Ms = 0
    former_shards: int = 1
    updated_at: Ms = 0
    updated_by: str | None = None  # the user who set them; None: nobody has
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)  # of a newer version of the code

    def with_defaults(self, defaults: TenantLimits) -> TenantLimits:
        """Return the limits that hold: the tenant's own, and `defaults` where it has none."""
        return replace(
            self,
            concurrency=defaults.concurrency if self.concurrency is None else self.concurrency,
            user_concurrency=defaults.user_concurrency if self.user_concurrency is None else self.user_concurrency,
            queued={**defaults.queued, **self.queued},
        )

    def shards_at(self, now: Ms) -> int:
        """Return in how many shards the jobs are that are submitted now."""
        return self.shards if now >= self.shards_from else self.former_shards

    @property
    def is_by_user(self) -> bool:
        return self.fair_by == FairBy.USER

    def slots_of(self, user: str) -> list[SlotLimit]:
        """Return the concurrency limits of a user's jobs; empty if there are none."""
        found = []
        if self.concurrency is not None:
            scope, highest = tenant_scope(self.tenant), self.highest_concurrency
            found.append(SlotLimit(scope=scope, limit=self.concurrency, former_shards=shards_of(highest)))
        if self.user_concurrency is not None:
            scope, highest = user_scope(self.tenant, user), self.highest_user_concurrency
            found.append(SlotLimit(scope=scope, limit=self.user_concurrency, former_shards=shards_of(highest)))
        return found

    def places_of(self, lane: str) -> list[SlotLimit]:
        """Return the queued-jobs limits of the jobs of a lane; empty if there are none."""
        return [
            SlotLimit(
                scope=queue_scope(self.tenant, name), limit=self.queued[name], former_shards=shards_of(self.highest_queued.get(name, 0))
            )
            for name in (TOTAL, lane)
            if name in self.queued
        ]

    def slot_limit(self, scope: str) -> SlotLimit | None:
        """Return the concurrency limit of a scope of this tenant; None: it has none."""
        user = scope.removeprefix(user_scope(self.tenant, ""))
        return next((limit for limit in self.slots_of(user) if limit.scope == scope), None)


def queue_scope(tenant: str, lane: str) -> str:
    """Return the scope of the places of a tenant in a lane, or in `TOTAL`."""
    return f"q:{lane}#{tenant}"


def queue_in(scope: str) -> str:
    """Return the lane, or `TOTAL`, of such a scope."""
    return scope.removeprefix("q:").partition("#")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsChange:
    """What an operator sets: the names of fields with their values. None: back to the stage's setting.

    Attributes:
        values: `weight`, `fair_by`, `concurrency`, `user_concurrency` and `shards`, which is never None.
        queued: queued-jobs limits by lane, and `total`; what it does not name stays.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    queued: Mapping[str, int | None] = field(default_factory=dict)


_UNSET: Mapping[str, Any] = {"weight": 1.0, "fair_by": FairBy.TENANT.value, "concurrency": None, "user_concurrency": None}


def change_limits(seen: TenantLimits, change: LimitsChange, by: str, now: Ms) -> TenantLimits:
    """Return the changed limits; the same object if nothing changes.

    Raises:
        InvalidRequest: the number of shards cannot be what it would be.
    """
    values: dict[str, Any] = {name: _UNSET[name] if value is None else value for name, value in change.values.items()}
    values |= _grown(seen, values.get("shards", seen.shards), now)
    queued = {name: limit for name, limit in {**seen.queued, **change.queued}.items() if limit is not None}
    new = replace(seen, **values, queued=queued)
    if new == seen:
        return seen
    return replace(
        new,
        version=seen.version + 1,
        was_by_user=seen.was_by_user or new.is_by_user,
        highest_concurrency=max(seen.highest_concurrency, new.concurrency or 0),
        highest_user_concurrency=max(seen.highest_user_concurrency, new.user_concurrency or 0),
        highest_queued={name: max(seen.highest_queued.get(name, 0), limit) for name, limit in {**seen.highest_queued, **queued}.items()},
        updated_at=now,
        updated_by=by,
    )


def _grown(seen: TenantLimits, shards: int, now: Ms) -> dict[str, int]:
    """Return what changes with the number of shards. It never shrinks: the jobs that are there stay in their shards."""
    if shards == seen.shards:
        return {}
    if shards < seen.shards or shards & (shards - 1) or shards > MAX_INDEX_SHARDS:
        message = f"must be a power of two from {seen.shards}, which the tenant has now, to {MAX_INDEX_SHARDS}; it is {shards}"
        raise InvalidRequest(details=(Detail("shards", message),))
    return {"shards": shards, "shards_from": now + SHARDS_DELAY_MS, "former_shards": seen.shards_at(now)}
