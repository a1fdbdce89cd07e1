"""Edits of a job that has not ended, as pure functions on the job record."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, TERMINAL, Job, Status
from chalicelib.domain.jobs.transitions import claim, mark_deleted, restart
from tests.kit.jobs import HOUR, NOW, job

AT = NOW + HOUR


def waiting(**changes: Any) -> Job:
    values = {"status": Status.WAITING, "reason": START_LATER, "resume_at": AT, "queued_at": AT, "expires_at": AT + HOUR, "due_at": AT}
    return job(**{**values, "retry_until": AT + 2 * HOUR, **changes})


def edited(before: Job, **changes: Any) -> Job:
    after = apply_edit(before, JobEdit(**changes), NOW)
    assert after is not None
    return after


def test_start_edit_increments_the_generation_only_when_postponing() -> None:
    """Protocol rule 17: sending again keeps the generation; only disowning a wake-up adds to it."""
    sooner, later = edited(waiting(), run_at=AT - 60_000), edited(waiting(), run_at=AT + 60_000)

    assert (sooner.resume_at, sooner.generation) == (AT - 60_000, 1)
    assert (later.resume_at, later.generation) == (AT + 60_000, 2)
    assert claim(later, 1, "lease#1", AT) is None
    assert all(needs_wake_up(waiting(), after) for after in (sooner, later))


def test_moving_the_start_shifts_expiry_and_retry_deadline_equally() -> None:
    after = edited(waiting(), run_at=AT + 5_000)

    assert (after.expires_at, after.retry_until, after.queued_at) == (AT + HOUR + 5_000, AT + 2 * HOUR + 5_000, AT + 5_000)
    assert edited(waiting(), run_at=AT + 5_000, expires_at=AT + 9_000).expires_at == AT + 9_000


def test_moving_the_start_to_now_queues_the_job() -> None:
    after = edited(waiting(), run_at=NOW - 1)

    assert (after.status, after.resume_at, after.reason, after.queued_at, after.expires_at) == (Status.QUEUED, None, None, NOW, NOW + HOUR)
    assert apply_edit(after, JobEdit(run_at=NOW), NOW) is after  # a repeated request


def test_due_time_of_a_moved_start_depends_on_the_sqs_delay_limit() -> None:
    """Beyond 15 minutes the sweeper sends the wake-up at the start itself."""
    assert edited(waiting(), run_at=NOW + 10 * HOUR).due_at == NOW + 10 * HOUR
    assert edited(waiting(), run_at=NOW + 60_000).due_at == NOW + 60_000 + 120_000


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.RETRYING, Status.HELD])
def test_start_edit_of_an_unscheduled_job_is_refused(status: Status) -> None:
    assert apply_edit(job(status=status), JobEdit(run_at=AT), NOW) is None


def test_start_edit_of_a_job_with_open_dependencies_keeps_it_waiting_for_them() -> None:
    """The expiry and the retry deadline move with the start; no wake-up is sent or disowned."""
    before = waiting(reason=DEPENDENCIES, resume_at=None, queued_at=NOW)

    later = edited(before, run_at=AT)
    now = edited(later, run_at=NOW - 1)

    assert (later.status, later.reason, later.resume_at, later.generation) == (Status.WAITING, DEPENDENCIES, AT, 1)
    assert (later.queued_at, later.expires_at, later.retry_until) == (AT, before.expires_at + HOUR, before.retry_until + HOUR)
    assert (now.status, now.reason, now.resume_at, now.generation) == (Status.WAITING, DEPENDENCIES, None, 1)
    assert (now.queued_at, now.expires_at, now.retry_until) == (NOW, before.expires_at, before.retry_until)
    assert not needs_wake_up(before, later)
    assert not needs_wake_up(later, now)


@pytest.mark.parametrize(("lane", "generation"), [("urgent", 1), ("high", 1), ("low", 2)])
def test_lane_edit_increments_the_generation_only_when_moving_down(lane: str, generation: int) -> None:
    after = edited(job(), lane=lane)

    assert (after.lane, after.generation, after.due_at) == (lane, generation, NOW + 120_000)
    assert needs_wake_up(job(), after)


def test_lane_edit_of_a_processing_job_sends_no_wake_up() -> None:
    before = job(status=Status.PROCESSING, owner="lease#1")

    after = edited(before, lane="low")

    assert (after.lane, after.generation, after.owner, after.due_at) == ("low", 1, "lease#1", before.due_at)
    assert not needs_wake_up(before, after)


def test_edit_without_a_change_returns_the_same_job() -> None:
    before = job(tags=("a",))

    assert apply_edit(before, JobEdit(tags=("a",), lane="normal", expires_at=before.expires_at), NOW) is before


def test_job_spec_edit_increments_the_record_version() -> None:
    assert edited(job(), changes_spec=True).version == 2


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_terminal_job_cannot_be_edited(status: Status) -> None:
    assert apply_edit(job(status=status, finished_at=NOW), JobEdit(tags=("a",)), NOW) is None


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_deleted_job_cannot_be_restarted(status: Status) -> None:
    """A repeated delete changes nothing."""
    ended = job(status=status, finished_at=NOW - 5, ttl=NOW // 1000 + 600, due_at=None)
    assert not ended.is_deleted

    deleted = mark_deleted(ended, NOW)

    assert deleted is not None
    assert (deleted.is_deleted, deleted.version) == (True, 2)
    assert mark_deleted(deleted, NOW + 9) is deleted
    assert restart(deleted, NOW, HOUR, HOUR) is None


@pytest.mark.parametrize("status", sorted(frozenset(Status) - TERMINAL))
def test_unfinished_job_cannot_be_deleted(status: Status) -> None:
    assert mark_deleted(job(status=status), NOW) is None
