"""Results of many jobs as one object to download: CSV, JSON, or a JSON object a line.

The heads are listed first. Texts are read together, as many as a hundred in one request but never too much of them, and sent on in parts,
so that a worker's memory never holds them all. The object is the job's own: a repeated attempt writes it again under the same name, and
deleting the job deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import NO_MODEL, JobType, Limits, Schema
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.streaming.frames import error_shape
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.units import dollars, rfc3339
from chalicelib.job_types._shared.job_filters import FILTER, filters_of
from chalicelib.job_types._shared.table_writer import FORMATS, Row, table
from chalicelib.ports import FileWriter
from chalicelib.services.jobs.list_jobs import Filters, list_jobs

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun

MAX_ROWS = 10_000
PAGE, CONCURRENCY = 100, 8
MAX_CODE_POINTS = 500_000  # code points of the results that are read together; a longer one is read alone
LINK_SECONDS = 3_600

COLUMNS = (
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
OF_RESULTS, OF_BODIES = ("output", "parsed"), ("prompt", "input", "options", "metadata")

INPUT: Schema = {
    "type": "object",
    "properties": {
        "ids": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1000,
            "items": {"type": "string", "minLength": 1, "maxLength": 64},
            "description": "These jobs, in this order. Exactly one of `ids`, `filter` and `batch_id` is given.",
        },
        "filter": {**FILTER, "description": "The newest 10,000 that it finds, by the filters of `GET /jobs`: `{}` finds all."},
        "batch_id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "The jobs of a batch."},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}

OPTIONS: Schema = {
    "type": "object",
    "properties": {
        "format": {"enum": list(FORMATS), "description": "What to write: CSV is the default."},
        "include": {
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": [*OF_RESULTS, *OF_BODIES]},
            "description": "Columns besides the figures. Default: `output`.",
        },
    },
    "additionalProperties": False,
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "rows": _COUNT,
        "not_found": {**_COUNT, "description": "How many of `ids` are not there for the submitter."},
        "more": {"type": "boolean", "description": "There were more than an export holds."},
        "bytes": _COUNT,
        "format": {"enum": list(FORMATS)},
        "object": {"type": "string", "description": "Its name. `GET /jobs/{id}/download` leads to it."},
        "link": {"type": "string", "description": "Good for an hour at most."},
        "link_expires_at": {"type": "string"},
    },
    "required": ["rows", "not_found", "more", "bytes", "format", "object", "link", "link_expires_at"],
    "additionalProperties": False,
}


async def export(task: TaskRun) -> dict[str, Any]:
    """Write the object, and say where it is. `more`: there were more jobs than an export holds; the newest are in it."""
    form = task.spec.options.get("format", "csv")
    name, job, files = f"export.{form}", task.job, task.context.job_files
    task.start_stage("listing")
    jobs, not_found, more = await _named(task) if "ids" in task.spec.input else await _found(task)
    task.start_stage("writing")
    upload = await task.run_sync(files.create, job.tenant, job.id, name, FORMATS[form])
    try:
        size = await _write(task, upload, jobs, form)
    except BaseException:
        await _abandon(task, upload)
        raise
    link = await task.run_sync(files.link, job.tenant, job.id, name, LINK_SECONDS)
    task.record_milestone("object written", f"{len(jobs)} rows, {size} bytes")
    return {
        "rows": len(jobs),
        "not_found": not_found,
        "more": more,
        "bytes": size,
        "format": form,
        "object": name,
        "link": link,
        "link_expires_at": rfc3339(task.context.clock.now() + LINK_SECONDS * 1000),
    }


async def _named(task: TaskRun) -> tuple[list[Job], int, bool]:
    """The named jobs whose content the caller may read, in the order in which they were named, and how many are not there for them."""
    ids, jobs = list(dict.fromkeys(task.spec.input["ids"])), list[Job]()
    for start in range(0, len(ids), PAGE):
        heads = await task.run_sync(task.context.jobs.get_many, ids[start : start + PAGE])
        jobs += [job for job in heads if task.caller.may_read_content(job)]
    return jobs, len(ids) - len(jobs), False


async def _found(task: TaskRun) -> tuple[list[Job], int, bool]:
    """What the filters find, newest first, without this job itself; and whether there is more."""
    said, jobs, cursor = task.spec.input, list[Job](), None
    wanted = Filters(batch=said["batch_id"]) if "batch_id" in said else filters_of(said["filter"])
    while len(jobs) <= MAX_ROWS:
        page = await task.run_sync(list_jobs, task.context.jobs, task.caller, wanted, PAGE, cursor)
        jobs += [job for job in page.jobs if job.id != task.job.id]
        cursor = page.next_cursor
        if cursor is None:
            break
    return jobs[:MAX_ROWS], 0, len(jobs) > MAX_ROWS


async def _write(task: TaskRun, upload: FileWriter, jobs: list[Job], form: str) -> int:
    """All rows, a few at a time; the answer is the size of the object."""
    include = tuple(task.spec.options.get("include", ("output",)))
    shape = table(form, (*COLUMNS, *include))
    await task.run_sync(upload.write, shape.begin().encode())
    written = 0
    for some in _groups(jobs, CONCURRENCY if set(include) & set(OF_BODIES) else PAGE):
        kept = await _results(task, include, some)
        bodies = await _bodies(task, include, some)
        rows = [_row(include, job, kept.get(job.id), bodies.get(job.id)) for job in some]
        await task.run_sync(upload.write, "".join(shape.row(row) for row in rows).encode())
        written += len(some)
        task.report_progress(written, len(jobs))
    await task.run_sync(upload.write, shape.end().encode())
    return await task.run_sync(upload.close)


async def _abandon(task: TaskRun, upload: FileWriter) -> None:
    try:
        await task.run_sync(upload.abort)
    except Unavailable as exc:  # what is left of it goes by itself
        task.context.log("export_upload_not_aborted", job_id=task.job.id, tenant=task.job.tenant, error=exc)


def _groups(jobs: Sequence[Job], most: int) -> Iterator[list[Job]]:
    """The jobs in their order, as many together as `most` and as their results' lengths allow. Prompts can be long, and no head says so."""
    some: list[Job] = []
    points = 0
    for job in jobs:
        if some and (len(some) == most or points + (job.length or 0) > MAX_CODE_POINTS):
            yield some
            some, points = [], 0
        some.append(job)
        points += job.length or 0
    if some:
        yield some


