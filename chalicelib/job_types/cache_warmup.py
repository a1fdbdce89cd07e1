"""Fill the response cache: submit a batch of the requests that it cannot answer yet.

The id of the batch is derived from that of the job, so a repeated attempt creates the same batch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from chalicelib.domain.batches.options import parse_options
from chalicelib.domain.batches.parsing.json_rows import ITEM, json_rows
from chalicelib.domain.batches.parsing.reader import BatchReader
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.execution.response_cache import parse_ttl
from chalicelib.domain.ids import batch_id_of_job
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.job_types._shared.batch_options import OPTIONS, existing_batch, recipients_of
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.batches.submit_batch import PreparedBatch, base_submission, prepare_batch, submit_batch
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.prompts.model_request import model_request
from chalicelib.services.worker.response_cache import cache_key, is_cached

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun

MAX_PROMPTS = 1_000
CONCURRENCY = 8
# The request of a dependent row is not known in advance.
_DEPENDENCY_FIELDS = ("depends_on", "on_parent_failure")
_BODY_FIELDS = ("method", "url", "body")  # the config of a batch is in the input of this job

_ITEM: Schema = {
    **ITEM,
    "properties": {name: rule for name, rule in ITEM["properties"].items() if name not in (*_DEPENDENCY_FIELDS, *_BODY_FIELDS)},
}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "prompts": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_PROMPTS,
            "items": _ITEM,
            "description": "The future requests: texts, or objects as in `items` of `POST /batches`, without dependencies.",
        },
        **OPTIONS,
    },
    "required": ["prompts"],
    "additionalProperties": False,
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "batch_id": {"type": ["string", "null"], "description": "Null if the cache has all responses."},
        "cached_already": {**_COUNT, "description": "How many requests the cache can answer already."},
        "submitted": {**_COUNT, "description": "How many rows the batch has. Equal requests are one row."},
    },
    "required": ["batch_id", "cached_already", "submitted"],
    "additionalProperties": False,
}


async def warm_up(task: TaskRun) -> dict[str, Any]:
    """Find the requests that the cache cannot answer, and submit them as a batch."""
    ctx, caller = task.context, task.caller
    task.start_stage("checking")
    prepared = await task.run_sync(_prepare, task)
    rows: dict[str, Row] = {}  # by cache key, so that equal requests are one row
    for start in range(0, len(prepared.rows), CONCURRENCY):
        group = list(prepared.rows[start : start + CONCURRENCY])
        for row, key in zip(group, await task.run_sync_each(partial(_cache_key, task, prepared), group), strict=True):
            rows.setdefault(key, row)
    existing = await existing_batch(task)
    if existing is not None:
        return _output(existing.id, len(rows), existing.total)
    task.start_stage("looking")
    uncached = await _uncached_rows(task, prepared, rows)
    if not uncached:
        return _output(None, len(rows), 0)
    task.start_stage("accepting")
    renumbered = [replace(row, number=number) for number, row in enumerate(uncached)]
    submitted = await task.run_sync(submit_batch, ctx, caller, replace(prepared, rows=renumbered), None, batch_id_of_job(task.job.id))
    return _output(submitted.batch.id, len(rows), submitted.batch.total)


def _prepare(task: TaskRun) -> PreparedBatch:
    """Validate input and rows.

    Raises:
        InvalidRequest: an option or a row is invalid, or the cache is turned off.
    """
    given = dict(task.spec.input)
    items = given.pop("prompts")
    options = parse_options(given)
    cache = options.config.get("cache", True)
    if cache in (None, False):
        raise InvalidRequest(details=(Detail("input.config.cache", "must not be off, because the responses are to be cached"),))
    options = replace(options, config={**options.config, "cache": cache})
    reader = BatchReader(options, lambda _, found: json_rows(items, found))
    return prepare_batch(task.context, task.caller, options, base_submission(options), reader)


def _cache_key(task: TaskRun, prepared: PreparedBatch, row: Row) -> str:
    """Return the cache key of a row's request.

    The row is planned exactly as it will be when it is submitted.
    """
    ctx = task.context
    plan = plan_job(ctx.job_type, ctx.prices, task.caller, submission_of(prepared.base, row, {}), 0)
    return cache_key(task.job.tenant, plan.kind.name, model_request(plan.spec, plan.kind))


async def _uncached_rows(task: TaskRun, prepared: PreparedBatch, rows: dict[str, Row]) -> list[Row]:
    """Return the rows without a cached response, in order."""
    ctx, seconds, keys = task.context, parse_ttl(prepared.base.config["cache"]) or 0.0, list(rows)

    def has_response(key: str) -> bool:
        return is_cached(ctx.jobs, ctx.cache, task.job.tenant, key, seconds, ctx.clock.now())

    uncached: list[Row] = []
    for start in range(0, len(keys), CONCURRENCY):
        group = keys[start : start + CONCURRENCY]
        cached = await task.run_sync_each(has_response, group)
        uncached += [rows[key] for key, is_hit in zip(group, cached, strict=True) if not is_hit]
        task.report_progress(start + len(group), len(keys))
    return uncached


def _output(batch_id: str | None, requests: int, submitted: int) -> dict[str, Any]:
    return {"batch_id": batch_id, "cached_already": requests - submitted, "submitted": submitted}


JOB_TYPE = JobType(
    name="cache_warmup",
    title="Cache warm-up",
    description="Fills the response cache in advance: submits a batch of the requests that the cache cannot answer yet.",
    instructions="",
    stages=("setup", "checking", "looking", "accepting", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(5.0, 30.0, 120.0),
    recipients_of=recipients_of,
    limits=Limits(concurrency=1, per_minute=10),
    handler=warm_up,
)
