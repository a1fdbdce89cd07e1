"""Batches in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.adapters.memory.record_table import RecordTable
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.units import Ms


class MemoryBatches:
    """Tests may use `rows`, the records by id, and `open`, the run of each batch in the index."""

    def __init__(self) -> None:
        self._table: RecordTable[str, Batch] = RecordTable(lambda batch: batch.id)
        self.rows = self._table.rows
        self.open: dict[str, int] = {}
        self._lock = threading.Lock()

    def create(self, batch: Batch) -> None:
        self._mark_open(batch)
        self._table.create(batch)

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        found = self._table.get(batch_id)
        return found if found is not None and found.tenant == tenant else None

    def replace(self, seen: Batch, new: Batch) -> None:
        if new.run > seen.run:
            self._mark_open(new)
        self._table.replace(seen, new)

    def _mark_open(self, batch: Batch) -> None:
        with self._lock:
            self.open[batch.id] = max(batch.run, self.open.get(batch.id, 0))

    def mark_closed(self, batch: Batch) -> None:
        with self._lock:
            if self.open.get(batch.id) == batch.run:
                del self.open[batch.id]

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        wanted = self._table.select(lambda batch: batch.tenant == tenant, lambda batch: batch.id, reverse=True)
        found = [batch for batch in wanted if before is None or batch.id < before]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def stalled(self, now: Ms, after: str | None, limit: int) -> tuple[list[Batch], str | None]:
        with self._lock:
            ids = sorted(batch_id for batch_id in self.open if after is None or batch_id > after)[:limit]
            found = [self.rows[batch_id] for batch_id in ids if batch_id in self.rows]
        return [batch for batch in found if batch.locked_until <= now], ids[-1] if len(ids) == limit else None


class MemoryBatchRows:
    """Stores rows as JSON, as the real store does. Tests may use `exports`, texts by name."""

    def __init__(self) -> None:
        self.exports: dict[str, str] = {}
        self._kept: dict[tuple[str, str, str], str] = {}

    def put_part(self, tenant: str, batch_id: str, part: int, rows: Sequence[Row]) -> None:
        self._kept[tenant, batch_id, f"part-{part}"] = json.dumps([row.to_dict() for row in rows])

    def get_part(self, tenant: str, batch_id: str, part: int) -> list[Row] | None:
        stored = self._kept.get((tenant, batch_id, f"part-{part}"))
        return [Row.from_dict(row) for row in json.loads(stored)] if stored is not None else None

    def put_options(self, tenant: str, batch_id: str, options: Mapping[str, Any]) -> None:
        self._kept[tenant, batch_id, "options"] = json.dumps(dict(options))

    def get_options(self, tenant: str, batch_id: str) -> dict[str, Any] | None:
        stored = self._kept.get((tenant, batch_id, "options"))
        return dict(json.loads(stored)) if stored is not None else None

    def put_export(self, tenant: str, batch_id: str, name: str, text: str, content_type: str) -> str:
        self.exports[name] = text
        return f"https://content.example/{batch_id}/{name}"
