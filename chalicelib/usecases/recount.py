"""Look at the rows of a batch themselves, and bring right what was counted of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import KEPT_SECONDS, NAME, place, summed
from chalicelib.domain.errors import Throttled
from chalicelib.domain.ids import row_id
from chalicelib.domain.tally import Mark
from chalicelib.ports.ledger import VERSION
from chalicelib.usecases.clerk import Clerk
from chalicelib.usecases.count_jobs import count_jobs

AT_ONCE = 100
ROUNDS = 10  # each lost round means that something was counted meanwhile


def recount(clerk: Clerk, batch: Batch) -> None:
    """Count each row as it is now: what the change stream has lost, or not brought yet, is counted, and nothing twice.

    A read for each row that has a job, and one of its mark; a write only where they differ.
    """
    for ids in _hundreds(batch):
        heads = clerk.jobs.get_many(ids, consistent=True)
        if heads:
            count_jobs(clerk.counters, clerk.clock, heads, consistent=True)


def rebuild(clerk: Clerk, batch: Batch) -> None:
    """As `recount`, and let the counters say what the marks of all rows come to, whatever they said.

    Raises:
        Throttled: something was counted at each try.
    """
    recount(clerk, batch)
    where = place(batch.id)
    for _ in range(ROUNDS):
        said = clerk.counters.get([where]).get(where, {})
        marks = [mark for ids in _hundreds(batch) for mark in clerk.counters.marks(ids, consistent=True).values()]
        ttl = clerk.clock.now() // 1000 + KEPT_SECONDS
        if clerk.counters.overwrite(where, said.get(VERSION, 0), summed(_counted(marks)), ttl):
            return
    raise Throttled


def _counted(marks: Iterable[Mark]) -> Iterable[Any]:
    return (mark.counted[NAME] for mark in marks if NAME in mark.counted)


def _hundreds(batch: Batch) -> Iterable[list[str]]:
    """All rows that may have jobs: of those in another order than the input's, any."""
    rows = max(batch.released, batch.wave_end) if batch.ordered else batch.total
    for start in range(0, rows, AT_ONCE):
        yield [row_id(batch.id, row) for row in range(start, min(rows, start + AT_ONCE))]
