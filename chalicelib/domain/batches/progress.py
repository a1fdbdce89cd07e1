"""Compute the progress of a batch as it is shown to users, from its record and its counters."""

from __future__ import annotations

from math import ceil

from chalicelib.domain.batches.batch import Batch, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.units import Ms


def status(batch: Batch, counts: BatchCounts) -> str:
    """Return the status; `queued` until the first row has started."""
    if batch.is_active and not counts.processing and not counts.ended:
        return BatchStatus.QUEUED.value
    return batch.status.value


def row_counts(batch: Batch, counts: BatchCounts) -> dict[str, int]:
    """Count each row in one state.

    Rows without a job are waiting while the batch is active, otherwise cancelled.
    """
    without_job = max(0, batch.total - counts.known)
    return {
        "total": batch.total,
        "waiting": counts.waiting + (without_job if batch.is_active else 0),
        "queued": counts.queued,
        "processing": counts.processing,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled + (0 if batch.is_active else without_job),
    }


def percentage(batch: Batch, counts: BatchCounts) -> float:
    """Return the share of rows that have ended, with one decimal."""
    ended = counts.ended if batch.is_active else counts.ended + max(0, batch.total - counts.known)
    return round(100 * ended / batch.total, 1)


def estimated_completion(batch: Batch, counts: BatchCounts, now: Ms) -> Ms | None:
    """Estimate the end from the speed of this run, but not before the last group is released.

    Returns None while no row of this run has ended.
    """
    if not batch.is_active or batch.run_started_at is None:
        return None
    remaining = batch.total - counts.ended
    ended_in_run = counts.ended - batch.run_started_with
    if ended_in_run <= 0:
        return None
    by_speed = now + round(remaining * (now - batch.run_started_at) / ended_in_run)
    group_size = batch.batch_size or batch.total
    groups = ceil((batch.total - batch.released) / group_size)
    last_release = max(now, batch.next_at) + round((groups - 1) * batch.delay * 1000) if groups else now
    return max(by_speed, last_release)


def view_version(batch: Batch, counts: BatchCounts) -> int:
    """Return a version of the view; it grows with each change of the record or the counters."""
    return batch.version + counts.version
