"""Batches and counters, in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.units import Ms
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION, CounterKey

MOST_TOGETHER = 100


class MemoryCounters:
    """`counters` and `rows`, the marks, are open to tests."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, dict[str, int]] = {}
        self.rows: dict[str, CountMark] = {}
        self._lock = threading.Lock()

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        with self._lock:
            return {job_id: self.rows[job_id] for job_id in job_ids if job_id in self.rows}

    def increment(self, marked: Sequence[MarkUpdate], adds: Sequence[CounterIncrement]) -> None:
        if len(marked) + len(adds) > MOST_TOGETHER:
            raise ValueError(f"DynamoDB writes at most {MOST_TOGETHER} items together")
        with self._lock:
            for one in marked:
                there = self.rows.get(one.new.job_id)
                if (there.version if there else 0) != one.seen.version:
                    raise StaleVersion(there)
            for one in marked:
                self.rows[one.new.job_id] = one.new
            for add in adds:
                numbers = self.counters.setdefault(add.key, {})
                for name, amount in (*add.amounts.items(), (VERSION, 1)):
                    numbers[name] = numbers.get(name, 0) + amount

    def get(self, places: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        with self._lock:
            return {place: dict(self.counters[place]) for place in places if place in self.counters}

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        with self._lock:
            found = sorted(place for place in self.counters if place[0] == pk)[:limit]
            return {place[1]: dict(self.counters[place]) for place in found}

    def overwrite(self, place: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        with self._lock:
            if self.counters.get(place, {}).get(VERSION, 0) != version:
                return False
            self.counters[place] = {**numbers, VERSION: version + 1}
            return True


class MemoryBatches:
    """`rows` are the records, `open` the run of each that is named as open; both are open to tests."""

    def __init__(self) -> None:
        self.rows: dict[str, Batch] = {}
        self.open: dict[str, int] = {}
        self._lock = threading.Lock()

    def create(self, batch: Batch) -> None:
        with self._lock:
            self.open[batch.id] = max(batch.run, self.open.get(batch.id, 0))
            self.rows.setdefault(batch.id, batch)

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        with self._lock:
            found = self.rows.get(batch_id)
        return found if found is not None and found.tenant == tenant else None

    def replace(self, seen: Batch, new: Batch) -> None:
        with self._lock:
            if new.run > seen.run:
                self.open[new.id] = max(new.run, self.open.get(new.id, 0))
            current = self.rows.get(seen.id)
            if current == new:
                return
            if current is None or current.version != seen.version:
                raise StaleVersion(current)
            self.rows[seen.id] = new

    def mark_closed(self, batch: Batch) -> None:
        with self._lock:
            if self.open.get(batch.id) == batch.run:
                del self.open[batch.id]

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        with self._lock:
            mine = [batch for batch in self.rows.values() if batch.tenant == tenant and (before is None or batch.id < before)]
        found = sorted(mine, key=lambda batch: batch.id, reverse=True)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def stalled(self, now: Ms, limit: int) -> list[Batch]:
        with self._lock:
            names = sorted(name for name in self.open if name in self.rows)
            start = now // 60_000 * limit % len(names) if len(names) > limit else 0
            taken = (names + names)[start : start + min(limit, len(names))]
            return [self.rows[name] for name in taken if self.rows[name].locked_until <= now]


class MemoryBatchRows:
    """Rows as JSON, because that is what the real store gives back. `exports` is open to tests."""

    def __init__(self) -> None:
        self.exports: dict[str, str] = {}
        self._kept: dict[tuple[str, str, str], str] = {}

    def put_part(self, tenant: str, batch_id: str, part: int, rows: Sequence[Row]) -> None:
        self._kept[tenant, batch_id, f"part-{part}"] = json.dumps([row.to_dict() for row in rows])

    def get_part(self, tenant: str, batch_id: str, part: int) -> list[Row] | None:
        kept = self._kept.get((tenant, batch_id, f"part-{part}"))
        return [Row.from_dict(row) for row in json.loads(kept)] if kept is not None else None

    def put_options(self, tenant: str, batch_id: str, terms: Mapping[str, Any]) -> None:
        self._kept[tenant, batch_id, "terms"] = json.dumps(dict(terms))

    def get_options(self, tenant: str, batch_id: str) -> dict[str, Any] | None:
        kept = self._kept.get((tenant, batch_id, "terms"))
        return dict(json.loads(kept)) if kept is not None else None

    def put_export(self, tenant: str, batch_id: str, name: str, text: str, content_type: str) -> str:
        self.exports[name] = text
        return f"https://content.example/{batch_id}/{name}"
