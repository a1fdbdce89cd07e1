"""Ask beforehand what will be asked: a batch of those requests that the tenant's cache cannot answer yet, with the cache on.

The id of the batch is made of the job's, so whatever is done again makes the same batch.
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
from chalicelib.job_types._shared.batch_options import OPTIONS, made_before, recipients
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.batches.submit_batch import PreparedBatch, base_submission, prepare_batch, submit_batch
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.prompts.model_request import model_request
from chalicelib.services.worker.response_cache import cache_key, is_cached

if TYPE_CHECKING:
    from chalicelib.services.worker.run_task import TaskRun

MAX_PROMPTS = 1_000
CONCURRENCY = 8
_OF_OTHERS = ("depends_on", "on_parent_failure")  # what such a row asks is not known yet

_ALONE: Schema = {**ITEM, "properties": {name: rule for name, rule in ITEM["properties"].items() if name not in _OF_OTHERS}}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "prompts": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_PROMPTS,
            "items": _ALONE,
            "description": "What will be asked: texts, or objects as in `items` of `POST /batches`; none may wait for another.",
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
        "batch_id": {"type": ["string", "null"], "description": "Null where nothing was left to be asked."},
        "cached_already": {**_COUNT, "description": "Requests that the cache answers."},
        "submitted": {**_COUNT, "description": "Rows of the batch. Equal requests are one row."},
    },
    "required": ["batch_id", "cached_already", "submitted"],
    "additionalProperties": False,
}


async def warm_up(task: TaskRun) -> dict[str, Any]:
    """Find out which requests have no answer, and have them asked."""
    ctx, caller = task.context, task.caller
    task.start_stage("checking")
    prepared = await task.run_sync(_prepared, task)
    rows: dict[str, Row] = {}
    for start in range(0, len(prepared.rows), CONCURRENCY):
        some = list(prepared.rows[start : start + CONCURRENCY])
        for row, key in zip(some, await task.run_sync_each(partial(_key, task, prepared), some), strict=True):
            rows.setdefault(key, row)
    made = await made_before(task)
    if made is not None:
        return _shape(made.id, len(rows), made.total)
    task.start_stage("looking")
    missing = await _missing(task, prepared, rows)
    if not missing:
        return _shape(None, len(rows), 0)
    task.start_stage("accepting")
    renumbered = [replace(row, number=number) for number, row in enumerate(missing)]
    begun = await task.run_sync(submit_batch, ctx, caller, replace(prepared, rows=renumbered), None, batch_id_of_job(task.job.id))
    return _shape(begun.batch.id, len(rows), begun.batch.total)


def _prepared(task: TaskRun) -> PreparedBatch:
    said = dict(task.spec.input)
    items = said.pop("prompts")
    terms = parse_options(said)
    cache = terms.config.get("cache", True)
    if cache in (None, False):
        raise InvalidRequest(details=(Detail("input.config.cache", "is off: there would be nothing to warm up"),))
    terms = replace(terms, config={**terms.config, "cache": cache})
    reading = BatchReader(terms, lambda _, flaws: json_rows(items, flaws))
    return prepare_batch(task.context, task.caller, terms, base_submission(terms), reading)


def _key(task: TaskRun, prepared: PreparedBatch, row: Row) -> str:
    """By what the cache knows the request of a row: it is planned as it will be."""
    ctx = task.context
    plan = plan_job(ctx.job_type, ctx.prices, task.caller, submission_of(prepared.base, row, {}), 0)
    return cache_key(task.job.tenant, plan.kind.name, model_request(plan.body, plan.kind))


async def _missing(task: TaskRun, prepared: PreparedBatch, rows: dict[str, Row]) -> list[Row]:
    """The rows that no answer serves, in their order."""
    tools, seconds, keys = task.context, parse_ttl(prepared.base.config["cache"]) or 0.0, list(rows)

    def is_there(key: str) -> bool:
        return is_cached(tools.jobs, tools.cache, task.job.tenant, key, seconds, tools.clock.now())

    missing: list[Row] = []
    for start in range(0, len(keys), CONCURRENCY):
        some = keys[start : start + CONCURRENCY]
        there = await task.run_sync_each(is_there, some)
        missing += [rows[key] for key, cached in zip(some, there, strict=True) if not cached]
        task.report_progress(start + len(some), len(keys))
    return missing


def _shape(batch_id: str | None, asked: int, submitted: int) -> dict[str, Any]:
    return {"batch_id": batch_id, "cached_already": asked - submitted, "submitted": submitted}


JOB_TYPE = JobType(
    name="cache_warmup",
    title="Cache warm-up",
    description="Asks beforehand what the cache cannot answer yet: a batch of those requests, with `config.cache` on.",
    instructions="",
    stages=("setup", "checking", "looking", "accepting", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(5.0, 30.0, 120.0),
    recipients_of=recipients,
    limits=Limits(concurrency=1, per_minute=10),
    handler=warm_up,
)
