"""Count jobs against their marks: mark and counters in one transaction, so that nothing is counted twice or half [21]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.batches import counters as batch_counters
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.metrics import throughput
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark, merge_increments
from chalicelib.ports import Clock, Counters, MarkUpdate
from chalicelib.services.retrying import CONFLICT_RETRY_DELAYS

MAX_TRANSACTION_ITEMS = 90  # marks and counters of one transaction; DynamoDB takes a hundred
MARK_TTL_SECONDS = 3 * 86_400  # seconds: longer than a change stream can be replayed

CountFunction = Callable[[CountMark, Job], tuple[list[CounterIncrement], Any]]

# What is counted, by its name in the marks: what a job adds beyond what its mark says, and what its mark is to say. None: nothing.
COUNTERS: dict[str, CountFunction] = {
    batch_counters.NAME: batch_counters.count_row,
    throughput.SPEED: throughput.count_job,
}


@dataclass(frozen=True, slots=True)
class CountEntry:
    """What is to be written for one job."""

    marked: MarkUpdate
    adds: tuple[CounterIncrement, ...]


def count_jobs(ledger: Counters, clock: Clock, jobs: Iterable[Job], *, consistent: bool = False) -> list[str]:
    """Count the newest of each job. The answer names the ones that could not be, because others counted them at every try.

    Raises:
        Unavailable: some may not have been counted; again, they are counted once all the same.
    """
    newest: dict[str, Job] = {}
    for job in jobs:
        if job.id not in newest or newest[job.id].version < job.version:
            newest[job.id] = job
    left = [job for job in newest.values() if is_counted(job)]
    for attempt, pause in enumerate(CONFLICT_RETRY_DELAYS):
        if left and pause:
            clock.sleep(pause)
        left = _count_once(ledger, clock, left, MAX_TRANSACTION_ITEMS >> attempt, consistent=consistent or attempt > 0)
    return [job.id for job in left]


def is_counted(job: Job) -> bool:
    """A row of a batch with each change; any other job only as it ends."""
    return job.batch_id is not None or job.status.is_terminal


def _count_once(ledger: Counters, clock: Clock, jobs: Sequence[Job], most: int, *, consistent: bool) -> list[Job]:
    """Those that met somebody else."""
    if not jobs:
        return []
    marks = ledger.marks([job.id for job in jobs], consistent=consistent)
    by_id = {job.id: job for job in jobs}
    entries = [entry for job in jobs if (entry := _entry(marks.get(job.id, CountMark(job_id=job.id)), job, clock)) is not None]
    failed: list[Job] = []
    for some in _transactions(entries, most):
        try:
            ledger.increment([entry.marked for entry in some], merge_increments([add for entry in some for add in entry.adds]))
        except StaleVersion:
            failed += [by_id[entry.marked.new.job_id] for entry in some]
    return failed


def _entry(mark: CountMark, job: Job, clock: Clock) -> CountEntry | None:
    """None: it was counted as this already, or as something later; or nothing counts it."""
    if mark.version >= job.version:
        return None
    adds: list[CounterIncrement] = []
    counted: dict[str, Any] = {}
    for name, tally in COUNTERS.items():
        more, said = tally(mark, job)
        adds += more
        if said is not None:
            counted[name] = said
    if not adds and not counted:
        return None
    lasts = batch_counters.COUNTER_TTL_SECONDS if job.batch_id is not None else MARK_TTL_SECONDS
    new = CountMark(job_id=job.id, version=job.version, counted=counted)
    return CountEntry(MarkUpdate(mark, new, clock.now() // 1000 + lasts), tuple(adds))


def _transactions(entries: Sequence[CountEntry], most: int) -> Iterable[list[CountEntry]]:
    """As many together as fit, marks and counters."""
    some: list[CountEntry] = []
    places: set[tuple[str, str]] = set()
    for entry in entries:
        more = places | {add.key for add in entry.adds}
        if some and len(some) + 1 + len(more) > most:
            yield some
            some, more = [], {add.key for add in entry.adds}
        some.append(entry)
        places = more
    if some:
        yield some
