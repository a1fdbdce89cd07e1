"""Bulk operations in memory."""

from __future__ import annotations

import threading

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.units import Ms


class MemoryBulkOperations:
    """Tests may use `rows`, the records by id."""

    def __init__(self) -> None:
        self.rows: dict[str, BulkOperation] = {}
        self._lock = threading.Lock()

    def create(self, bulk: BulkOperation) -> None:
        with self._lock:
            self.rows.setdefault(bulk.id, bulk)

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        with self._lock:
            found = self.rows.get(bulk_id)
        return found if found is not None and found.tenant == tenant else None

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        with self._lock:
            current = self.rows.get(seen.id)
            if current == new:
                return
            if current is None or current.version != seen.version:
                raise StaleVersion(current)
            self.rows[seen.id] = new

    def unfinished(self, now: Ms, limit: int) -> list[BulkOperation]:
        with self._lock:
            unfinished = [bulk for bulk in self.rows.values() if bulk.finished_at is None and bulk.locked_until <= now]
        return sorted(unfinished, key=lambda bulk: bulk.id)[:limit]