async def _results(task: TaskRun, include: tuple[str, ...], jobs: Sequence[Job]) -> dict[str, Result]:
    """The results of those that have ended, if they are wanted: one request."""
    ended = [(job.id, job.attempt) for job in jobs if job.attempt and job.status.is_terminal]
    if not ended or not set(include) & set(OF_RESULTS):
        return {}
    return {result.job_id: result for result in await task.run_sync(task.context.results.get_many, ended)}


async def _bodies(task: TaskRun, include: tuple[str, ...], jobs: Sequence[Job]) -> dict[str, JobSpec | None]:
    if not set(include) & set(OF_BODIES):
        return {}
    ids = [job.id for job in jobs]
    return dict(zip(ids, await task.run_sync_each(task.context.job_specs.get, ids), strict=True))


def _row(include: tuple[str, ...], job: Job, kept: Result | None, body: JobSpec | None) -> Row:
    """A job as a row, with what it was asked and what it answered where that is wanted."""
    content = {**_answered(job, kept), **_asked(body)}
    return {**_figures(job), **{name: content.get(name) for name in include}}


def _figures(job: Job) -> Row:
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


def _answered(job: Job, kept: Result | None) -> Row:
    """The result of an ended job; what a stalled worker wrote beyond its end is no part of it."""
    if kept is None:
        return {}
    length = job.length or 0
    return {"output": repair_surrogates(kept.text[:length]), "parsed": kept.parsed if len(kept.text) <= length else None}


def _asked(body: JobSpec | None) -> Row:
    return {name: getattr(body, name) for name in OF_BODIES} if body is not None else {}


JOB_TYPE = JobType(
    name="export",
    title="Export",
    description="Jobs and their results as one CSV, JSON or JSON Lines object, with a link to download it.",
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
