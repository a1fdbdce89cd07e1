"""Bulk operations in memory."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.adapters.memory.record_table import RecordTable
from chalicelib.domain.jobs.bulk_operation import BulkKey, BulkOperation
from chalicelib.domain.units import Ms


class MemoryBulkOperations:
    """Tests may use `rows`, the records by id, and `order`, the names of those that asked for a turn."""

    def __init__(self) -> None:
        self.order: dict[str, BulkKey] = {}
        self._table: RecordTable[str, BulkOperation] = RecordTable(lambda bulk: bulk.id)
        self.rows = self._table.rows

    def create(self, bulk: BulkOperation) -> None:
        self._table.create(bulk)

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        found = self._table.get(bulk_id)
        return found if found is not None and found.tenant == tenant else None

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        self._table.replace(seen, new)
        if new.finished_at is not None:
            self.order.pop(new.id, None)

    def unfinished(self, after: str | None, limit: int) -> tuple[list[BulkKey], str | None]:
        rows = self._table.select(lambda bulk: bulk.finished_at is None and (after is None or bulk.id > after), lambda bulk: bulk.id)
        page = [BulkKey(bulk.tenant, bulk.id, bulk.created_at) for bulk in rows[:limit]]
        return page, page[-1].id if len(page) == limit else None

    def load_unfinished(self, keys: Sequence[BulkKey], now: Ms) -> list[BulkOperation]:
        found = (self.get(key.tenant, key.id) for key in keys)
        return [bulk for bulk in found if bulk is not None and bulk.finished_at is None]

    def request_turn(self, key: BulkKey) -> None:
        self.order[key.id] = key

    def give_up_turn(self, key: BulkKey) -> None:
        self.order.pop(key.id, None)

    def turns(self, tenant: str, limit: int | None) -> list[BulkKey]:
        return sorted((key for key in list(self.order.values()) if key.tenant == tenant), key=lambda key: key.id)[:limit]
