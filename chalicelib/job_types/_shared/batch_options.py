"""The batch options of `POST /batches` as inputs of job types that create a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.domain.batches.options import PROPERTIES
from chalicelib.domain.ids import batch_id_of_job
from chalicelib.domain.jobs.job_type import Schema
from chalicelib.domain.validation.config_schema import CONFIG

if TYPE_CHECKING:
    from chalicelib.domain.batches.batch import Batch
    from chalicelib.services.worker.run_task import TaskRun

DESCRIPTIONS = {
    "name": "A name for the batch.",
    "type": "The job type of the rows. Default: `general`.",
    "model": "The model; short for `config.model`. Default: the model of the job type.",
    "priority": "The lane of the rows. Default: `low`.",
    "config": "The `config` of a job, for all rows.",
    "options": "The options of the job type, for all rows.",
    "prompt_template": "The prompt of every row. It may contain `{{input}}` and any column or metadata field.",
    "batch_size": "How many rows are released as one group. Default: all.",
    "delay": "Seconds between two groups.",
    "parallel_limit": "How many rows may be unfinished at once.",
    "failure_tolerance": "The share of rows that may fail before the rest is cancelled. Default: 1.",
    "webhook_url": "A URL that is sent `batch.completed` when the batch has ended.",
    "notify": "Recipients of the same message: `email:<address>` or `slack:<name>`.",
}


def _without_null(rule: Schema) -> Schema:
    """Return the schema without null, which is redundant for an optional field."""
    if "enum" in rule:
        return {**rule, "enum": [value for value in rule["enum"] if value is not None]}
    (kind,) = (kind for kind in rule["type"] if kind != "null")
    return {**rule, "type": kind}


OPTIONS: dict[str, Schema] = {
    name: {**(CONFIG if name == "config" else _without_null(PROPERTIES[name])), "description": description}
    for name, description in DESCRIPTIONS.items()
}


DELIMITER = _without_null(PROPERTIES["delimiter"])


def recipients_of(job_input: Any) -> list[tuple[str, str]]:
    """Return the recipients in the input, each with its path.

    Values of a wrong type are left to the schema.
    """
    fields = job_input if isinstance(job_input, dict) else {}
    url, notify = fields.get("webhook_url"), fields.get("notify")
    recipients = [("input.webhook_url", f"webhook:{url}")] if isinstance(url, str) else []
    entries = enumerate(notify) if isinstance(notify, list) else ()
    return recipients + [(f"input.notify.{index}", text) for index, text in entries if isinstance(text, str)]


async def existing_batch(task: TaskRun) -> Batch | None:
    """Return the batch of this job if an earlier attempt has created it."""
    return await task.run_sync(task.context.batches.get, task.job.tenant, batch_id_of_job(task.job.id))
