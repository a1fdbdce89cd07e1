"""Cache the limits of tenants in one environment.

A change takes effect everywhere within half a minute. A tenant without limits of its own costs no
read: one small item names those that have any.
"""

from __future__ import annotations

from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.limits.tenant_limits import MAX_INDEX_SHARDS, SHARDS_DELAY_MS, TenantLimits
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, TenantLimitsStore
from chalicelib.services.log import Log

NAMES_TTL_MS, LIMITS_TTL_MS = 10_000, 15_000  # together below 30 s
MAX_TENANTS = 5_000  # whose limits are cached
SHARDS_TTL_MS = SHARDS_DELAY_MS // 2  # the other half is for slow writes and clocks that differ


class TenantLimitsCache:
    """The limits that hold for each tenant.

    Args:
        defaults: what holds for a tenant where it has no limits of its own.
    """

    def __init__(self, store: TenantLimitsStore, defaults: TenantLimits, clock: Clock, log: Log) -> None:
        self._store, self._defaults, self._clock, self._log = store, defaults, clock, log
        self._names: frozenset[str] = frozenset()
        self._names_read_at: Ms | None = None
        self._names_known_at: Ms | None = None  # `_names_read_at` of the last read that succeeded
        self._entries = BoundedCache[str, tuple[TenantLimits, Ms]](MAX_TENANTS)
        self._known_at = BoundedCache[str, Ms](MAX_TENANTS)  # the same for the limits of a tenant

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
            self._known_at.put(tenant, now)
        except UnreadableRecord as exc:
            self._log("tenant_limits_unreadable", tenant=tenant, error=exc)
            limits = limits or self._unlimited(tenant)
        except Unavailable as exc:
            if limits is None:
                raise
            self._log("tenant_limits_unavailable", tenant=tenant, error=exc)
        self._entries.put(tenant, (limits, now))
        return limits

    def shards_of(self, tenant: str) -> int:
        """Return how many shards of the indexes have jobs of a tenant: no request, or one or two.

        If the limits cannot be read, these are as many as a tenant can have: a shard that is read
        without need holds nothing, and one that is left out hides jobs.
        """
        try:
            shards = self.get(tenant).shards
        except (Unavailable, UnreadableRecord) as exc:
            self._log("tenant_limits_unavailable", tenant=tenant, error=exc)
            return MAX_INDEX_SHARDS
        times = [self._names_known_at, self._known_at.get(tenant) if tenant in self._names else self._names_known_at]
        is_known = all(at is not None and 0 <= self._clock.now() - at < SHARDS_TTL_MS for at in times)
        return shards if is_known else max(shards, MAX_INDEX_SHARDS)

    def _limited(self) -> frozenset[str]:
        now = self._clock.now()
        if self._names_read_at is None or not 0 <= now - self._names_read_at < NAMES_TTL_MS:
            try:
                self._names = self._store.tenants()
                self._names_known_at = now
            except (Unavailable, UnreadableRecord) as exc:
                if self._names_read_at is None:
                    raise
                self._log("tenant_limits_unavailable", error=exc)
            self._names_read_at = now
        return self._names

    def _unlimited(self, tenant: str) -> TenantLimits:
        return TenantLimits(tenant=tenant).with_defaults(self._defaults)
