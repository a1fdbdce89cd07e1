"""Show and set the limits of tenants.

`view_limits` puts together what `GET /limits` answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.limits.slots import tenant_scope, user_scope
from chalicelib.domain.limits.tenant_limits import LimitsChange, TenantLimits, change_limits
from chalicelib.ports import Jobs, TenantLimitsStore
from chalicelib.services.compare_and_swap import update
from chalicelib.services.context import Context

MAX_LIMITED_TENANTS = 5_000  # their names are one item of the store


class LimitsContext(Context, Protocol):
    """What showing and setting limits needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def tenant_limits(self) -> TenantLimitsStore: ...
    @property
    def default_limits(self) -> TenantLimits:
        """The stage's limits of a tenant that has none of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """The limits that hold for a tenant, and how much of them is used.

    Attributes:
        running: its jobs that run now; None: it has no concurrency limit, so nobody counts them.
        user_running: the same for the caller's user, None also for other tenants than the caller's.
    """

    limits: TenantLimits
    running: int | None = None
    user_running: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsView:
    """The limits that a caller may see.

    Attributes:
        tenant: those of the caller's tenant.
        tenants: those of every tenant that has some of its own; None for a key of one tenant.
    """

    tenant: TenantUse
    tenants: tuple[TenantUse, ...] | None = None


def view_limits(ctx: LimitsContext, caller: Caller) -> LimitsView:
    """Return the limits that concern a caller. They are read from the store, not from a cache."""
    own = ctx.tenant_limits.get(caller.tenant) or TenantLimits(tenant=caller.tenant)
    stored = ctx.tenant_limits.all() if caller.all_tenants else []
    return LimitsView(
        tenant=_uses(ctx, [own], caller.user)[0],
        tenants=tuple(_uses(ctx, stored)) if caller.all_tenants else None,
    )


def set_limits(ctx: LimitsContext, tenant: str, change: LimitsChange, by: str) -> TenantUse:
    """Set limits of a tenant, and return those that hold now. They take effect within half a minute.

    Raises:
        InvalidRequest: too many tenants have limits of their own.
    """
    seen = ctx.tenant_limits.get(tenant)
    if seen is None and len(ctx.tenant_limits.tenants()) >= MAX_LIMITED_TENANTS:
        message = f"{MAX_LIMITED_TENANTS} tenants have limits of their own; set the limits of the stage for the others"
        raise InvalidRequest(details=(Detail("tenant", message),))
    none = TenantLimits(tenant=tenant)
    new = update(ctx.tenant_limits.replace, seen or none, lambda current: change_limits(current, change, by, ctx.clock.now()), missing=none)
    limits = new or none
    if limits != seen:
        ctx.log("tenant_limits_set", tenant=tenant, by=by, version=limits.version)
    return _uses(ctx, [limits])[0]


def _uses(ctx: LimitsContext, stored: list[TenantLimits], user: str | None = None) -> list[TenantUse]:
    held = [limits.with_defaults(ctx.default_limits) for limits in stored]
    scopes = {limit.scope: limit for limits in held for limit in limits.slots_of(user or "")}
    if user is None:
        scopes = {scope: limit for scope, limit in scopes.items() if scope.startswith(tenant_scope(""))}
    taken: Mapping[str, int] = ctx.jobs.slots_taken([key for limit in scopes.values() for key in limit.keys]) if scopes else {}
    used = {scope: limit.used(taken) for scope, limit in scopes.items()}
    return [
        TenantUse(
            limits=limits,
            running=used.get(tenant_scope(limits.tenant)),
            user_running=used.get(user_scope(limits.tenant, user)) if user is not None else None,
        )
        for limits in held
    ]
