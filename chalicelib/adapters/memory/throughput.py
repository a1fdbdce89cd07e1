"""Throughput statistics in memory."""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.metrics.counters import CounterIncrement
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms


class MemoryThroughputStats:
    """Tests may use `rows`, the counters by key. They may be those of a `MemoryCounters`."""

    def __init__(self, rows: dict[tuple[str, str], dict[str, int]] | None = None) -> None:
        self.rows = {} if rows is None else rows

    def add(self, increments: Iterable[CounterIncrement]) -> None:
        """Add to the counters, as the consumer of the change stream does."""
        for one in increments:
            counter = self.rows.setdefault(one.key, {})
            for name, amount in one.amounts.items():
                counter[name] = counter.get(name, 0) + amount

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        return throughput_from(self.rows[key] for key in counter_keys(job_type, model, now) if key in self.rows)
