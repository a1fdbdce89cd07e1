"""Build the frames for subscribers of a batch, which are flat objects without content.

Their fields: `{"event", "batch_id", "version", "at", ...}`.

Every frame is a state: the highest `version` wins, that of the batch or, in `batch_item`, of the
row's job. Receiving a frame twice is harmless.
"""

from __future__ import annotations

from chalicelib.domain.batches import progress as batch_progress
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.ids import row_of_job_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.units import Ms, dollars, rfc3339


def connected(batch: Batch, counts: BatchCounts, now: Ms) -> Frame:
    """The answer to a subscription."""
    return _state("connected", batch, counts, now)


def state(batch: Batch, counts: BatchCounts, now: Ms) -> Frame:
    """The progress of the batch: `batch_progress`, or `batch_completed` once it has finished."""
    return _state("batch_progress" if batch.finished_at is None else "batch_completed", batch, counts, now)


def row_ended(batch: Batch, job: Job, now: Ms) -> Frame:
    """The end of one row: `batch_item`."""
    return {
        "event": "batch_item",
        "batch_id": batch.id,
        "row": row_of_job_id(job.id),
        "job_id": job.id,
        "status": job.status.value,
        "reason": job.reason,
        "run": job.run,
        "attempt": job.attempt,
        "version": job.version,
        "at": rfc3339(now),
        "error_code": job.error.code if job.error else None,
        "cost": dollars(job.cost),
    }


def _state(event: str, batch: Batch, counts: BatchCounts, now: Ms) -> Frame:
    return {
        "event": event,
        "batch_id": batch.id,
        "version": batch_progress.view_version(batch, counts),
        "at": rfc3339(now),
        "status": batch_progress.status(batch, counts),
        "reason": batch.reason,
        "run": batch.run,
        "counts": batch_progress.row_counts(batch, counts),
        "progress_percentage": batch_progress.percentage(batch, counts),
        "estimated_completion_at": rfc3339(batch_progress.estimated_completion(batch, counts, now)),
        "cost": dollars(counts.cost),
        "currency": "USD",
        "usage": {"input_tokens": counts.input, "output_tokens": counts.output},
        "finished_at": rfc3339(batch.finished_at),
    }
