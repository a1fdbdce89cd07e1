"""Count the rows of a batch by state, their cost and tokens, and which of them failed.

The counts come from the change stream. Each row has a count mark that says how it is counted now,
so a change that arrives twice or late, or is lost, never counts a row twice
(`domain/metrics/counters.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.ids import row_of_job_id
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.units import Nano

NAME = "batch"  # the key of this count in a count mark
COUNTS = "counts"  # sort key of the counter of states, cost and tokens
# After the last change of a row: longer than any record of the batch is kept.
COUNTER_TTL_SECONDS = 100 * 86_400
# Rows whose failures share one item. Counting one writes at most 2 KB, and a hundred failed rows
# are found in few items.
ROWS_PER_FAILURE_COUNTER = 250
MAX_FAILURES = 100  # failed rows that are listed

_COUNTED_AS = {
    Status.WAITING: "waiting",
    Status.QUEUED: "queued",
    Status.RETRYING: "queued",
    Status.HELD: "queued",
    Status.PROCESSING: "processing",
    Status.COMPLETED: "completed",
    Status.INCOMPLETE: "failed",
    Status.FAILED: "failed",
    Status.EXPIRED: "failed",
    Status.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCounts:
    """The counters of a batch as they were read. Rows without a job are in none of them."""

    waiting: int = 0
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    known: int = 0  # rows that have a job: the sum of the above
    cost: Nano = 0
    input: int = 0  # tokens
    output: int = 0  # tokens
    version: int = 0  # grows with each change of any counter

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled

    @classmethod
    def of(cls, numbers: Mapping[str, int]) -> BatchCounts:
        return cls(**{name: numbers.get(name, 0) for name in cls.__dataclass_fields__})


def counter_partition(batch_id: str) -> str:
    """Return the partition key that all counters of a batch share."""
    return f"BC#{batch_id}"


def counter_key(batch_id: str) -> tuple[str, str]:
    return counter_partition(batch_id), COUNTS


def count_row(mark: CountMark, job: Job) -> tuple[list[CounterIncrement], Any]:
    """Return what a row's change adds to the counters, and how the row is counted from now on."""
    if job.batch_id is None:
        return [], None
    before: Mapping[str, Any] = mark.counted.get(NAME) or {}
    now: dict[str, Any] = {"as": _COUNTED_AS[job.status], "cost": job.cost or 0, **_tokens(job)}
    amounts: dict[str, int] = {name: now[name] - before.get(name, 0) for name in ("cost", "input", "output")}
    amounts["known"] = 0 if before else 1
    if now["as"] != before.get("as"):
        amounts |= {now["as"]: 1} | ({before["as"]: -1} if before else {})
    ttl = job.updated_at // 1000 + COUNTER_TTL_SECONDS
    return [CounterIncrement(key=counter_key(job.batch_id), amounts=amounts, ttl=ttl), *_failure_increments(job, before, now, ttl)], now


def failed_rows(counters: Mapping[str, Mapping[str, int]]) -> list[int]:
    """Return the first failed rows. `counters`: all counters of the batch by sort key."""
    rows = (int(name[1:]) for sk, numbers in counters.items() if sk != COUNTS for name, n in numbers.items() if n > 0 and name[:1] == "r")
    return sorted(rows)[:MAX_FAILURES]


def sum_counts(counted: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the counts that result from the count marks of all rows, to rebuild the counters."""
    sums: dict[str, int] = {}
    for row in counted:
        for name, amount in (("known", 1), (row["as"], 1), *((name, row[name]) for name in ("cost", "input", "output"))):
            sums[name] = sums.get(name, 0) + amount
    return sums


def _tokens(job: Job) -> dict[str, int]:
    return {"input": job.usage.input if job.usage else 0, "output": job.usage.output if job.usage else 0}


def _failure_increments(job: Job, before: Mapping[str, Any], now: Mapping[str, Any], ttl: int) -> list[CounterIncrement]:
    """Add the row to the list of failed rows, or remove it, if that has changed."""
    change = (now["as"] == "failed") - (before.get("as") == "failed")
    if not change or job.batch_id is None:
        return []
    row = row_of_job_id(job.id)
    key = counter_partition(job.batch_id), f"failed#{row // ROWS_PER_FAILURE_COUNTER:04}"
    return [CounterIncrement(key=key, amounts={f"r{row}": change}, ttl=ttl)]
