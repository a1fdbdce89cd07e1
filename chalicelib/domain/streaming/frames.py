"""Build the frames for subscribers of a job.

They are flat objects `{"event", "job_id", "attempt", "version", "at", ...}`.

WebSocket and SSE use the same frames. `tokens` frames are ordered by (attempt, offset), and a
client must not miss one. The others are states of the record at `version`: the highest version
wins, not the last to arrive.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.limits.waiting import JobWait, WaitLimit, start_by_record
from chalicelib.domain.units import Ms, dollars, rfc3339

Frame = dict[str, Any]

INCOMPLETE_MESSAGES = {
    "max_tokens": "The answer was cut at its limit. Raise `config.max_tokens`, or ask for less.",
    "content_filter": "OpenAI's content filter cut the answer. Change the prompt.",
}


def encode(frame: Frame) -> bytes:
    """Encode a frame as UTF-8 JSON. `MAX_FRAME_POINTS` in `domain/text.py` keeps it below 32 KB."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()


def connected(job: Job, offset: int, now: Ms) -> Frame:
    """The answer to a subscription: the stream starts from `offset` of the record's attempt."""
    return {**_about(job, "connected", now), "status": job.status.value, "offset": offset}


def tokens(job_id: str, attempt: int, version: int, offset: int, text: str, now: Ms, received: int, percentage: float | None) -> Frame:
    """A piece of the text of `attempt` that starts at `offset`."""
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
    """The progress of the attempt."""
    return {**_about(job, "progress", now), **shape}


def milestone(job: Job, shape: dict[str, Any], now: Ms) -> Frame:
    """A milestone that was reached."""
    return {**_about(job, "milestone", now), **shape}


def reset(job: Job, reason: str, now: Ms) -> Frame:
    """A new attempt: the client must discard its text, and `attempt` starts at offset 0."""
    return {**_about(job, "reset", now), "reason": reason}


def gap(job: Job, requested: int, earliest: int | None, now: Ms) -> Frame:
    """The requested text has expired; `earliest` is the first offset that is still stored."""
    return {**_about(job, "gap", now), "requested": requested, "earliest": earliest}


def state(job: Job, now: Ms, wait: JobWait | None = None) -> Frame | None:
    """The status of the job: `job_<status>` once it has ended, `retrying` or `held`.

    Returns None for other statuses, which have no frame.

    Args:
        wait: what is known of its wait; None: what the record tells.
    """
    if job.status.is_terminal:
        return {
            **_about(job, f"job_{job.status.value}", now),
            "status": job.status.value,
            "length": job.length or 0,
            "usage": usage_shape(job.usage),
            "cost": dollars(job.cost),
            "currency": "USD",
            "error": error_shape(job),
            "incomplete_details": incomplete_shape(job),
        }
    if job.status in (Status.RETRYING, Status.HELD):
        until = {"until": rfc3339(job.resume_at), "length": job.length or 0}
        return {**_about(job, job.status.value, now), "reason": job.reason, **wait_shape(job, now, wait), **until}
    return None


def wait_shape(job: Job, now: Ms, wait: JobWait | None = None) -> dict[str, Any]:
    """What a job waits for, and when it probably starts, as the public API shows it.

    Args:
        wait: what is known of its wait; None: what the record tells.
    """
    known = wait if wait is not None else JobWait(start_at=start_by_record(job, now))
    return {
        "cause": job.cause if job.is_in_line else None,
        "limit": limit_shape(known.limit),
        "estimated_start_at": rfc3339(known.start_at),
    }


def limit_shape(limit: WaitLimit | None) -> dict[str, Any] | None:
    """A limit as the public API shows it, with what it is a limit of."""
    if limit is None:
        return None
    return {name: value for name, value in asdict(limit).items() if value is not None} | {"kind": limit.kind.value}


def closing(now: Ms) -> Frame:
    """AWS closes this WebSocket soon, after two hours: the client should reconnect."""
    return {"event": "closing", "at": rfc3339(now)}


def error(code: str, message: str, now: Ms, **more: Any) -> Frame:
    """The stream cannot continue, or the client's message is invalid."""
    return {"event": "error", "code": code, "message": message, "at": rfc3339(now), **more}


def usage_shape(usage: Usage | None) -> dict[str, Any] | None:
    """Return the token counts as the public API shows them."""
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


def incomplete_shape(job: Job) -> dict[str, Any] | None:
    """Return why a job ended early as the public API shows it, with what helps; None if it did not."""
    if not job.incomplete_reason:
        return None
    message = INCOMPLETE_MESSAGES.get(job.incomplete_reason, "OpenAI ended the answer early. Retry the job.")
    usage = job.usage
    if job.incomplete_reason == "max_tokens" and not job.length:
        spent = f"all {usage.output:,} output tokens" if usage and usage.reasoning >= usage.output > 0 else "the output tokens"
        message = f"There is no text, because {spent} went into reasoning. Raise `config.max_tokens`, or lower `config.openai.reasoning`."
    return {"reason": job.incomplete_reason, "message": message}


def error_shape(job: Job) -> dict[str, Any] | None:
    """Return the error of a job as the public API shows it.

    `class` is a Python keyword, so the field has another name.
    """
    if job.error is None:
        return None
    shape = asdict(job.error)
    shape["class"] = shape.pop("error_class")
    return shape


def _about(job: Job, event: str, now: Ms) -> Frame:
    return {"event": event, "job_id": job.id, "attempt": job.attempt, "version": job.version, "at": rfc3339(now)}
