"""The rows of a batch in the order of the input, with what has become of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.execution.result import Result
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Results
from chalicelib.services.batches.context import BatchContext

WAITING, CANCELLED, DELETED = "waiting", "cancelled", "deleted"
PAGE_SIZE = 100

Parts = dict[int, list[Row]]


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A row, and its job where it has one. `row` is None where the rows are no longer kept."""

    number: int
    job_id: str
    row: Row | None
    job: Job | None
    status: str


def read_rows(ctx: BatchContext, batch: Batch, start: int, limit: int, parts: Parts | None = None) -> list[BatchRow]:
    """At most `limit` rows: a read for each, and an object for each 250 (all of them, where they are released in another order).

    `parts` are those that were read already.
    """
    numbers = range(start, min(batch.total, start + limit))
    ids = [job_id_of_row(batch.id, number) for number in numbers]
    heads = {job.id: job for job in ctx.jobs.get_many(ids) if not job.is_deleted and job.tenant == batch.tenant}
    rows = _rows(ctx, batch, numbers, {} if parts is None else parts)
    return [_seat(batch, number, job_id, rows.get(number), heads.get(job_id)) for number, job_id in zip(numbers, ids, strict=True)]


def iter_pages(ctx: BatchContext, batch: Batch) -> Iterator[list[BatchRow]]:
    """All rows, a hundred at a time, each part read once, and not held for longer than it is needed."""
    parts: Parts = {}
    for start in range(0, batch.total, PAGE_SIZE):
        yield read_rows(ctx, batch, start, PAGE_SIZE, parts)
        if batch.ordered:
            for done in [part for part in parts if (part + 1) * ROWS_PER_OBJECT <= start + PAGE_SIZE]:
                del parts[done]


def results_of(results: Results, seats: Sequence[BatchRow]) -> dict[str, Result]:
    """The result of each that has ended with one."""
    ended = [seat.job for seat in seats if seat.job is not None and seat.job.status.is_terminal and seat.job.attempt]
    return {result.job_id: result for result in results.get_many([(job.id, job.attempt) for job in ended])} if ended else {}


def _rows(ctx: BatchContext, batch: Batch, numbers: range, parts: Parts) -> dict[int, Row]:
    if not numbers:
        return {}
    wanted = (
        range(numbers[0] // ROWS_PER_OBJECT, numbers[-1] // ROWS_PER_OBJECT + 1)
        if batch.ordered
        else range(-(-batch.total // ROWS_PER_OBJECT))
    )
    for part in wanted:
        if part not in parts:
            parts[part] = ctx.batch_rows.get_part(batch.tenant, batch.id, part) or []
    return {row.number: row for part in wanted for row in parts[part] if row.number in numbers}


def _seat(batch: Batch, number: int, job_id: str, row: Row | None, job: Job | None) -> BatchRow:
    return BatchRow(number, job_id, row, job, job.status.value if job is not None else _without_job(batch, number))


def _without_job(batch: Batch, number: int) -> str:
    """A row without a job: not released yet, or never, or its job is no longer kept."""
    if batch.released >= batch.total or (batch.ordered and number < batch.released):
        return DELETED
    return WAITING if batch.is_active else CANCELLED
