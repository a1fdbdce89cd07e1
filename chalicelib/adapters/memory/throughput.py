"""The measured speeds in memory."""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.metrics.counters import CounterIncrement
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms


class MemoryThroughputStats:
    """`rows` is open to tests: the counters by their two keys. It may be those of another twin, which counts."""

    def __init__(self, rows: dict[tuple[str, str], dict[str, int]] | None = None) -> None:
        self.rows = {} if rows is None else rows

    def add(self, adds: Iterable[CounterIncrement]) -> None:
        """What the projection does."""
        for one in adds:
            counter = self.rows.setdefault(one.key, {})
            for name, amount in one.amounts.items():
                counter[name] = counter.get(name, 0) + amount

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        return throughput_from(self.rows[place] for place in counter_keys(job_type, model, now) if place in self.rows)
