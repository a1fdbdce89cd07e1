"""A file that was uploaded becomes a batch, read in the background: for files that take longer to be read than a request may.

The id of the batch is made of the job's, so whatever is done again makes the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from chalicelib.domain.batches.parsing.reader import BatchReader, read_batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.ids import batch_id_of_job
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.job_types._shared.batch_options import OPTIONS, made_before, recipients
from chalicelib.ports import UploadedFile
from chalicelib.services.batches.submit_batch import base_submission, prepare_batch, submit_batch
from chalicelib.services.files.uploads import open_upload

if TYPE_CHECKING:
    from chalicelib.domain.batches.batch import Batch
    from chalicelib.services.worker.run_task import TaskRun

ROWS_AT_ONCE = 250  # between two looks at how far it is, and whether it is cancelled
OF_THE_INPUT = ("dry_run", "webhook_url", "notify")  # what a JSON file may not say itself

INPUT: Schema = {
    "type": "object",
    "properties": {
        "upload_id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "description": "A file of the submitter's own, from `POST /uploads`.",
        },
        **OPTIONS,
        "delimiter": {"enum": ["comma", "semicolon", "tab"], "description": "Of CSV. Default: seen from the header."},
    },
    "required": ["upload_id"],
    "additionalProperties": False,
}
OUTPUT: Schema = {
    "type": "object",
    "properties": {"batch_id": {"type": "string"}, "rows": {"type": "integer", "minimum": 1}},
    "required": ["batch_id", "rows"],
    "additionalProperties": False,
}


async def import_file(task: TaskRun) -> dict[str, Any]:
    """Read the file, look at every row, and accept the batch with the rights of whoever submitted the job."""
    made = await made_before(task)
    if made is not None:
        return _shape(made)
    said, ctx, caller = dict(task.spec.input), task.context, task.caller
    task.start_stage("reading")
    opened = await task.run_sync(open_upload, task.context.uploads, caller, said.pop("upload_id"))
    reading, rows = await _rows(task, opened, said)
    task.start_stage("checking")
    prepared = await task.run_sync(prepare_batch, ctx, caller, reading.terms, base_submission(reading.terms), rows)
    task.start_stage("accepting")
    begun = await task.run_sync(submit_batch, ctx, caller, prepared, None, batch_id_of_job(task.job.id))
    task.record_milestone("batch accepted", f"{len(rows)} rows")
    return _shape(begun.batch)


async def _rows(task: TaskRun, opened: UploadedFile, said: dict[str, Any]) -> tuple[BatchReader, list[Row]]:
    """All rows, some at a time; how far it is, is told by the bytes that were read."""
    read_so_far = 0

    def counted() -> Iterator[bytes]:
        nonlocal read_so_far
        for piece in opened.pieces:
            read_so_far += len(piece)
            yield piece

    reading = await task.run_sync(read_batch, opened.content_type, counted(), said)
    _check_own_terms(reading, said)
    coming = iter(reading)
    rows: list[Row] = []

    def some() -> list[Row]:
        return list(islice(coming, ROWS_AT_ONCE))

    while read_now := await task.run_sync(some):
        rows += read_now
        task.report_progress(read_so_far, max(opened.size, 1))
    return reading, rows


def _check_own_terms(reading: BatchReader, said: dict[str, Any]) -> None:
    """A JSON file brings terms of its own. Whom it wants to be told has not been checked, and nobody is there to read a dry run."""
    own = [name for name in OF_THE_INPUT if getattr(reading.terms, name) and name not in said]
    if own:
        raise InvalidRequest(details=tuple(Detail(name, "cannot be said in the file, only in the input of the job") for name in own))


def _shape(batch: Batch) -> dict[str, Any]:
    return {"batch_id": batch.id, "rows": batch.total}


JOB_TYPE = JobType(
    name="csv_import",
    title="CSV import",
    description="Makes a batch of a file that was uploaded (CSV, text, JSON, JSON Lines), read in the background.",
    instructions="",
    stages=("setup", "reading", "checking", "accepting", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(5.0, 30.0, 120.0),
    recipients_of=recipients,
    limits=Limits(concurrency=5, per_minute=20),
    handler=import_file,
)
