"""The limits of tenants."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.limits.tenant_limits import TenantLimits


class TenantLimitsStore(Protocol):
    """Stores the limits of the tenants that have some of their own."""

    def tenants(self) -> frozenset[str]:
        """Return the tenants whose limits may be stored, not read consistently. One small request.

        Raises:
            UnreadableRecord: another version of the code wrote their names.
        """

    def get(self, tenant: str) -> TenantLimits | None:
        """Return the limits of one tenant, read consistently.

        Raises:
            UnreadableRecord: another version of the code wrote them.
        """

    def all(self) -> list[TenantLimits]:
        """Return all that are stored and can be read, by tenant. One request for each megabyte."""

    def replace(self, seen: TenantLimits, new: TenantLimits) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen` (0: none is stored).

        A repeated swap succeeds. Two requests.

        Raises:
            StaleVersion: the version has changed; `current` is what is stored.
        """
