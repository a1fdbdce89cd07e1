"""Build notification messages: that a job or a batch has ended, and how.

They never contain prompts or results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.frames import incomplete_shape, usage_shape
from chalicelib.domain.units import Ms, dollars, rfc3339

MAX_SUBJECT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationMessage:
    """A message before it is addressed.

    Webhooks carry `{id, type, created_at, data}`; e-mail and Slack subject and text.
    """

    id: str  # the same at every repetition, so that receivers recognise duplicates
    type: str  # `job.<status>` or `batch.completed`
    created_at: Ms
    subject: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> str:
        """Return the body of the webhook request."""
        body = {"id": self.id, "type": self.type, "created_at": rfc3339(self.created_at), "data": self.data}
        return json.dumps(body, separators=(",", ":"))


def message_id(*about: str | int) -> str:
    """Return the id of an event, a hash of what identifies it.

    The same event always has the same id.
    """
    return f"msg_{sha256(json.dumps(about).encode()).hexdigest()[:32]}"


def job_ended_message(job: Job, api_url: str | None) -> NotificationMessage:
    """Return the message that a job has ended.

    Each run ends once, so job, run and status identify the event.
    """
    base = f"{api_url or ''}/jobs/{job.id}"
    data = {
        "job_id": job.id,
        "job_type": job.type,
        "status": job.status.value,
        "run": job.run,
        "attempt": job.attempt,
        "batch_id": job.batch_id,
        "user": job.user,
        "tags": list(job.tags),
        "model": job.asked_model,
        "error": {"code": job.error.code, "class": job.error.error_class, "retryable": job.error.retryable} if job.error else None,
        "incomplete_details": incomplete_shape(job),
        "usage": usage_shape(job.usage),
        "cost": dollars(job.cost),
        "currency": "USD",
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
        "links": {"self": base, "result": f"{base}/result"},
    }
    return NotificationMessage(
        id=message_id(job.id, job.run, job.status.value),
        type=f"job.{job.status.value}",
        created_at=job.finished_at or job.updated_at,
        subject=f"Headrace: job {job.status.value} ({job.type})",
        text=_job_text(job, base),
        data=data,
    )


def single_line(text: str) -> str:
    """Make text safe for a subject: one line of bounded length, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:MAX_SUBJECT_LENGTH]


def _job_text(job: Job, base: str) -> str:
    error = job.error.code if job.error else job.incomplete_reason
    lines = [
        f"Job {job.id} ({job.type}) is {job.status.value}{f': {error}' if error else ''}.",
        f"Run {job.run}, attempt {job.attempt}, model {job.asked_model}.",
        f"Cost: {dollars(job.cost)} USD." if job.cost is not None else None,
        f"Batch: {job.batch_id}." if job.batch_id else None,
        f"{base}/result",
    ]
    return "\n".join(line for line in lines if line)
