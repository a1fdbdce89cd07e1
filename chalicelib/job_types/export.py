"""Write the results of many jobs into one object to download: CSV, JSON or JSON lines.

Job records are listed first. Results are then read in groups (up to 100 in one request, bounded by
their length) and written in parts, so that a worker's memory never holds all of them. The object
belongs to the export's own job: a repeated attempt overwrites it under the same name, and deleting
the job deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.domain.batches.options import parse_delimiter
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.execution.result import Result
from chalicelib.domain.files.export_formats import FORMATS, CsvStyle, Format, Row, row_writer
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import NO_MODEL, JobType, Limits, Schema
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.streaming.frames import error_shape
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.units import dollars, rfc3339
from chalicelib.job_types._shared.batch_options import DELIMITER
from chalicelib.job_types._shared.job_filters import FILTER, parse_filters
from chalicelib.ports import FileWriter
from chalicelib.services.jobs.list_jobs import Filters, list_jobs
from chalicelib.services.load_jobs import load_readable_jobs

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun

MAX_ROWS = 10_000
PAGE_SIZE, CONCURRENCY = 100, 8
MAX_CODE_POINTS = 500_000  # of the results that are read together; a longer result is read alone
LINK_SECONDS = 3_600

RECORD_COLUMNS = (
    *(
        "job_id",
        "status",
        "job_type",
        "user",
        "priority",
        "model",
        "batch_id",
        "tags",
        "attempt",
        "created_at",
        "started_at",
        "finished_at",
    ),
    *("cost", "input_tokens", "output_tokens", "error_code", "error_message"),
)
RESULT_COLUMNS, SPEC_COLUMNS = ("output", "parsed"), ("prompt", "input", "options", "metadata")

INPUT: Schema = {
    "type": "object",
    "properties": {
        "ids": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1000,
            "items": {"type": "string", "minLength": 1, "maxLength": 64},
            "description": "Export these jobs, in this order. Give exactly one of `ids`, `filter` and `batch_id`.",
        },
        "filter": {
            **FILTER,
            "description": "Export the newest 10,000 jobs that match these filters of `GET /jobs`; `{}` matches all.",
        },
        "batch_id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Export the jobs of this batch."},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}

OPTIONS: Schema = {
    "type": "object",
    "properties": {
        "format": {"enum": list(FORMATS), "description": "`csv` (the default), `json` (an array of rows) or `jsonl` (a row a line)."},
        "delimiter": {**DELIMITER, "description": "Of CSV: `comma` (the default), `semicolon`, `tab`, `pipe`, or the character."},
        "bom": {"type": "boolean", "description": "Begin CSV with a byte order mark, by which Excel knows UTF-8. Default: false."},
        "include": {
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": [*RESULT_COLUMNS, *SPEC_COLUMNS]},
            "description": "Columns to add to those of the job record. Default: `output`.",
        },
    },
    "additionalProperties": False,
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "rows": _COUNT,
        "not_found": {**_COUNT, "description": "How many of `ids` do not exist, cannot be read, or are not visible to the submitter."},
        "more": {"type": "boolean", "description": "Whether more than 10,000 jobs matched."},
        "bytes": _COUNT,
        "format": {"enum": list(FORMATS)},
        "object": {"type": "string", "description": "The name of the object. `GET /jobs/{id}/download` redirects to it."},
        "link": {"type": "string", "description": "A download link, valid for an hour at most."},
        "link_expires_at": {"type": "string"},
    },
    "required": ["rows", "not_found", "more", "bytes", "format", "object", "link", "link_expires_at"],
    "additionalProperties": False,
}


async def export(task: TaskRun) -> dict[str, Any]:
    """Write the object and return where it is.

    `more`: more jobs matched than fit; the newest were exported.
    """
    file_format: Format = task.spec.options.get("format", "csv")
    name, job, files = f"export.{file_format}", task.job, task.context.job_files
    task.start_stage("listing")
    jobs, not_found, more = await _jobs_by_id(task) if "ids" in task.spec.input else await _jobs_by_filter(task)
    task.start_stage("writing")
    upload = await task.run_sync(files.create, job.tenant, job.id, name, FORMATS[file_format])
    try:
        size = await _write(task, upload, jobs, file_format)
    except BaseException:
        await _abort(task, upload)
        raise
    link = await task.run_sync(files.link, job.tenant, job.id, name, LINK_SECONDS)
    task.record_milestone("object written", f"{len(jobs)} rows, {size} bytes")
    return {
        "rows": len(jobs),
        "not_found": not_found,
        "more": more,
        "bytes": size,
        "format": file_format,
        "object": name,
        "link": link,
        "link_expires_at": rfc3339(task.context.clock.now() + LINK_SECONDS * 1000),
    }


async def _jobs_by_id(task: TaskRun) -> tuple[list[Job], int, bool]:
    """Return the readable jobs of `ids` in the given order, and how many are missing."""
    ctx, ids, jobs = task.context, list(dict.fromkeys(task.spec.input["ids"])), list[Job]()
    for start in range(0, len(ids), PAGE_SIZE):
        loaded = await task.run_sync(load_readable_jobs, ctx.jobs, ctx.log, ids[start : start + PAGE_SIZE])
        jobs += [job for job in loaded.jobs if task.caller.may_read_content(job)]
    return jobs, len(ids) - len(jobs), False


async def _jobs_by_filter(task: TaskRun) -> tuple[list[Job], int, bool]:
    """Return the matching jobs, newest first and without this one, and whether there are more."""
    given, jobs, cursor = task.spec.input, list[Job](), None
    filters = Filters(batch=given["batch_id"]) if "batch_id" in given else parse_filters(given["filter"])
    while len(jobs) <= MAX_ROWS:
        page = await task.run_sync(list_jobs, task.context.jobs, task.context.log, task.caller, filters, PAGE_SIZE, cursor)
        jobs += [job for job in page.jobs if job.id != task.job.id]
        cursor = page.next_cursor
        if cursor is None:
            break
    return jobs[:MAX_ROWS], 0, len(jobs) > MAX_ROWS


async def _write(task: TaskRun, upload: FileWriter, jobs: list[Job], file_format: Format) -> int:
    """Write all rows, a group at a time, and return the size of the object in bytes."""
    include = tuple(task.spec.options.get("include", ("output",)))
    options = task.spec.options
    style = CsvStyle(parse_delimiter(options.get("delimiter", "comma")) or ",", options.get("bom", False))
    writer = row_writer(file_format, (*RECORD_COLUMNS, *include), style=style)
    await task.run_sync(upload.write, writer.begin().encode())
    written = 0
    for group in _groups(jobs, CONCURRENCY if set(include) & set(SPEC_COLUMNS) else PAGE_SIZE):
        results = await _results(task, include, group)
        specs = await _specs(task, include, group)
        rows = [_row(include, job, results.get(job.id), specs.get(job.id)) for job in group]
        await task.run_sync(upload.write, "".join(writer.row(row) for row in rows).encode())
        written += len(group)
        task.report_progress(written, len(jobs))
    await task.run_sync(upload.write, writer.end().encode())
    return await task.run_sync(upload.close)


async def _abort(task: TaskRun, upload: FileWriter) -> None:
    try:
        await task.run_sync(upload.abort)
    except Unavailable as exc:  # a lifecycle rule of the bucket removes the parts that are left
        task.context.log("export_upload_not_aborted", job_id=task.job.id, tenant=task.job.tenant, error=exc)


def _groups(jobs: Sequence[Job], max_jobs: int) -> Iterator[list[Job]]:
    """Yield the jobs in order, in groups bounded by `max_jobs` and by the length of their results.

    The length of a prompt is not in the job record, so callers pass a smaller `max_jobs` when they
    read job specs.
    """
    group: list[Job] = []
    code_points = 0
    for job in jobs:
        if group and (len(group) == max_jobs or code_points + (job.length or 0) > MAX_CODE_POINTS):
            yield group
            group, code_points = [], 0
        group.append(job)
        code_points += job.length or 0
    if group:
        yield group


async def _results(task: TaskRun, include: tuple[str, ...], jobs: Sequence[Job]) -> dict[str, Result]:
    """Read the results of the ended jobs in one request, if a column needs them."""
    ended = [(job.id, job.attempt) for job in jobs if job.attempt and job.status.is_terminal]
    if not ended or not set(include) & set(RESULT_COLUMNS):
        return {}
    return {result.job_id: result for result in await task.run_sync(task.context.results.get_many, ended)}


async def _specs(task: TaskRun, include: tuple[str, ...], jobs: Sequence[Job]) -> dict[str, JobSpec | None]:
    if not set(include) & set(SPEC_COLUMNS):
        return {}
    ids = [job.id for job in jobs]
    return dict(zip(ids, await task.run_sync_each(task.context.job_specs.get, ids), strict=True))


def _row(include: tuple[str, ...], job: Job, result: Result | None, spec: JobSpec | None) -> Row:
    content = {**_result_fields(job, result), **_spec_fields(spec)}
    return {**_record_fields(job), **{name: content.get(name) for name in include}}


def _record_fields(job: Job) -> dict[str, Any]:
    error = error_shape(job) or {}
    return {
        "job_id": job.id,
        "status": job.status.value,
        "job_type": job.type,
        "user": job.user,
        "priority": job.lane,
        "model": None if job.asked_model == NO_MODEL else job.asked_model,
        "batch_id": job.batch_id,
        "tags": list(job.tags),
        "attempt": job.attempt,
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
        "cost": dollars(job.cost),
        "input_tokens": job.usage.input if job.usage else None,
        "output_tokens": job.usage.output if job.usage else None,
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }


def _result_fields(job: Job, result: Result | None) -> dict[str, Any]:
    """Return the result up to the recorded length; a stalled worker may have written more."""
    if result is None:
        return {}
    length = job.length or 0
    return {"output": repair_surrogates(result.text[:length]), "parsed": result.parsed if len(result.text) <= length else None}


def _spec_fields(spec: JobSpec | None) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in SPEC_COLUMNS} if spec is not None else {}


JOB_TYPE = JobType(
    name="export",
    title="Export",
    description="Exports jobs and their results as one CSV, JSON or JSON Lines object, with a download link.",
    instructions="",
    stages=("setup", "listing", "writing", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    options_schema=OPTIONS,
    response_schema=OUTPUT,
    retry_schedule=(2.0, 10.0, 60.0),
    limits=Limits(concurrency=2, per_minute=5),
    handler=export,
)
