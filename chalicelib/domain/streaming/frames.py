"""What a watcher is told, the same on WebSocket and SSE: flat objects `{"event", "job_id", "attempt", "version", "at", ...}`.

`tokens` frames are ordered by (attempt, offset) and none may be missed; the others are states of the record at `version`, and the highest
version wins, not the last to arrive.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.units import Ms, dollars, rfc3339

Frame = dict[str, Any]


def encode(frame: Frame) -> bytes:
    """A frame as it goes out: UTF-8 JSON, at most 32 KB by the bounds in `text`."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()


def connected(job: Job, offset: int, now: Ms) -> Frame:
    """The answer to a subscription: the stream starts from `offset` of the record's attempt."""
    return {**_about(job, "connected", now), "status": job.status.value, "offset": offset}


def tokens(job_id: str, attempt: int, version: int, offset: int, text: str, now: Ms, received: int, percentage: float | None) -> Frame:
    return {
        "event": "tokens",
        "job_id": job_id,
        "attempt": attempt,
        "version": version,
        "at": rfc3339(now),
        "offset": offset,
        "text": text,
        "tokens_received": received,
        "progress_percentage": percentage,
    }


def progress(job: Job, shape: dict[str, Any], now: Ms) -> Frame:
    return {**_about(job, "progress", now), **shape}


def milestone(job: Job, shape: dict[str, Any], now: Ms) -> Frame:
    return {**_about(job, "milestone", now), **shape}


def reset(job: Job, reason: str, now: Ms) -> Frame:
    """Discard what was shown: `attempt` starts at offset 0."""
    return {**_about(job, "reset", now), "reason": reason}


def gap(job: Job, requested: int, earliest: int | None, now: Ms) -> Frame:
    """What was asked for is no longer kept."""
    return {**_about(job, "gap", now), "requested": requested, "earliest": earliest}


def state(job: Job, now: Ms) -> Frame | None:
    """The frame of the record's state, None where no frame tells it: `job_completed` and its like, `retrying`, `held`."""
    if job.status.is_terminal:
        return {
            **_about(job, f"job_{job.status.value}", now),
            "status": job.status.value,
            "length": job.length or 0,
            "usage": usage_shape(job.usage),
            "cost": dollars(job.cost),
            "currency": "USD",
            "error": error_shape(job),
            "incomplete_details": {"reason": job.incomplete_reason} if job.incomplete_reason else None,
        }
    if job.status in (Status.RETRYING, Status.HELD):
        return {**_about(job, job.status.value, now), "reason": job.reason, "until": rfc3339(job.resume_at), "length": job.length or 0}
    return None


def closing(now: Ms) -> Frame:
    """AWS will close this socket soon, as it does after two hours: connect again and subscribe from the offset."""
    return {"event": "closing", "at": rfc3339(now)}


def error(code: str, message: str, now: Ms, **more: Any) -> Frame:
    """This stream cannot go on, or this message could not be understood."""
    return {"event": "error", "code": code, "message": message, "at": rfc3339(now), **more}


def usage_shape(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input,
        "cached_input_tokens": usage.cached,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "total_tokens": usage.total,
        "estimated": usage.estimated,
    }


def error_shape(job: Job) -> dict[str, Any] | None:
    """The error of a job as users see it; the key `class` is a Python keyword, hence the rename."""
    if job.error is None:
        return None
    shape = asdict(job.error)
    shape["class"] = shape.pop("error_class")
    return shape


def _about(job: Job, event: str, now: Ms) -> Frame:
    return {"event": event, "job_id": job.id, "attempt": job.attempt, "version": job.version, "at": rfc3339(now)}
