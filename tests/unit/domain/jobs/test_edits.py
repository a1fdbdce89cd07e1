"""What a person may change on a job that has not ended, as pure functions from head to head."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up
from chalicelib.domain.jobs.job import START_LATER, TERMINAL, Job, Status
from chalicelib.domain.jobs.transitions import claim, mark_deleted, restart
from tests.kit.jobs import HOUR, NOW, job

AT = NOW + HOUR


def waiting(**changes: Any) -> Job:
    values = {"status": Status.WAITING, "reason": START_LATER, "resume_at": AT, "queued_at": AT, "expires_at": AT + HOUR, "due_at": AT}
    return job(**{**values, "retry_until": AT + 2 * HOUR, **changes})


def edited(before: Job, **wanted: Any) -> Job:
    after = apply_edit(before, JobEdit(**wanted), NOW)
    assert after is not None
    return after


def test_sooner_keeps_the_generation_and_later_disowns_the_wake_up_that_is_on_its_way() -> None:
    """[17]: the old wake-up comes too late to matter when the job is moved closer, and too early when it is moved away."""
    sooner, later = edited(waiting(), run_at=AT - 60_000), edited(waiting(), run_at=AT + 60_000)

    assert (sooner.resume_at, sooner.generation) == (AT - 60_000, 1)
    assert (later.resume_at, later.generation) == (AT + 60_000, 2)
    assert claim(later, 1, "lease#1", AT) is None
    assert all(needs_wake_up(waiting(), after) for after in (sooner, later))


def test_a_moved_job_may_expire_and_be_tried_as_long_after_its_new_start_as_after_the_old_one() -> None:
    after = edited(waiting(), run_at=AT + 5_000)

    assert (after.expires_at, after.retry_until, after.queued_at) == (AT + HOUR + 5_000, AT + 2 * HOUR + 5_000, AT + 5_000)
    assert edited(waiting(), run_at=AT + 5_000, expires_at=AT + 9_000).expires_at == AT + 9_000


def test_moved_to_now_it_is_queued() -> None:
    after = edited(waiting(), run_at=NOW - 1)

    assert (after.status, after.resume_at, after.reason, after.queued_at, after.expires_at) == (Status.QUEUED, None, None, NOW, NOW + HOUR)
    assert apply_edit(after, JobEdit(run_at=NOW), NOW) is after  # asked again


def test_far_ahead_it_is_due_when_its_wake_up_can_be_sent() -> None:
    assert edited(waiting(), run_at=NOW + 10 * HOUR).due_at == NOW + 10 * HOUR
    assert edited(waiting(), run_at=NOW + 60_000).due_at == NOW + 60_000 + 120_000


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.RETRYING, Status.HELD])
def test_only_what_waits_for_its_time_has_a_start_to_be_moved(status: Status) -> None:
    assert apply_edit(job(status=status), JobEdit(run_at=AT), NOW) is None
    assert apply_edit(waiting(reason="parents"), JobEdit(run_at=AT), NOW) is None


@pytest.mark.parametrize(("lane", "generation"), [("urgent", 1), ("high", 1), ("low", 2)])
def test_up_a_lane_the_wake_up_stays_good_and_down_it_is_disowned(lane: str, generation: int) -> None:
    after = edited(job(), lane=lane)

    assert (after.lane, after.generation, after.due_at) == (lane, generation, NOW + 120_000)
    assert needs_wake_up(job(), after)


def test_what_a_worker_has_changes_its_lane_for_its_next_attempt_only() -> None:
    before = job(status=Status.PROCESSING, owner="lease#1")

    after = edited(before, lane="low")

    assert (after.lane, after.generation, after.owner, after.due_at) == ("low", 1, "lease#1", before.due_at)
    assert not needs_wake_up(before, after)


def test_a_change_that_is_there_already_is_none() -> None:
    before = job(tags=("a",))

    assert apply_edit(before, JobEdit(tags=("a",), lane="normal", expires_at=before.expires_at), NOW) is before


def test_new_metadata_is_a_change_of_the_record_too() -> None:
    assert edited(job(), changes_spec=True).version == 2


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_what_has_ended_is_not_changed(status: Status) -> None:
    assert apply_edit(job(status=status, finished_at=NOW), JobEdit(tags=("a",)), NOW) is None


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_deleted_job_is_never_started_again(status: Status) -> None:
    """Deleting is a change of the record like any other; asking again changes nothing."""
    ended = job(status=status, finished_at=NOW - 5, ttl=NOW // 1000 + 600, due_at=None)
    assert not ended.is_deleted

    deleted = mark_deleted(ended, NOW)

    assert deleted is not None
    assert (deleted.is_deleted, deleted.version) == (True, 2)
    assert mark_deleted(deleted, NOW + 9) is deleted
    assert restart(deleted, NOW, HOUR, HOUR) is None


@pytest.mark.parametrize("status", sorted(frozenset(Status) - TERMINAL))
def test_what_has_not_ended_is_not_deleted(status: Status) -> None:
    assert mark_deleted(job(status=status), NOW) is None
