"""How a batch stands, as people are shown it: its record and what is counted of its rows, put together."""

from __future__ import annotations

from math import ceil

from chalicelib.domain.batches.batch import Batch, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.units import Ms


def status(one: Batch, counts: BatchCounts) -> str:
    """`queued` until the first of its rows has begun."""
    if one.is_active and not counts.processing and not counts.ended:
        return BatchStatus.QUEUED.value
    return one.status.value


def row_counts(one: Batch, counts: BatchCounts) -> dict[str, int]:
    """Each row once. Rows that have no job yet wait; those that will never have one are cancelled."""
    without = max(0, one.total - counts.known)
    return {
        "total": one.total,
        "waiting": counts.waiting + (without if one.is_active else 0),
        "queued": counts.queued,
        "processing": counts.processing,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled + (0 if one.is_active else without),
    }


def percentage(one: Batch, counts: BatchCounts) -> float:
    ended = counts.ended if one.is_active else counts.ended + max(0, one.total - counts.known)
    return round(100 * ended / one.total, 1)


def estimated_completion(one: Batch, counts: BatchCounts, now: Ms) -> Ms | None:
    """When it will probably be done, by how fast its rows have ended in this run, and not before its last group is released; None while
    nothing is known of that.
    """
    if not one.is_active or one.run_started_at is None:
        return None
    left = one.total - counts.ended
    done = counts.ended - one.run_started_with
    if done <= 0:
        return None
    by_speed = now + round(left * (now - one.run_started_at) / done)
    size = one.batch_size or one.total
    groups = ceil((one.total - one.released) / size)
    released = max(now, one.next_at) + round((groups - 1) * one.delay * 1000) if groups else now
    return max(by_speed, released)


def view_version(one: Batch, counts: BatchCounts) -> int:
    """Grows with each change of either."""
    return one.version + counts.version
