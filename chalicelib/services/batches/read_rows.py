"""Read the rows of a batch in the order of the input, with their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.execution.result import Result
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Results
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.load_jobs import load_readable_jobs

WAITING, CANCELLED, DELETED = "waiting", "cancelled", "deleted"  # statuses of rows without a job
UNREADABLE = "unreadable"  # the status of a row whose job record another version of the code wrote
PAGE_SIZE = 100

Parts = dict[int, list[Row]]  # rows by the number of the stored object


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A row of a batch with its job."""

    number: int  # position in the input, from 0
    job_id: str  # computed, also without a job
    row: Row | None  # None: the rows are no longer stored
    job: Job | None  # None: not released, cancelled before its release, deleted, or unreadable
    status: str  # that of the job, or `waiting`, `cancelled`, `deleted` or `unreadable`


def read_rows(ctx: BatchContext, batch: Batch, start: int, limit: int, parts: Parts | None = None) -> list[BatchRow]:
    """Return at most `limit` rows from number `start` on.

    It reads the job of each row, and the objects with the rows: one for each 250, or all if the
    rows are released in another order than the input's.

    Args:
        parts: objects that were read before; the new ones are added.
    """
    numbers = range(start, min(batch.total, start + limit))
    ids = [job_id_of_row(batch.id, number) for number in numbers]
    loaded = load_readable_jobs(ctx.jobs, ctx.log, ids)
    jobs = {job.id: job for job in loaded.jobs if not job.is_deleted and job.tenant == batch.tenant}
    rows = _rows(ctx, batch, numbers, {} if parts is None else parts)
    found = [_batch_row(batch, number, job_id, rows.get(number), jobs.get(job_id)) for number, job_id in zip(numbers, ids, strict=True)]
    return [replace(row, status=UNREADABLE) if row.job_id in loaded.unreadable else row for row in found]


def iter_pages(ctx: BatchContext, batch: Batch) -> Iterator[list[BatchRow]]:
    """Yield all rows in pages of 100. Each object is read once, and kept only while it is needed."""
    parts: Parts = {}
    for start in range(0, batch.total, PAGE_SIZE):
        yield read_rows(ctx, batch, start, PAGE_SIZE, parts)
        if batch.ordered:
            for finished in [part for part in parts if (part + 1) * ROWS_PER_OBJECT <= start + PAGE_SIZE]:
                del parts[finished]


def results_of(results: Results, rows: Sequence[BatchRow]) -> dict[str, Result]:
    """Return the results of the rows that have ended with one, by job id."""
    ended = [row.job for row in rows if row.job is not None and row.job.status.is_terminal and row.job.attempt]
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


def _batch_row(batch: Batch, number: int, job_id: str, row: Row | None, job: Job | None) -> BatchRow:
    return BatchRow(number, job_id, row, job, job.status.value if job is not None else _status_without_job(batch, number))


def _status_without_job(batch: Batch, number: int) -> str:
    """Return the status of a row without a job: not released yet, never released, or deleted."""
    if batch.released >= batch.total or (batch.ordered and number < batch.released):
        return DELETED
    return WAITING if batch.is_active else CANCELLED
