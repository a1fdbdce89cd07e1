"""JSON of batches. The field names are public: see docs/api.md."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.batches.progress import estimated_completion, percentage, row_counts, status
from chalicelib.domain.batches.row import Row
from chalicelib.domain.execution.result import Result
from chalicelib.domain.streaming.frames import error_shape, usage_shape
from chalicelib.domain.units import Ms, dollars, rfc3339, seconds
from chalicelib.services.batches.estimate_batch import BatchEstimate
from chalicelib.services.batches.manage_batch import BatchView
from chalicelib.services.batches.read_rows import BatchRow
from chalicelib.services.jobs.plan_job import Plan

Shape = dict[str, Any]
MAX_SHOWN_PROMPT = 2_000  # code points of a rendered prompt in a dry run


def batch(view: BatchView, now: Ms) -> Shape:
    """A batch with its progress and its estimated completion."""
    shown, counts = view.batch, view.counts
    return {
        "batch_id": shown.id,
        "name": shown.name,
        "tenant": shown.tenant,
        "user": shown.user,
        "status": status(shown, counts),
        "reason": shown.reason,
        "run": shown.run,
        "job_type": shown.type,
        "model": shown.model,
        "priority": shown.lane,
        "counts": row_counts(shown, counts),
        "progress_percentage": percentage(shown, counts),
        "estimated_completion_at": rfc3339(estimated_completion(shown, counts, now)),
        "cost": dollars(counts.cost),
        "currency": "USD",
        "usage": {"input_tokens": counts.input, "output_tokens": counts.output},
        "batch_size": shown.batch_size,
        "delay": shown.delay,
        "parallel_limit": shown.parallel_limit,
        "failure_tolerance": shown.failure_tolerance,
        "failed_job_ids": list(view.failed),
        "created_at": rfc3339(shown.created_at),
        "updated_at": rfc3339(shown.updated_at),
        "finished_at": rfc3339(shown.finished_at),
        "cancelled_at": rfc3339(shown.cancelled_at),
        "links": links(shown.id),
    }


def in_list(view: BatchView, now: Ms) -> Shape:
    """A batch in a list: without `failed_job_ids`, which a list does not load."""
    return {name: value for name, value in batch(view, now).items() if name != "failed_job_ids"}


def links(batch_id: str) -> Shape:
    """Paths relative to the API's stage."""
    base = f"/batches/{batch_id}"
    return {
        "self": base,
        "rows": f"{base}?detailed=true",
        "export": f"{base}/export",
        "retry_failed": f"{base}/retry-failed",
        "jobs": f"/jobs?batch={batch_id}",
        "deliveries": f"{base}/deliveries",
    }


def row(batch_row: BatchRow, *, content: bool) -> Shape:
    """A row of `detailed=true`. Without `content` (a viewer), user-written fields are null."""
    job = batch_row.job
    return {
        "row": batch_row.number,
        "id": batch_row.row.id if batch_row.row and content else None,
        "job_id": batch_row.job_id,
        "status": batch_row.status,
        "reason": job.reason if job else None,
        "priority": job.lane if job else None,
        "run": job.run if job else None,
        "attempt": job.attempt if job else None,
        "metadata": dict(batch_row.row.metadata) if batch_row.row and content else None,
        "error": error_shape(job) if job and content else None,
        "cost": dollars(job.cost) if job else None,
        "usage": usage_shape(job.usage) if job else None,
        "started_at": rfc3339(job.started_at) if job else None,
        "finished_at": rfc3339(job.finished_at) if job else None,
    }


def exported(batch_row: BatchRow, result: Result | None) -> Shape:
    """A row of an export, with its output if there is any."""
    job = batch_row.job
    length = (job.length if job else 0) or 0
    return {
        "row": batch_row.number,
        "id": batch_row.row.id if batch_row.row else None,
        "job_id": batch_row.job_id,
        "status": batch_row.status,
        "output": result.text[:length] if result else None,
        "parsed": result.parsed if result and len(result.text) <= length else None,
        "finish_reason": result.finish_reason if result else None,
        "error_code": job.error.code if job and job.error else None,
        "error_message": job.error.message if job and job.error else None,
        "model": job.asked_model if job else None,
        "input_tokens": job.usage.input if job and job.usage else None,
        "output_tokens": job.usage.output if job and job.usage else None,
        "cost": dollars(job.cost) if job else None,
        "attempt": job.attempt if job else None,
        "created_at": rfc3339(job.created_at) if job else None,
        "started_at": rfc3339(job.started_at) if job else None,
        "finished_at": rfc3339(job.finished_at) if job else None,
        "metadata": dict(batch_row.row.metadata) if batch_row.row else {},
    }


def estimate(batch_estimate: BatchEstimate, now: Ms, prompt_column: str | None = None) -> Shape:
    """The response to a dry run. `prompt_column`: the column of CSV that is asked."""
    return {
        "dry_run": True,
        "count": batch_estimate.count,
        "prompt_column": prompt_column,
        "estimated_from": batch_estimate.estimated_from,
        "estimated_input_tokens": batch_estimate.input_tokens,
        "estimated_output_tokens": batch_estimate.output_tokens,
        "estimated_cost": dollars(batch_estimate.expected_cost),
        "max_cost": dollars(batch_estimate.max_cost),
        "currency": "USD",
        "estimated_duration_seconds": seconds(batch_estimate.duration_ms),
        "estimated_completion_at": rfc3339(now + batch_estimate.duration_ms),
        "items": [_planned(row, plan) for row, plan in batch_estimate.first],
    }


def _planned(row: Row, plan: Plan) -> Shape:
    return {
        "row": row.number,
        "id": row.id,
        "prompt": plan.spec.prompt[:MAX_SHOWN_PROMPT],
        "model": plan.spec.config.model,
        "job_type": plan.kind.name,
        "priority": row.priority,
        "estimated_cost": dollars(plan.estimate.expected_cost),
    }
