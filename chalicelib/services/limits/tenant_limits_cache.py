"""Cache the limits of tenants in one environment.

A change takes effect everywhere within half a minute. A tenant without limits of its own costs no
read: one small item names those that have any.
"""

from __future__ import annotations

from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, TenantLimitsStore
from chalicelib.services.log import Log

NAMES_TTL_MS, LIMITS_TTL_MS = 10_000, 15_000  # together below 30 s
MAX_TENANTS = 5_000  # whose limits are cached


class TenantLimitsCache:
    """The limits that hold for each tenant.

    Args:
        defaults: what holds for a tenant where it has no limits of its own.
    """

    def __init__(self, store: TenantLimitsStore, defaults: TenantLimits, clock: Clock, log: Log) -> None:
        self._store, self._defaults, self._clock, self._log = store, defaults, clock, log
        self._names: frozenset[str] = frozenset()
        self._names_read_at: Ms | None = None
        self._entries = BoundedCache[str, tuple[TenantLimits, Ms]](MAX_TENANTS)

    def get(self, tenant: str) -> TenantLimits:
        """Return the limits of a tenant, at most half a minute old: no request, or one or two.

        Limits that another version of the code wrote, and this one cannot read, are the last ones
        that could be read.

        Raises:
            Unavailable: the store did not answer, and this environment has not read them before.
            UnreadableRecord: the same for the names of the tenants that have limits.
        """
        if tenant not in self._limited():
            return self._unlimited(tenant)
        now = self._clock.now()
        limits, read_at = self._entries.get(tenant) or (None, 0)
        if limits is not None and 0 <= now - read_at < LIMITS_TTL_MS:
            return limits
        try:
            stored = self._store.get(tenant)
            limits = stored.with_defaults(self._defaults) if stored is not None else self._unlimited(tenant)
        except UnreadableRecord as exc:
            self._log("tenant_limits_unreadable", tenant=tenant, error=exc)
            limits = limits or self._unlimited(tenant)
        except Unavailable as exc:
            if limits is None:
                raise
            self._log("tenant_limits_unavailable", tenant=tenant, error=exc)
        self._entries.put(tenant, (limits, now))
        return limits

    def _limited(self) -> frozenset[str]:
        now = self._clock.now()
        if self._names_read_at is None or not 0 <= now - self._names_read_at < NAMES_TTL_MS:
            try:
                self._names = self._store.tenants()
            except (Unavailable, UnreadableRecord) as exc:
                if self._names_read_at is None:
                    raise
                self._log("tenant_limits_unavailable", error=exc)
            self._names_read_at = now
        return self._names

    def _unlimited(self, tenant: str) -> TenantLimits:
        return TenantLimits(tenant=tenant).with_defaults(self._defaults)
