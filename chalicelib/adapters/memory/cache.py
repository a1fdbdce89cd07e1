"""The response cache in memory."""

from __future__ import annotations

from chalicelib.domain.execution.response_cache import CachedResponse


class MemoryResponseCache:
    """Tests may use `rows`, the entries by tenant and key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], CachedResponse] = {}

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        return self.rows.get((tenant, key))

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        self.rows[tenant, key] = cached
