"""The response cache."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.execution.response_cache import CachedResponse


class ResponseCache(Protocol):
    """Whose answer may serve again, by the key of its request. A row may be there beyond its end: readers compare times."""

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        """Not read consistently: a miss more does no harm."""

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        """The latest stays."""
