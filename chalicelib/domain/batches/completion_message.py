"""Build the notification that a batch has ended."""

from __future__ import annotations

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.batches.progress import row_counts
from chalicelib.domain.notifications.message import NotificationMessage, message_id, single_line
from chalicelib.domain.units import dollars, rfc3339


def batch_completed_message(batch: Batch, counts: BatchCounts, api_url: str | None) -> NotificationMessage:
    """Return the `batch.completed` message; its `status` says how the batch ended.

    The message id is derived from batch, run and status, so a repeated call yields the same
    message.
    """
    base = f"{api_url or ''}/batches/{batch.id}"
    data = {
        "batch_id": batch.id,
        "name": batch.name,
        "status": batch.status.value,
        "reason": batch.reason,
        "run": batch.run,
        "job_type": batch.type,
        "user": batch.user,
        "counts": row_counts(batch, counts),
        "cost": dollars(counts.cost),
        "currency": "USD",
        "created_at": rfc3339(batch.created_at),
        "finished_at": rfc3339(batch.finished_at),
        "links": {"self": base, "rows": f"{base}?detailed=true", "export": f"{base}/export", "retry_failed": f"{base}/retry-failed"},
    }
    label = single_line(batch.name) if batch.name else batch.id
    return NotificationMessage(
        id=message_id(batch.id, batch.run, batch.status.value),
        type="batch.completed",
        created_at=batch.finished_at or batch.updated_at,
        subject=single_line(f"Headrace: batch {label} {batch.status.value}"),
        text=_batch_text(batch, counts, base),
        data=data,
    )


def _batch_text(batch: Batch, counts: BatchCounts, base: str) -> str:
    rows = row_counts(batch, counts)
    lines = [
        f"Batch {batch.id} ({batch.type}) is {batch.status.value}{f': {batch.reason}' if batch.reason else ''}.",
        f"{rows['completed']} of {rows['total']} rows completed, {rows['failed']} failed, {rows['cancelled']} cancelled.",
        f"Run {batch.run}. Cost: {dollars(counts.cost)} USD.",
        f"{base}/export",
    ]
    return "\n".join(lines)
