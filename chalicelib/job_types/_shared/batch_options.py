"""The terms of a batch as inputs of work take them: those of `POST /batches`, and what becomes a batch of them."""

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
    "name": "What to call the batch.",
    "type": "The job type of its rows. Default: `general`.",
    "model": "The model, short for `config.model`. Default: the type's.",
    "priority": "The lane of its rows. Default: `low`.",
    "config": "As the `config` of a job, for all rows.",
    "options": "The options of the job type, for all rows.",
    "prompt_template": "The prompt, with `{{input}}`, or any column or field of the metadata, in it.",
    "batch_size": "How many rows are released at a time. Default: all.",
    "delay": "Seconds between those.",
    "parallel_limit": "How many rows may be worked on at once.",
    "failure_tolerance": "The share of rows that may fail before the rest is cancelled. Default: 1.",
    "webhook_url": "Is sent `batch.completed` when the batch has ended.",
    "notify": "`email:<address>` or `slack:<name>`: hear of its end.",
}


def _plain(rule: Schema) -> Schema:
    """The rule without null, which says nothing where a field may be left out."""
    if "enum" in rule:
        return {**rule, "enum": [word for word in rule["enum"] if word is not None]}
    (kind,) = (kind for kind in rule["type"] if kind != "null")
    return {**rule, "type": kind}


OPTIONS: dict[str, Schema] = {
    name: {**(CONFIG if name == "config" else _plain(PROPERTIES[name])), "description": meaning} for name, meaning in DESCRIPTIONS.items()
}


def recipients(given: Any) -> list[tuple[str, str]]:
    """Whom the terms name, each by its place. What is no address at all is left to the schema."""
    said = given if isinstance(given, dict) else {}
    url, others = said.get("webhook_url"), said.get("notify")
    found = [("input.webhook_url", f"webhook:{url}")] if isinstance(url, str) else []
    listed = enumerate(others) if isinstance(others, list) else ()
    return found + [(f"input.notify.{at}", text) for at, text in listed if isinstance(text, str)]


async def made_before(task: TaskRun) -> Batch | None:
    """The batch of this job, if a former attempt has made it."""
    return await task.run_sync(task.context.batches.get, task.job.tenant, batch_id_of_job(task.job.id))
