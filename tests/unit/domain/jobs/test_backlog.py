"""How far the workers have read a lane, and which jobs are therefore due."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.jobs.backlog import due_cutoff, watermark
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from tests.kit.jobs import NOW, job


def test_watermark_is_the_earliest_ready_time() -> None:
    """A delayed job counts from the time at which its delay ends."""
    delayed = replace(job(queued_at=NOW - 900_000), resume_at=NOW + 5)

    assert watermark([job(queued_at=NOW + 9), delayed, job(queued_at=NOW + 7)]) == NOW + 5


def test_due_cutoff_excludes_jobs_queued_at_or_after_the_watermark() -> None:
    """Earlier jobs are due two minutes after they were queued."""
    first_check = NOW + QUEUED_CHECK_DELAY_MS

    assert due_cutoff(NOW + 10**9, [NOW - 5, NOW, NOW - 9], depth=1) == first_check - 1
    assert due_cutoff(NOW - 7, [NOW], depth=1) == NOW - 7


def test_due_cutoff_is_now_for_an_empty_lane_or_without_workers() -> None:
    """There is no backlog in an empty lane, and no watermark without workers."""
    assert due_cutoff(NOW, [1], depth=0) == NOW
    assert due_cutoff(NOW, [], depth=10) == NOW
