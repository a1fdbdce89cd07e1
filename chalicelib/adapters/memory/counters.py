"""Counters in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION, CounterKey

MAX_ITEMS = 100  # of a DynamoDB transaction


class MemoryCounters:
    """Tests may use `counters`, by key, and `rows`, the marks by job id."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, dict[str, int]] = {}
        self.rows: dict[str, CountMark] = {}
        self._lock = threading.Lock()

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        with self._lock:
            return {job_id: self.rows[job_id] for job_id in job_ids if job_id in self.rows}

    def increment(self, marks: Sequence[MarkUpdate], increments: Sequence[CounterIncrement], writer: int = 0) -> None:
        """Writers never meet, because they take turns here; so a counter has one part."""
        if len(marks) + len(increments) > MAX_ITEMS:
            raise ValueError(f"DynamoDB writes at most {MAX_ITEMS} items in one transaction")
        with self._lock:
            for update in marks:
                stored = self.rows.get(update.new.job_id)
                if (stored.version if stored else 0) != update.seen.version:
                    raise StaleVersion(stored)
            for update in marks:
                self.rows[update.new.job_id] = update.new
            for increment in increments:
                numbers = self.counters.setdefault(increment.key, {})
                for name, amount in (*increment.amounts.items(), (VERSION, 1)):
                    numbers[name] = numbers.get(name, 0) + amount

    def get(self, keys: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        with self._lock:
            return {key: dict(self.counters[key]) for key in keys if key in self.counters}

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        with self._lock:
            found = sorted(key for key in self.counters if key[0] == pk)[:limit]
            return {key[1]: dict(self.counters[key]) for key in found}

    def overwrite(self, key: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        with self._lock:
            if self.counters.get(key, {}).get(VERSION, 0) != version:
                return False
            self.counters[key] = {**numbers, VERSION: version + 1}
            return True
