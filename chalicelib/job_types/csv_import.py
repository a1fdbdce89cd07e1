"""Create a batch from an uploaded file in the background, when a request is too short.

The id of the batch is derived from that of the job, so a repeated attempt creates the same batch.
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
from chalicelib.job_types._shared.batch_options import DELIMITER, OPTIONS, existing_batch, recipients_of
from chalicelib.ports import UploadedFile
from chalicelib.services.batches.submit_batch import base_submission, prepare_batch, submit_batch
from chalicelib.services.files.uploads import open_upload

if TYPE_CHECKING:
    from chalicelib.domain.batches.batch import Batch
    from chalicelib.services.worker.run_task import TaskRun

PAGE_SIZE = 250  # rows read between two progress reports; a cancellation takes effect there
INPUT_ONLY_OPTIONS = ("dry_run", "webhook_url", "notify")  # options that a JSON file must not set

INPUT: Schema = {
    "type": "object",
    "properties": {
        "upload_id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "description": "An upload of the submitter, from `POST /uploads`.",
        },
        **OPTIONS,
        "delimiter": {**DELIMITER, "description": "The delimiter of CSV: a name or the character. Default: as the file says or shows."},
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
    """Read the file, validate every row, and submit the batch with the submitter's rights."""
    existing = await existing_batch(task)
    if existing is not None:
        return _output(existing)
    given, ctx, caller = dict(task.spec.input), task.context, task.caller
    task.start_stage("reading")
    file = await task.run_sync(open_upload, task.context.uploads, caller, given.pop("upload_id"))
    reader, rows = await _read_rows(task, file, given)
    task.start_stage("checking")
    prepared = await task.run_sync(prepare_batch, ctx, caller, reader.options, base_submission(reader.options), rows)
    task.start_stage("accepting")
    submitted = await task.run_sync(submit_batch, ctx, caller, prepared, None, batch_id_of_job(task.job.id))
    task.record_milestone("batch accepted", f"{len(rows)} rows")
    return _output(submitted.batch)


async def _read_rows(task: TaskRun, file: UploadedFile, given: dict[str, Any]) -> tuple[BatchReader, list[Row]]:
    """Read all rows, a page at a time. Progress is measured by the bytes that were read."""
    bytes_read = 0

    def counted_pieces() -> Iterator[bytes]:
        nonlocal bytes_read
        for piece in file.pieces:
            bytes_read += len(piece)
            yield piece

    reader = await task.run_sync(read_batch, file.content_type, counted_pieces(), given)
    _check_file_options(reader, given)
    remaining = iter(reader)
    rows: list[Row] = []

    def next_page() -> list[Row]:
        return list(islice(remaining, PAGE_SIZE))

    while page := await task.run_sync(next_page):
        rows += page
        task.report_progress(bytes_read, max(file.size, 1))
    return reader, rows


def _check_file_options(reader: BatchReader, given: dict[str, Any]) -> None:
    """Refuse options that a JSON file must not set.

    Recipients were checked when the job was submitted, so those in the file would not be; a dry run
    has no reader.
    """
    from_file = [name for name in INPUT_ONLY_OPTIONS if getattr(reader.options, name) and name not in given]
    if from_file:
        message = "cannot be set in the file, only in the input of the job"
        raise InvalidRequest(details=tuple(Detail(name, message) for name in from_file))


def _output(batch: Batch) -> dict[str, Any]:
    return {"batch_id": batch.id, "rows": batch.total}


JOB_TYPE = JobType(
    name="csv_import",
    title="CSV import",
    description="Creates a batch from an uploaded file (CSV, text, JSON, JSON Lines), which is read in the background.",
    instructions="",
    stages=("setup", "reading", "checking", "accepting", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(5.0, 30.0, 120.0),
    recipients_of=recipients_of,
    limits=Limits(concurrency=5, per_minute=20),
    handler=import_file,
)
