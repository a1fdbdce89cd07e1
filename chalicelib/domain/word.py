"""What is said outside about a job or a batch: that it has ended, and how. Never what it was asked or what it answered."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.batch_standing import counted
from chalicelib.domain.frames import usage_shape
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.units import dollars, rfc3339

LONGEST_SUBJECT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """For programs `{id, type, created_at, data}`; for people a subject and a text. One id is one message, however often it comes."""

    id: str
    type: str
    created_at: Ms
    subject: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> str:
        """As a webhook carries it."""
        body = {"id": self.id, "type": self.type, "created_at": rfc3339(self.created_at), "data": self.data}
        return json.dumps(body, separators=(",", ":"))


def message_id(*about: str | int) -> str:
    """The same for the same event, whoever makes it and however often."""
    return f"msg_{sha256(json.dumps(about).encode()).hexdigest()[:32]}"


def message_of_job(job: Job, api_url: str | None) -> Message:
    """Of an ended job. Each run ends once, so job, run and status name the event."""
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
        "incomplete_details": {"reason": job.incomplete_reason} if job.incomplete_reason else None,
        "usage": usage_shape(job.usage),
        "cost": dollars(job.cost),
        "currency": "USD",
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
        "links": {"self": base, "result": f"{base}/result"},
    }
    return Message(
        id=message_id(job.id, job.run, job.status.value),
        type=f"job.{job.status.value}",
        created_at=job.finished_at or job.updated_at,
        subject=f"Headrace: job {job.status.value} ({job.type})",
        text=_told(job, base),
        data=data,
    )


def message_of_batch(batch: Batch, counts: Counts, api_url: str | None) -> Message:
    """Of a batch that has come to its end, however it ended: that is its status. Batch, run and status name the event."""
    base = f"{api_url or ''}/batches/{batch.id}"
    data = {
        "batch_id": batch.id,
        "name": batch.name,
        "status": batch.status.value,
        "reason": batch.reason,
        "run": batch.run,
        "job_type": batch.type,
        "user": batch.user,
        "counts": counted(batch, counts),
        "cost": dollars(counts.cost),
        "currency": "USD",
        "created_at": rfc3339(batch.created_at),
        "finished_at": rfc3339(batch.finished_at),
        "links": {"self": base, "rows": f"{base}?detailed=true", "export": f"{base}/export", "retry_failed": f"{base}/retry-failed"},
    }
    called = one_line(batch.name) if batch.name else batch.id
    return Message(
        id=message_id(batch.id, batch.run, batch.status.value),
        type="batch.completed",
        created_at=batch.finished_at or batch.updated_at,
        subject=one_line(f"Headrace: batch {called} {batch.status.value}"),
        text=_told_of_batch(batch, counts, base),
        data=data,
    )


def one_line(text: str) -> str:
    """Fit for a subject: one line, of bounded length, without what would control a terminal or a header."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:LONGEST_SUBJECT]


def _told_of_batch(batch: Batch, counts: Counts, base: str) -> str:
    rows = counted(batch, counts)
    lines = [
        f"Batch {batch.id} ({batch.type}) is {batch.status.value}{f': {batch.reason}' if batch.reason else ''}.",
        f"{rows['completed']} of {rows['total']} rows completed, {rows['failed']} failed, {rows['cancelled']} cancelled.",
        f"Run {batch.run}. Cost: {dollars(counts.cost)} USD.",
        f"{base}/export",
    ]
    return "\n".join(lines)


def _told(job: Job, base: str) -> str:
    error = job.error.code if job.error else job.incomplete_reason
    lines = [
        f"Job {job.id} ({job.type}) is {job.status.value}{f': {error}' if error else ''}.",
        f"Run {job.run}, attempt {job.attempt}, model {job.asked_model}.",
        f"Cost: {dollars(job.cost)} USD." if job.cost is not None else None,
        f"Batch: {job.batch_id}." if job.batch_id else None,
        f"{base}/result",
    ]
    return "\n".join(line for line in lines if line)
