"""Transitions of a held job: it is held by a gate, resumed, or ended if it waits too long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.jobs.job import TERMINAL, Job, Status
from chalicelib.domain.jobs.transitions import (
    AttemptOutcome,
    cancel,
    claim,
    expire_if_late,
    give_up,
    hold,
    hold_after_attempt,
    is_claimable,
    message_delay,
    restart,
)
from tests.kit.jobs import ERROR, HOUR, NOW, job

SOON = NOW + 30_000
REASON = "circuit_open"
OWNER = "lease-1#a"
HELD = hold(job(), 1, REASON, SOON, NOW)
assert HELD is not None
REFUSED = AttemptOutcome(status=Status.FAILED, length=0, error=ERROR)


@pytest.mark.parametrize(
    "before",
    [
        job(attempt=2, tries=1, length=7, started_at=NOW - 9),
        job(status=Status.RETRYING, attempt=1, tries=1, error=ERROR, resume_at=NOW, started_at=NOW - 9),
        job(status=Status.WAITING, reason="run_at", resume_at=NOW),
        job(status=Status.HELD, reason=REASON, resume_at=NOW),
    ],
)
def test_hold_keeps_attempts_text_and_error_and_schedules_a_wake_up(before: Job) -> None:
    """`due_at` lies after the wake-up, so that the sweeper can repeat a lost one."""
    after = hold(before, 1, REASON, SOON, NOW)

    assert after is not None
    assert (after.status, after.reason, after.resume_at, after.generation) == (Status.HELD, REASON, SOON, 2)
    assert (after.attempt, after.tries, after.length, after.error) == (before.attempt, before.tries, before.length, before.error)
    assert message_delay(after, NOW) == 30
    assert after.due_at == SOON + 120_000
    assert is_claimable(after)


def test_hold_is_idempotent_and_ignores_outdated_wake_ups() -> None:
    """A write whose answer was lost is recognised."""
    assert HELD is not None
    assert hold(HELD, 1, REASON, SOON + 9, NOW + 5) is HELD
    assert hold(job(generation=2), 1, REASON, SOON, NOW) is None
    assert hold(job(status=Status.PROCESSING, owner=OWNER), 1, REASON, SOON, NOW) is None
    for status in TERMINAL:
        assert hold(job(status=status), 1, REASON, SOON, NOW) is None


def test_a_held_job_can_be_claimed_restarted_or_cancelled() -> None:
    assert HELD is not None
    claimed = claim(HELD, 2, OWNER, SOON, model="other")
    now = restart(HELD, NOW + 5, HOUR, HOUR)
    stopped = cancel(HELD, NOW + 5)

    assert claimed is not None
    assert (claimed.status, claimed.attempt, claimed.tries, claimed.reason, claimed.resume_at) == (Status.PROCESSING, 1, 1, None, None)
    assert (claimed.attempt_model, claimed.asked_model, claimed.model) == ("other", "other", "gpt-4o-mini")
    assert now is not None
    assert (now.status, now.generation, now.run, now.reason, now.resume_at) == (Status.QUEUED, 3, 1, None, None)
    assert stopped is not None
    assert stopped.status is Status.CANCELLED


def test_a_held_job_without_resume_at_cannot_be_claimed() -> None:
    """Only a person can resume a paused job."""
    paused = job(status=Status.HELD, reason="paused")

    assert not is_claimable(paused)
    assert claim(paused, 1, OWNER, NOW) is None


def test_claiming_with_the_jobs_own_model_clears_attempt_model() -> None:
    again = claim(job(attempt_model="other"), 1, OWNER, NOW, model="gpt-4o-mini")

    assert again is not None
    assert (again.attempt_model, again.asked_model) == (None, "gpt-4o-mini")


@pytest.mark.parametrize(
    ("before", "last"),
    [
        (job(), job().expires_at),
        (job(status=Status.RETRYING, started_at=NOW - 9, retry_until=NOW + 2_000), NOW + 2_000),
        (job(status=Status.RETRYING, started_at=NOW - 9, expires_at=NOW + 1, retry_until=NOW + HOUR), NOW + HOUR),  # it started in time
    ],
)
def test_hold_never_waits_beyond_the_expiry_or_the_retry_window(before: Job, last: int) -> None:
    held = hold(before, 1, REASON, NOW + 10 * HOUR, NOW)

    assert held is not None
    assert held.resume_at == last


@pytest.mark.parametrize(
    ("held", "status", "code"),
    [
        (job(status=Status.HELD, resume_at=NOW, expires_at=NOW), Status.EXPIRED, None),
        (job(status=Status.HELD, resume_at=NOW, started_at=1, retry_until=NOW, error=ERROR), Status.FAILED, ERROR.code),
        (job(status=Status.HELD, resume_at=NOW, started_at=1, retry_until=NOW), Status.FAILED, "held_too_long"),
    ],
)
def test_a_held_job_past_its_time_expires_or_fails(held: Job, status: Status, code: str | None) -> None:
    """The gate, the claim and the sweeper come to the same result."""
    for end in (expire_if_late(held, NOW), claim(held, 1, OWNER, NOW), hold(held, 1, "something else", SOON, NOW)):
        assert end is not None
        assert (end.status, end.error.code if end.error else None) == (status, code)
    assert expire_if_late(replace(held, retry_until=NOW + 1, expires_at=NOW + 1), NOW) is None
    if status is Status.FAILED:
        assert give_up(held, NOW) == expire_if_late(held, NOW)


def test_a_failed_probe_holds_its_job_without_using_up_a_try() -> None:
    """The attempt number stays taken, and the job has the error of the probe."""
    before = job(status=Status.PROCESSING, owner=OWNER, attempt=2, tries=2, started_at=NOW - 9)

    after = hold_after_attempt(before, 1, OWNER, REFUSED, REASON, SOON, NOW)

    assert after is not None
    assert (after.status, after.reason, after.resume_at, after.error) == (Status.HELD, REASON, SOON, ERROR)
    assert (after.attempt, after.tries, after.generation, after.version) == (2, 1, 2, before.version + 1)
    assert hold_after_attempt(after, 1, OWNER, REFUSED, REASON, SOON + 9, NOW + 5) is after
    assert hold_after_attempt(before, 1, "lease-2#b", REFUSED, REASON, SOON, NOW) is None


def test_a_cancel_request_wins_over_a_hold_after_an_attempt() -> None:
    before = job(status=Status.PROCESSING, owner=OWNER, attempt=1, tries=1, cancel_requested=True)

    after = hold_after_attempt(before, 1, OWNER, REFUSED, REASON, SOON, NOW)

    assert after is not None
    assert after.status is Status.CANCELLED
