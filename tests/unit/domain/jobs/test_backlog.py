"""How far a queue has been handed out."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.jobs.backlog import due_cutoff, watermark
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from tests.contract.given import NOW, job


def test_a_batch_is_as_old_as_the_job_that_has_waited_longest() -> None:
    """A delayed one waits only from its time on."""
    delayed = replace(job(queued_at=NOW - 900_000), resume_at=NOW + 5)

    assert watermark([job(queued_at=NOW + 9), delayed, job(queued_at=NOW + 7)]) == NOW + 5


def test_what_was_queued_after_the_newest_watermark_is_not_looked_at() -> None:
    """Those queued before it are, two minutes after they were queued; those of the same moment as it are behind it too."""
    first_look = NOW + QUEUED_CHECK_DELAY_MS

    assert due_cutoff(NOW + 10**9, [NOW - 5, NOW, NOW - 9], depth=1) == first_look - 1
    assert due_cutoff(NOW - 7, [NOW], depth=1) == NOW - 7


def test_everything_is_looked_at_where_nobody_waits_or_works() -> None:
    """A lane that is empty has no backlog, and one without workers nobody who could say how far it is."""
    assert due_cutoff(NOW, [1], depth=0) == NOW
    assert due_cutoff(NOW, [], depth=10) == NOW
