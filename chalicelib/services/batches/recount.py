"""Recount the rows of a batch from their job records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import COUNTER_TTL_SECONDS, NAME, counter_key, sum_counts
from chalicelib.domain.errors import Throttled
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.metrics.counters import CountMark
from chalicelib.ports.counters import VERSION
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.load_jobs import load_readable_jobs
from chalicelib.services.metrics.count_jobs import count_jobs

PAGE_SIZE = 100
MAX_ATTEMPTS = 10  # each lost attempt means that another writer changed the counters


def recount_batch(ctx: BatchContext, batch: Batch) -> None:
    """Count each row as it is now, whatever the change stream has delivered. None is counted twice.

    It reads each job and its mark, and writes only where they differ.
    """
    for ids in _pages_of_job_ids(batch):
        jobs = load_readable_jobs(ctx.jobs, ctx.log, ids, consistent=True).jobs  # the others stay as they are counted
        if jobs:
            count_jobs(ctx, jobs, consistent=True)


def rebuild_counters(ctx: BatchContext, batch: Batch) -> None:
    """Recount the rows, then replace the counters by the sum of all marks.

    Raises:
        Throttled: other writers changed the counters at each attempt.
    """
    recount_batch(ctx, batch)
    key = counter_key(batch.id)
    for _ in range(MAX_ATTEMPTS):
        seen = ctx.counters.get([key]).get(key, {})
        marks = [mark for ids in _pages_of_job_ids(batch) for mark in ctx.counters.marks(ids, consistent=True).values()]
        ttl = ctx.clock.now() // 1000 + COUNTER_TTL_SECONDS
        if ctx.counters.overwrite(key, seen.get(VERSION, 0), sum_counts(_counted(marks)), ttl):
            return
    raise Throttled


def _counted(marks: Iterable[CountMark]) -> Iterable[Any]:
    return (mark.counted[NAME] for mark in marks if NAME in mark.counted)


def _pages_of_job_ids(batch: Batch) -> Iterable[list[str]]:
    """Yield the job ids of all rows that may have jobs; with an order of their own, of all rows."""
    rows = max(batch.released, batch.wave_end) if batch.ordered else batch.total
    for start in range(0, rows, PAGE_SIZE):
        yield [job_id_of_row(batch.id, row) for row in range(start, min(rows, start + PAGE_SIZE))]
