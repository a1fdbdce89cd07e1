"""Look at the rows of a batch themselves, and bring right what was counted of them."""

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
from chalicelib.services.metrics.count_jobs import count_jobs

PAGE_SIZE = 100
MAX_ATTEMPTS = 10  # each lost round means that something was counted meanwhile


def recount_batch(ctx: BatchContext, batch: Batch) -> None:
    """Count each row as it is now: what the change stream has lost, or not brought yet, is counted, and nothing twice.

    A read for each row that has a job, and one of its mark; a write only where they differ.
    """
    for ids in _hundreds(batch):
        heads = ctx.jobs.get_many(ids, consistent=True)
        if heads:
            count_jobs(ctx.counters, ctx.clock, heads, consistent=True)


def rebuild_counters(ctx: BatchContext, batch: Batch) -> None:
    """As `recount`, and let the counters say what the marks of all rows come to, whatever they said.

    Raises:
        Throttled: something was counted at each try.
    """
    recount_batch(ctx, batch)
    where = counter_key(batch.id)
    for _ in range(MAX_ATTEMPTS):
        said = ctx.counters.get([where]).get(where, {})
        marks = [mark for ids in _hundreds(batch) for mark in ctx.counters.marks(ids, consistent=True).values()]
        ttl = ctx.clock.now() // 1000 + COUNTER_TTL_SECONDS
        if ctx.counters.overwrite(where, said.get(VERSION, 0), sum_counts(_counted(marks)), ttl):
            return
    raise Throttled


def _counted(marks: Iterable[CountMark]) -> Iterable[Any]:
    return (mark.counted[NAME] for mark in marks if NAME in mark.counted)


def _hundreds(batch: Batch) -> Iterable[list[str]]:
    """All rows that may have jobs: of those in another order than the input's, any."""
    rows = max(batch.released, batch.wave_end) if batch.ordered else batch.total
    for start in range(0, rows, PAGE_SIZE):
        yield [job_id_of_row(batch.id, row) for row in range(start, min(rows, start + PAGE_SIZE))]
