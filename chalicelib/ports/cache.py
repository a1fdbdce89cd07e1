"""The response cache."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.execution.response_cache import CachedResponse


class ResponseCache(Protocol):
    """Stores which attempt answered a request, by the hash of the request.

    An entry may still be there after `expires_at`: readers compare times.
    """

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        """Return the entry, not read consistently: one more miss does no harm."""

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        """Store an entry. It replaces an older one."""
