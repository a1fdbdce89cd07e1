"""JSON of job records. The field names are public: see docs/api.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.limits.waiting import JobWait
from chalicelib.domain.metrics.estimate import waiting_ms
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.streaming.frames import error_shape, incomplete_shape, usage_shape, wait_shape
from chalicelib.domain.units import Ms, dollars, rfc3339, seconds
from chalicelib.services.jobs.submit_job import Accepted

Shape = dict[str, Any]


def links(job_id: str, ws_url: str | None) -> Shape:
    """Paths relative to the API's stage. `websocket` is a URL, null before the first deployment."""
    base = f"/jobs/{job_id}"
    return {
        "self": base,
        "status": f"{base}/status",
        "progress": f"{base}/progress",
        "stream": f"{base}/stream",
        "result": f"{base}/result",
        "text": f"{base}/text",
        "cancel": f"{base}/cancel",
        "websocket": ws_url,
    }


def accepted(answer: Accepted, ws_url: str | None, preliminary: Any = None) -> Shape:
    """The response to a submission. `preliminary`: what the job type can answer at once."""
    job = answer.job
    duration = (job.estimated_ms or 0) + waiting_ms(JOB_QUEUES[queue_of(job)], max(0, answer.position - 1))
    start = job.expires_at - round(answer.spec.config.expires_in * 1000) if answer.spec else job.created_at
    has_parents = answer.spec is not None and bool(answer.spec.depends_on)
    initial = Status.WAITING if has_parents or start > job.created_at else Status.QUEUED
    shape: Shape = {
        "job_id": job.id,
        "status": initial.value if answer.replayed and not answer.deduplicated else job.status.value,
        "queue": job.queue,
        "queue_position": answer.position or None if initial is Status.QUEUED else None,
        "estimated_completion_at": None if has_parents else rfc3339(start + duration),
        "estimated_duration_seconds": seconds(duration),
        "estimated_cost": dollars(job.estimated_cost),
        "max_cost": dollars(job.max_cost),
        "currency": "USD",
        "links": links(job.id, ws_url),
        "config": config(answer.spec, job) if answer.spec else None,
    }
    if answer.deduplicated:
        shape["deduplicated"] = True
    if preliminary is not None:
        shape["preliminary"] = preliminary
    return shape


def config(spec: JobSpec, job: Job) -> Shape:
    """The configuration of a job, with the defaults that were filled in."""
    cache_ttl = spec.config.cache
    cache = False if cache_ttl is None else {"ttl": cache_ttl}
    return {**asdict(spec.config), "model": model(spec.config.model), "cache": cache, "priority": job.lane}


def model(name: str | None) -> str | None:
    """A model's name; null for job types that call no model."""
    return None if name == NO_MODEL else name


def record(
    job: Job,
    spec: JobSpec | None,
    ws_url: str | None,
    *,
    now: Ms,
    wait: JobWait | None = None,
    content: bool,
    prompt: bool = False,
) -> Shape:
    """A job record.

    Args:
        wait: what is known of its wait; None: what the record tells.
        content: False for a viewer; text written by users or models is null then.
        prompt: include `prompt` and `input`.
    """
    shown = spec if content else None
    shape: Shape = {
        "job_id": job.id,
        "tenant": job.tenant,
        "user": job.user,
        "job_type": job.type,
        "status": job.status.value,
        "reason": job.reason,
        **wait_shape(job, now, wait),
        "priority": job.lane,
        "queue": job.queue,
        "run": job.run,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "config": config(shown, job) if shown else None,
        "options": shown.options if shown else None,
        "metadata": shown.metadata if shown else None,
        "tags": list(job.tags),
        "dedupe_key": job.dedupe_key if content else None,
        "depends_on": list(shown.depends_on.values()) if shown else None,
        "batch_id": job.batch_id,
        "progress_percentage": percentage(job),
        "error": error_shape(job) if content else _code_only(job),
        "incomplete_details": incomplete_shape(job),
        "estimated_cost": dollars(job.estimated_cost),
        "max_cost": dollars(job.max_cost),
        "cost": dollars(job.cost),
        "currency": "USD",
        "usage": usage_shape(job.usage),
        "created_at": rfc3339(job.created_at),
        "queued_at": rfc3339(job.queued_at),
        "started_at": rfc3339(job.started_at),
        "first_token_at": rfc3339(job.first_token_at),
        "finished_at": rfc3339(job.finished_at),
        "next_attempt_at": rfc3339(job.resume_at),
        "expires_at": rfc3339(job.expires_at),
        "updated_at": rfc3339(job.updated_at),
        "version": job.version,
        "links": links(job.id, ws_url),
    }
    if prompt:
        shape["prompt"] = shown.prompt if shown else None
        shape["input"] = shown.input if shown else None
    return shape


def percentage(job: Job) -> float | None:
    """The progress by the record alone: 0 before processing, 100 when completed, else None."""
    if job.status in (Status.QUEUED, Status.WAITING, Status.HELD):
        return 0
    return 100 if job.status is Status.COMPLETED else None


def first_queued_at(job: Job) -> Ms:
    """When the job could first have been started: at its creation, or at its scheduled time."""
    return job.queued_at if job.started_at and job.created_at < job.queued_at <= job.started_at else job.created_at


def etag(job: Job) -> str:
    """The ETag of a job record."""
    return f'"v{job.version}"'


def _code_only(job: Job) -> Shape | None:
    return {"code": job.error.code, "class": job.error.error_class, "retryable": job.error.retryable} if job.error else None
