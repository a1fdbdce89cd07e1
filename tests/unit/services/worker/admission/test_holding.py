"""A job that a gate does not let through: how it waits, how it goes on, and how it ends if it waits too long."""

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
WHY = "circuit_open"
OWNER = "lease-1#a"
HELD = hold(job(), 1, WHY, SOON, NOW)
assert HELD is not None
REFUSED = AttemptOutcome(status=Status.FAILED, length=0, error=ERROR)


@pytest.mark.parametrize(
    "before",
    [
        job(attempt=2, tries=1, length=7, started_at=NOW - 9),
        job(status=Status.RETRYING, attempt=1, tries=1, error=ERROR, resume_at=NOW, started_at=NOW - 9),
        job(status=Status.WAITING, reason="run_at", resume_at=NOW),
        job(status=Status.HELD, reason=WHY, resume_at=NOW),
    ],
)
def test_it_waits_and_loses_nothing(before: Job) -> None:
    """No attempt, no try; text and error stay; a wake-up of its own will come, and a look after that."""
    after = hold(before, 1, WHY, SOON, NOW)

    assert after is not None
    assert (after.status, after.reason, after.resume_at, after.generation) == (Status.HELD, WHY, SOON, 2)
    assert (after.attempt, after.tries, after.length, after.error) == (before.attempt, before.tries, before.length, before.error)
    assert message_delay(after, NOW) == 30
    assert after.due_at == SOON + 120_000
    assert is_claimable(after)


def test_holding_again_is_the_same() -> None:
    """A write whose answer was lost is recognised; a late wake-up holds nothing."""
    assert HELD is not None
    assert hold(HELD, 1, WHY, SOON + 9, NOW + 5) is HELD
    assert hold(job(generation=2), 1, WHY, SOON, NOW) is None
    assert hold(job(status=Status.PROCESSING, owner=OWNER), 1, WHY, SOON, NOW) is None
    for status in TERMINAL:
        assert hold(job(status=status), 1, WHY, SOON, NOW) is None


def test_it_goes_on() -> None:
    """By its wake-up, by a person, or not at all."""
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


def test_without_a_time_no_wake_up_starts_it() -> None:
    """What waits for a person waits for nothing else."""
    paused = job(status=Status.HELD, reason="paused")

    assert not is_claimable(paused)
    assert claim(paused, 1, OWNER, NOW) is None


def test_its_own_model_is_not_named_again() -> None:
    again = claim(job(attempt_model="other"), 1, OWNER, NOW, model="gpt-4o-mini")

    assert again is not None
    assert (again.attempt_model, again.asked_model) == (None, "gpt-4o-mini")


@pytest.mark.parametrize(
    ("before", "last"),
    [
        (job(), job().expires_at),
        (job(status=Status.RETRYING, started_at=NOW - 9, retry_until=NOW + 2_000), NOW + 2_000),
        (job(status=Status.RETRYING, started_at=NOW - 9, expires_at=NOW + 1, retry_until=NOW + HOUR), NOW + HOUR),  # it has begun in time
    ],
)
def test_it_never_waits_beyond_its_time(before: Job, last: int) -> None:
    held = hold(before, 1, WHY, NOW + 10 * HOUR, NOW)

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
def test_it_ends_when_its_time_is_over(held: Job, status: Status, code: str | None) -> None:
    """Whoever looks first: a worker at the gate, at the claim, or the sweep."""
    for end in (expire_if_late(held, NOW), claim(held, 1, OWNER, NOW), hold(held, 1, "something else", SOON, NOW)):
        assert end is not None
        assert (end.status, end.error.code if end.error else None) == (status, code)
    assert expire_if_late(replace(held, retry_until=NOW + 1, expires_at=NOW + 1), NOW) is None
    if status is Status.FAILED:
        assert give_up(held, NOW) == expire_if_late(held, NOW)


def test_a_probe_in_vain_costs_its_job_nothing() -> None:
    """It is held with what it met; the attempt is taken, the try is not."""
    before = job(status=Status.PROCESSING, owner=OWNER, attempt=2, tries=2, started_at=NOW - 9)

    after = hold_after_attempt(before, 1, OWNER, REFUSED, WHY, SOON, NOW)

    assert after is not None
    assert (after.status, after.reason, after.resume_at, after.error) == (Status.HELD, WHY, SOON, ERROR)
    assert (after.attempt, after.tries, after.generation, after.version) == (2, 1, 2, before.version + 1)
    assert hold_after_attempt(after, 1, OWNER, REFUSED, WHY, SOON + 9, NOW + 5) is after
    assert hold_after_attempt(before, 1, "lease-2#b", REFUSED, WHY, SOON, NOW) is None


def test_a_cancel_wins_over_holding_back() -> None:
    before = job(status=Status.PROCESSING, owner=OWNER, attempt=1, tries=1, cancel_requested=True)

    after = hold_after_attempt(before, 1, OWNER, REFUSED, WHY, SOON, NOW)

    assert after is not None
    assert after.status is Status.CANCELLED
