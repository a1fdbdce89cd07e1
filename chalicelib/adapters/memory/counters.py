"""Counters in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
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
