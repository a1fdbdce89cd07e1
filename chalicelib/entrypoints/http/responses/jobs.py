"""Jobs as answers show them. Names here are promises: see docs/api.md."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.transitions import waits_for_parents
from chalicelib.domain.metrics.estimate import waiting_ms
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.streaming.frames import error_shape, usage_shape
from chalicelib.domain.units import Ms, dollars, parse_rfc3339, rfc3339, seconds
from chalicelib.services.jobs.submit_job import Accepted

Shape = dict[str, Any]


def links(job_id: str, ws_url: str | None) -> Shape:
    """Paths under the API's stage; `websocket` is a whole address, null before the first deployment has told it."""
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
    """The answer to a submission; `preliminary` is what its type can say at once."""
    job = answer.job
    duration = (job.estimated_ms or 0) + waiting_ms(LANES[job.lane], max(0, answer.position - 1))
    begins = job.expires_at - round(answer.spec.config.expires_in * 1000) if answer.spec else job.created_at
    waits = answer.spec is not None and bool(answer.spec.depends_on)
    first = Status.WAITING if waits or begins > job.created_at else Status.QUEUED
    shape: Shape = {
        "job_id": job.id,
        "status": first.value if answer.replayed and not answer.deduplicated else job.status.value,
        "queue": job.queue,
        "queue_position": answer.position or None if first is Status.QUEUED else None,
        "estimated_completion_at": None if waits else rfc3339(begins + duration),
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


def config(body: JobSpec, job: Job) -> Shape:
    seconds_kept = body.config.cache
    cache = False if seconds_kept is None else {"ttl": seconds_kept}
    return {**asdict(body.config), "model": model(body.config.model), "cache": cache, "priority": job.lane}


def model(name: str | None) -> str | None:
    """Null where no model is asked."""
    return None if name == NO_MODEL else name


def record(job: Job, body: JobSpec | None, ws_url: str | None, *, content: bool, prompt: bool = False) -> Shape:
    """A job. Without `content` (a viewer) what was written by people or models is null; `prompt` only when it was asked for."""
    shown = body if content else None
    shape: Shape = {
        "job_id": job.id,
        "tenant": job.tenant,
        "user": job.user,
        "job_type": job.type,
        "status": job.status.value,
        "reason": job.reason,
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
        "incomplete_details": {"reason": job.incomplete_reason} if job.incomplete_reason else None,
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
    """What the head alone can say: 0 before a worker has it, 100 when it is completed, else unknown."""
    if job.status in (Status.QUEUED, Status.WAITING, Status.HELD):
        return 0
    return 100 if job.status is Status.COMPLETED else None


def status(job: Job, last: Chunk | None, position: int | None, now: Ms, speed: Throughput = UNMEASURED) -> Shape:
    """How a job stands; `speed` is what was measured of its type and model."""
    kept = last.progress if last else {}
    remaining = remaining_seconds(job, kept, position, now)
    return {
        "job_id": job.id,
        "status": job.status.value,
        "reason": job.reason,
        "run": job.run,
        "attempt": job.attempt,
        "progress_percentage": _percentage(job, kept),
        "stage": None if job.status.is_terminal else kept.get("stage"),
        "queue_position": position,
        "estimated_completion_at": rfc3339(now + round(remaining * 1000)) if remaining is not None else None,
        "estimated_seconds_remaining": remaining,
        "estimated_seconds_remaining_range": remaining_range(job, kept, position, now, speed),
        "version": job.version,
    }


def progress(job: Job, last: Chunk | None, position: int | None, now: Ms, *, content: bool, speed: Throughput = UNMEASURED) -> Shape:
    """Status, and what the engine knew when it last wrote: null where nothing has come yet."""
    kept = last.progress if last else {}
    stages = kept.get("stages", [])
    milestones = kept.get("milestones", [])
    if not content:
        milestones = [{**milestone, "description": None} for milestone in milestones]
    return {
        **status(job, last, position, now, speed),
        "stages": [_closed(stage, job) for stage in stages] if job.status is Status.COMPLETED else stages,
        "milestones": milestones,
        **{
            name: kept.get(name)
            for name in ("tokens_received", "estimated_total_tokens", "tokens_per_second", "cost_so_far", "performance_metrics")
        },
    }


def history(job: Job, attempt: int, events: list[Shape]) -> list[Shape]:
    """The stages and milestones of an attempt among what its job's record says of its life, by time."""
    times = [
        ("created", job.created_at),
        ("queued", None if job.status is Status.WAITING else _queued_first(job)),
        ("started", job.started_at),
        ("first_token", job.first_token_at if attempt == job.attempt else None),
        (job.status.value, job.finished_at),
    ]
    life = [{"kind": "job", "name": name, "at": rfc3339(at)} for name, at in times if at is not None]
    return sorted([*life, *events], key=lambda event: str(event.get("at") or event["achieved_at"]))


def _closed(stage: Shape, job: Job) -> Shape:
    """A stage of a completed job: the log was written just before the last of them ended."""
    if stage["status"] == "completed" or job.finished_at is None:
        return stage
    begun = parse_rfc3339(stage["started_at"]) if stage["started_at"] else job.finished_at
    return {**stage, "status": "completed", "started_at": rfc3339(begun), "duration_seconds": seconds(max(0, job.finished_at - begun))}


def remaining_seconds(job: Job, kept: Shape, position: int | None, now: Ms) -> float | None:
    if job.status.is_terminal:
        return 0.0
    if kept.get("estimated_seconds_remaining") is not None and job.status is Status.PROCESSING:
        return float(kept["estimated_seconds_remaining"])
    return None if job.estimated_ms is None or waits_for_parents(job) else _seconds_left(job, job.estimated_ms, position, now)


def remaining_range(job: Job, kept: Shape, position: int | None, now: Ms, speed: Throughput) -> list[float] | None:
    """Between which two figures the remaining seconds are in four of five cases."""
    if job.status.is_terminal:
        return [0.0, 0.0]
    if kept.get("estimated_seconds_remaining_range") is not None and job.status is Status.PROCESSING:
        return list(kept["estimated_seconds_remaining_range"])
    if job.estimated_ms is None or waits_for_parents(job):
        return None
    quick, slow = (_seconds_left(job, round(job.estimated_ms * factor), position, now) for factor in speed.duration_range())
    return [math.floor(quick * 10) / 10, math.ceil(slow * 10) / 10]


def _seconds_left(job: Job, takes: Ms, position: int | None, now: Ms) -> float:
    """Of a job of which there is no text yet, if all of its work takes so long."""
    if job.resume_at is not None:
        return max(0, job.resume_at - now + takes) / 1000
    left = takes - (now - job.started_at if job.status is Status.PROCESSING and job.started_at else 0)
    return max(0, left + (waiting_ms(LANES[job.lane], position - 1) if position else 0)) / 1000


def result(job: Job, kept: Result | None) -> Shape:
    """The result of an ended job: its text, even where it failed. What a stalled worker wrote beyond the job's end is no part of it."""
    length, text = job.length or 0, kept.text if kept else ""
    return {
        "job_id": job.id,
        "status": job.status.value,
        "output": text[:length],
        "parsed": kept.parsed if kept and len(text) <= length else None,
        "finish_reason": kept.finish_reason if kept else None,
        "model": model(kept.model if kept else job.asked_model),
        "usage": usage_shape(job.usage),
        "cost": dollars(job.cost),
        "currency": "USD",
        "timings": timings(job, kept),
        "cache": looked_up(kept),
        "fallback": bool(kept and kept.fallback),
        "error": error_shape(job),
        "incomplete_details": {"reason": job.incomplete_reason} if job.incomplete_reason else None,
        "attempt": job.attempt,
        "length": length,
    }


def looked_up(kept: Result | None) -> Shape | None:
    """What the cache said; null where it was not asked."""
    said = kept.looked_up if kept else None
    if said is None:
        return None
    return {"hit": True, "job_id": said.job_id, "cached_at": rfc3339(said.at)} if said.hit else {"hit": False}


def timings(job: Job, kept: Result | None) -> Shape:
    """Seconds. `queued` until the first claim; `processing` and the rate are of the last attempt."""
    begun, first, ended = (kept.started_at, kept.first_token_at, kept.finished_at) if kept else (None, None, None)
    streaming = (ended - first) / 1000 if ended and first else None
    return {
        "queued": seconds(job.started_at - _queued_first(job)) if job.started_at else None,
        "time_to_first_token": seconds(first - begun) if first and begun else None,
        "processing": seconds(ended - begun) if ended and begun else None,
        "total": seconds(job.finished_at - job.created_at) if job.finished_at else None,
        "tokens_per_second": round(job.usage.output / streaming, 1) if streaming and job.usage and job.usage.output else None,
    }


def _queued_first(job: Job) -> Ms:
    """When the job could first have been started: its creation, or the time that it was to wait for."""
    return job.queued_at if job.started_at and job.created_at < job.queued_at <= job.started_at else job.created_at


def attempts(job: Job, kept: list[Result]) -> Shape:
    """The ledger of attempts, with its sums; null where no cost is known."""
    rows = [attempt(one, wasted=is_wasted(job, one.attempt)) for one in kept]
    costs = [(one.cost, is_wasted(job, one.attempt)) for one in kept if one.cost is not None]
    return {
        "job_id": job.id,
        "data": rows,
        "next_cursor": None,
        "total_cost": dollars(sum(cost for cost, _ in costs)) if costs else None,
        "wasted_cost": dollars(sum(cost for cost, wasted in costs if wasted)) if costs else None,
        "currency": "USD",
    }


def is_wasted(job: Job, number: int) -> bool:
    """Whether the text of an attempt is not, and cannot become, the job's result: all but the last, and of what failed all."""
    keeps = (Status.PROCESSING, Status.COMPLETED, Status.INCOMPLETE, Status.CANCELLED)
    return number != job.attempt or not (job.status in keeps or job.is_resumable)


def attempt(kept: Result, *, wasted: bool) -> Shape:
    """A line of the ledger of attempts."""
    return {
        "attempt": kept.attempt,
        "wasted": wasted,
        "finish_reason": kept.finish_reason,
        "error_code": kept.error_code,
        "model": model(kept.model),
        "usage": usage_shape(kept.usage),
        "cost": dollars(kept.cost),
        "currency": "USD",
        "cache": looked_up(kept),
        "started_at": rfc3339(kept.started_at),
        "first_token_at": rfc3339(kept.first_token_at),
        "finished_at": rfc3339(kept.finished_at),
    }


def etag(job: Job) -> str:
    """The tag of a record: what If-None-Match and If-Match name."""
    return f'"v{job.version}"'


def bulk(asked: BulkOperation) -> Shape:
    """A bulk action, and how far it has come."""
    return {
        "bulk_id": asked.id,
        "action": asked.action.value,
        "status": "running" if asked.finished_at is None else "completed",
        "priority": asked.lane,
        "filter": {name: rfc3339(value) if name in ("since", "until") else value for name, value in asked.filters.items()},
        "ids": len(asked.ids) or None,
        "matched": asked.matched,
        "done": asked.done,
        "skipped": asked.skipped,
        "failed": asked.failed,
        "not_found": asked.not_found,
        "problems": [{"job_id": job_id, "code": code} for job_id, code in asked.problems],
        "created_by": asked.created_by,
        "created_at": rfc3339(asked.created_at),
        "updated_at": rfc3339(asked.updated_at),
        "finished_at": rfc3339(asked.finished_at),
    }


def _percentage(job: Job, kept: Shape) -> float | None:
    known = percentage(job)
    return known if known is not None else kept.get("progress_percentage", 0)


def _code_only(job: Job) -> Shape | None:
    return {"code": job.error.code, "class": job.error.error_class, "retryable": job.error.retryable} if job.error else None
