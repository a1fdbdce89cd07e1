"""Count jobs against their marks. Mark and counters are written in one transaction, so that a job
is never counted twice or in part (protocol rule 21: mark and counters in one transaction).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.batches import counters as batch_counters
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.metrics import throughput
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark, merge_increments
from chalicelib.ports import Clock, Counters, MarkUpdate
from chalicelib.ports.counters import WRITERS
from chalicelib.services.context import Context
from chalicelib.services.retrying import CONFLICT_RETRY_DELAYS

MAX_TRANSACTION_ITEMS = 100  # marks and counters of one transaction, by DynamoDB
MARK_TTL_SECONDS = 3 * 86_400  # longer than a change stream can be replayed

CountFunction = Callable[[CountMark, Job], tuple[list[CounterIncrement], Any]]

# The counts, by their names in the marks. Each function returns the increments since the mark, and
# what the new mark stores; None: nothing.
COUNTERS: dict[str, CountFunction] = {
    batch_counters.NAME: batch_counters.count_row,
    throughput.SPEED: throughput.count_job,
}


class CountContext(Context, Protocol):
    """What counting needs. `random` returns a number in [0, 1)."""

    @property
    def counters(self) -> Counters: ...
    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class CountEntry:
    """The writes for one job."""

    mark_update: MarkUpdate
    increments: tuple[CounterIncrement, ...]


def count_jobs(ctx: CountContext, jobs: Iterable[Job], *, consistent: bool = False) -> list[str]:
    """Count the newest record of each job. Return the ids that lost every try to another writer.

    Writers of the same counters come in each other's way. After the first try each adds to a part
    of the counters that is drawn by lot, after a pause of random length.

    Args:
        consistent: read the marks consistently from the first try on.

    Raises:
        Unavailable: some jobs may not have been counted. Repeating it counts no job twice.
    """
    newest: dict[str, Job] = {}
    for job in jobs:
        if job.id not in newest or newest[job.id].version < job.version:
            newest[job.id] = job
    remaining = [job for job in newest.values() if is_counted(job)]
    for attempt, delay in enumerate(CONFLICT_RETRY_DELAYS):
        if remaining and delay:
            ctx.clock.sleep(delay * (0.5 + ctx.random()))
        writer = 1 + int(ctx.random() * WRITERS) if attempt else 0
        size = MAX_TRANSACTION_ITEMS >> max(0, attempt - 1)  # one mark that keeps changing must not stop ninety
        remaining = _try_count(ctx, remaining, size, writer, consistent=consistent or attempt > 0)
    return [job.id for job in remaining]


def is_counted(job: Job) -> bool:
    """Whether this record is counted: a batch row at each change, any other job only at its end."""
    return job.batch_id is not None or job.status.is_terminal


def _try_count(ctx: CountContext, jobs: Sequence[Job], max_items: int, writer: int, *, consistent: bool) -> list[Job]:
    """Count jobs in transactions of at most `max_items`; return those that lost to another writer."""
    if not jobs:
        return []
    marks = ctx.counters.marks([job.id for job in jobs], consistent=consistent)
    by_id = {job.id: job for job in jobs}
    entries = [entry for job in jobs if (entry := _entry(marks.get(job.id, CountMark(job_id=job.id)), job, ctx.clock)) is not None]
    failed: list[Job] = []
    for chunk in _transactions(entries, max_items):
        try:
            ctx.counters.increment(
                [entry.mark_update for entry in chunk],
                merge_increments([increment for entry in chunk for increment in entry.increments]),
                writer,
            )
        except StaleVersion:
            failed += [by_id[entry.mark_update.new.job_id] for entry in chunk]
    return failed


def _entry(mark: CountMark, job: Job, clock: Clock) -> CountEntry | None:
    """Return the writes for a job; None: this or a later version is counted, or nothing counts it."""
    if mark.version >= job.version:
        return None
    increments: list[CounterIncrement] = []
    counted: dict[str, Any] = {}
    for name, count in COUNTERS.items():
        added, new_mark = count(mark, job)
        increments += added
        if new_mark is not None:
            counted[name] = new_mark
    if not increments and not counted:
        return None
    # What a newer version of the code counts besides stays in the mark; otherwise it would count the job again.
    counted = {name: stored for name, stored in mark.counted.items() if name not in COUNTERS} | counted
    ttl = batch_counters.COUNTER_TTL_SECONDS if job.batch_id is not None else MARK_TTL_SECONDS
    new = CountMark(job_id=job.id, version=job.version, counted=counted)
    return CountEntry(MarkUpdate(mark, new, clock.now() // 1000 + ttl), tuple(increments))


def _transactions(entries: Sequence[CountEntry], max_items: int) -> Iterable[list[CountEntry]]:
    """Group the entries so that the marks and counters of each group fit into one transaction."""
    chunk: list[CountEntry] = []
    keys: set[tuple[str, str]] = set()
    for entry in entries:
        merged = keys | {increment.key for increment in entry.increments}
        if chunk and len(chunk) + 1 + len(merged) > max_items:
            yield chunk
            chunk, merged = [], {increment.key for increment in entry.increments}
        chunk.append(entry)
        keys = merged
    if chunk:
        yield chunk
