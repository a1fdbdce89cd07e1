"""Batches as answers show them. Names here are promises: see docs/api.md."""

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
SHOWN_PROMPT = 2_000  # code points of a rendered prompt in a dry run


def batch(seen: BatchView, now: Ms) -> Shape:
    """A batch, how far it has come, and when it will probably be done."""
    one, counts = seen.batch, seen.counts
    return {
        "batch_id": one.id,
        "name": one.name,
        "tenant": one.tenant,
        "user": one.user,
        "status": status(one, counts),
        "reason": one.reason,
        "run": one.run,
        "job_type": one.type,
        "model": one.model,
        "priority": one.lane,
        "counts": row_counts(one, counts),
        "progress_percentage": percentage(one, counts),
        "estimated_completion_at": rfc3339(estimated_completion(one, counts, now)),
        "cost": dollars(counts.cost),
        "currency": "USD",
        "usage": {"input_tokens": counts.input, "output_tokens": counts.output},
        "batch_size": one.batch_size,
        "delay": one.delay,
        "parallel_limit": one.parallel_limit,
        "failure_tolerance": one.failure_tolerance,
        "failed_job_ids": list(seen.failed),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
        "finished_at": rfc3339(one.finished_at),
        "cancelled_at": rfc3339(one.cancelled_at),
        "links": links(one.id),
    }


def in_list(seen: BatchView, now: Ms) -> Shape:
    """The same without the failures, which a list does not read."""
    return {name: value for name, value in batch(seen, now).items() if name != "failed_job_ids"}


def links(batch_id: str) -> Shape:
    """Paths under the API's stage."""
    base = f"/batches/{batch_id}"
    return {
        "self": base,
        "rows": f"{base}?detailed=true",
        "export": f"{base}/export",
        "retry_failed": f"{base}/retry-failed",
        "jobs": f"/jobs?batch={batch_id}",
        "deliveries": f"{base}/deliveries",
    }


def row(seat: BatchRow, *, content: bool) -> Shape:
    """A row of `detailed=true`. What people wrote is null for a viewer."""
    job = seat.job
    return {
        "row": seat.number,
        "id": seat.row.id if seat.row and content else None,
        "job_id": seat.job_id,
        "status": seat.status,
        "reason": job.reason if job else None,
        "priority": job.lane if job else None,
        "run": job.run if job else None,
        "attempt": job.attempt if job else None,
        "metadata": dict(seat.row.metadata) if seat.row and content else None,
        "error": error_shape(job) if job and content else None,
        "cost": dollars(job.cost) if job else None,
        "usage": usage_shape(job.usage) if job else None,
        "started_at": rfc3339(job.started_at) if job else None,
        "finished_at": rfc3339(job.finished_at) if job else None,
    }


def exported(seat: BatchRow, kept: Result | None) -> Shape:
    """A row of an export, with its answer as far as there is one."""
    job = seat.job
    length = (job.length if job else 0) or 0
    return {
        "row": seat.number,
        "id": seat.row.id if seat.row else None,
        "job_id": seat.job_id,
        "status": seat.status,
        "output": kept.text[:length] if kept else None,
        "parsed": kept.parsed if kept and len(kept.text) <= length else None,
        "finish_reason": kept.finish_reason if kept else None,
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
        "metadata": dict(seat.row.metadata) if seat.row else {},
    }


def estimate(found: BatchEstimate, now: Ms) -> Shape:
    """What a dry run says."""
    return {
        "dry_run": True,
        "count": found.count,
        "estimated_from": found.estimated_from,
        "estimated_input_tokens": found.input_tokens,
        "estimated_output_tokens": found.output_tokens,
        "estimated_cost": dollars(found.expected_cost),
        "max_cost": dollars(found.max_cost),
        "currency": "USD",
        "estimated_duration_seconds": seconds(found.duration_ms),
        "estimated_completion_at": rfc3339(now + found.duration_ms),
        "items": [_planned(one, plan) for one, plan in found.first],
    }


def _planned(one: Row, plan: Plan) -> Shape:
    return {
        "row": one.number,
        "id": one.id,
        "prompt": plan.spec.prompt[:SHOWN_PROMPT],
        "model": plan.spec.config.model,
        "job_type": plan.kind.name,
        "priority": one.priority,
        "estimated_cost": dollars(plan.estimate.expected_cost),
    }
