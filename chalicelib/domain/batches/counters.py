"""What is counted of a batch: how many of its rows are where, what they cost, and which have failed.

Counted from the change stream, against the mark of each row, so that whatever comes twice, late or not at all is counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.ids import row_of_job_id
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.units import Nano

NAME = "batch"  # of this count, in a mark
COUNTS = "counts"
KEPT_SECONDS = 100 * 86_400  # after the last change of a row: longer than anything of it is kept
ROWS_PER_FAILURE_COUNTER = (
    250  # rows whose failures share an item: so that counting one writes two KB at most, and a hundred are found soon
)
MAX_FAILURES = 100  # that are shown

_AS = {
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
    """The rows that have jobs, by where they are; `known` is all of them. `version` grows with each change of any of it."""

    waiting: int = 0
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    known: int = 0
    cost: Nano = 0
    input: int = 0
    output: int = 0
    version: int = 0

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled

    @classmethod
    def of(cls, numbers: Mapping[str, int]) -> BatchCounts:
        return cls(**{name: numbers.get(name, 0) for name in cls.__dataclass_fields__})


def counter_partition(batch_id: str) -> str:
    """Where the counters of a batch are, all together."""
    return f"BC#{batch_id}"


def counter_key(batch_id: str) -> tuple[str, str]:
    return counter_partition(batch_id), COUNTS


def count_row(mark: CountMark, job: Job) -> tuple[list[CounterIncrement], Any]:
    """What a row adds to its batch beyond what it was counted as, and as what it is counted now."""
    if job.batch_id is None:
        return [], None
    before: Mapping[str, Any] = mark.counted.get(NAME) or {}
    now: dict[str, Any] = {"as": _AS[job.status], "cost": job.cost or 0, **_tokens(job)}
    amounts: dict[str, int] = {name: now[name] - before.get(name, 0) for name in ("cost", "input", "output")}
    amounts["known"] = 0 if before else 1
    if now["as"] != before.get("as"):
        amounts |= {now["as"]: 1} | ({before["as"]: -1} if before else {})
    ttl = job.updated_at // 1000 + KEPT_SECONDS
    return [CounterIncrement(key=counter_key(job.batch_id), amounts=amounts, ttl=ttl), *_failure(job, before, now, ttl)], now


def failed_rows(counters: Mapping[str, Mapping[str, int]]) -> list[int]:
    """The first rows that have failed, of all counters of a batch."""
    rows = (int(name[1:]) for sk, numbers in counters.items() if sk != COUNTS for name, n in numbers.items() if n > 0 and name[:1] == "r")
    return sorted(rows)[:MAX_FAILURES]


def sum_counts(counted: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What the counters must say if these are all the marks of a batch's rows."""
    sums: dict[str, int] = {}
    for one in counted:
        for name, amount in (("known", 1), (one["as"], 1), *((name, one[name]) for name in ("cost", "input", "output"))):
            sums[name] = sums.get(name, 0) + amount
    return sums


def _tokens(job: Job) -> dict[str, int]:
    return {"input": job.usage.input if job.usage else 0, "output": job.usage.output if job.usage else 0}


def _failure(job: Job, before: Mapping[str, Any], now: Mapping[str, Any], ttl: int) -> list[CounterIncrement]:
    change = (now["as"] == "failed") - (before.get("as") == "failed")
    if not change or job.batch_id is None:
        return []
    row = row_of_job_id(job.id)
    return [
        CounterIncrement(
            key=(counter_partition(job.batch_id), f"failed#{row // ROWS_PER_FAILURE_COUNTER:04}"), amounts={f"r{row}": change}, ttl=ttl
        )
    ]
