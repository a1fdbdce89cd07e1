"""A job that waits for its dependencies: transitions and edits, and the rules for parents."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.dependencies import first_failed, has_ended, has_failed, is_alias, template_problems
from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, Status
from chalicelib.domain.jobs.transitions import (
    MAX_RECHECK_MS,
    cancel,
    claim,
    dependency_failed,
    expire,
    hold,
    postpone_check,
    release,
    restart,
)
from tests.kit.jobs import HOUR, NOW, job


def waiting(**changes: Any) -> Job:
    return job(**{"status": Status.WAITING, "reason": DEPENDENCIES, "queued_at": NOW - 5_000, **changes})


def test_release_queues_the_job_and_restarts_its_retry_window() -> None:
    """Waiting for parents uses up nothing of `retry_for`; `expires_at` stays."""
    child = waiting(retry_until=NOW - 5_000 + HOUR)

    after = release(child, NOW + 30 * HOUR)

    assert after is not None
    assert (after.status, after.reason, after.resume_at, after.generation) == (Status.QUEUED, None, None, 2)
    assert (after.queued_at, after.retry_until, after.expires_at) == (NOW + 30 * HOUR, NOW + 31 * HOUR, child.expires_at)
    assert after.due_at == NOW + 30 * HOUR + 120_000


def test_release_before_run_at_leaves_the_job_waiting_for_its_start_time() -> None:
    child = waiting(resume_at=NOW + HOUR, queued_at=NOW + HOUR, retry_until=NOW + 2 * HOUR)

    after = release(child, NOW)

    assert after is not None
    assert (after.status, after.reason, after.resume_at) == (Status.WAITING, START_LATER, NOW + HOUR)
    assert (after.queued_at, after.retry_until, after.due_at) == (NOW + HOUR, NOW + 2 * HOUR, NOW + HOUR)
    assert claim(after, 2, "lease#1", NOW + HOUR) is not None


@pytest.mark.parametrize("status", list(Status))
def test_only_a_job_waiting_for_dependencies_is_released_or_cancelled(status: Status) -> None:
    """Several callers may find the parents ended at once; only one of them may release the job."""
    for other in (job(status=status), job(status=status, reason=START_LATER, resume_at=NOW + 1)):
        assert release(other, NOW) is None
        assert dependency_failed(other, "job_02", "failed", NOW) is None


def test_a_released_job_is_neither_released_again_nor_cancelled() -> None:
    after = release(waiting(), NOW)

    assert after is not None
    assert release(after, NOW) is None
    assert dependency_failed(after, "job_02", "failed", NOW) is None


def test_a_failed_parent_cancels_the_job_and_is_named_in_its_error() -> None:
    after = dependency_failed(waiting(), "job_02", "expired", NOW)

    assert after is not None
    assert after.error is not None
    assert (after.status, after.due_at, after.length) == (Status.CANCELLED, None, 0)
    assert (after.error.code, after.error.error_class, after.error.retryable) == ("dependency_failed", "dependency", False)
    assert after.error.message == "It depends on job_02, which is expired."


def test_a_job_with_open_dependencies_is_not_claimed_held_or_restarted() -> None:
    for child in (waiting(), waiting(resume_at=NOW - 1)):
        assert claim(child, 1, "lease#1", NOW) is None
        assert hold(child, 1, "circuit_open", NOW + 1, NOW) is None
        assert restart(child, NOW, HOUR, HOUR) is None


def test_a_job_with_open_dependencies_can_be_cancelled_and_can_expire() -> None:
    cancelled = cancel(waiting(), NOW)

    assert cancelled is not None
    assert (cancelled.status, cancelled.error) == (Status.CANCELLED, None)
    assert expire(waiting(), NOW).status is Status.EXPIRED


def test_dependency_recheck_intervals_grow_up_to_the_maximum() -> None:
    """A distant `run_at` does not change the intervals."""
    for resume_at in (None, NOW + 90 * HOUR):
        intervals, at = [], NOW
        child = waiting(resume_at=resume_at, queued_at=resume_at or NOW - 5_000)
        for _ in range(12):
            checked = postpone_check(child, at)
            assert checked is not None
            assert checked.due_at is not None
            intervals.append(checked.due_at - at)
            child, at = checked, checked.due_at

        assert intervals[0] == 120_000
        assert intervals == sorted(intervals)
        assert intervals[-1] == MAX_RECHECK_MS


def test_run_at_can_be_changed_while_dependencies_are_open() -> None:
    """A later `run_at` is set and removed again; the change needs no wake-up."""
    later = apply_edit(waiting(retry_until=NOW + HOUR - 5_000), JobEdit(run_at=NOW + HOUR), NOW)

    assert later is not None
    assert (later.status, later.reason, later.resume_at, later.generation) == (Status.WAITING, DEPENDENCIES, NOW + HOUR, 1)
    assert (later.queued_at, later.retry_until) == (NOW + HOUR, NOW + 2 * HOUR)
    assert not needs_wake_up(waiting(), later)

    now = apply_edit(later, JobEdit(run_at=NOW), NOW)

    assert now is not None
    assert (now.status, now.resume_at, now.queued_at, now.retry_until) == (Status.WAITING, None, NOW, NOW + HOUR)
    assert apply_edit(now, JobEdit(run_at=NOW), NOW) is now


def test_changing_the_lane_while_dependencies_are_open_sends_no_wake_up() -> None:
    after = apply_edit(waiting(), JobEdit(lane="urgent"), NOW)

    assert after is not None
    assert (after.lane, after.generation, needs_wake_up(waiting(), after)) == ("urgent", 1, False)


@pytest.mark.parametrize("status", list(Status))
def test_every_terminal_status_but_completed_counts_as_a_failed_parent(status: Status) -> None:
    parent = job(status=status)

    assert has_ended(parent) == status.is_terminal
    assert has_failed(parent) == (status.is_terminal and status is not Status.COMPLETED)


def test_a_missing_parent_counts_as_failed() -> None:
    assert has_ended(None)
    assert has_failed(None)
    assert first_failed(["a", "b", "c"], {"a": job(status=Status.COMPLETED), "c": job()}) == "b"


def test_parent_aliases_are_ascii_words_of_at_most_64_characters() -> None:
    assert all(map(is_alias, ["a", "job_01-X", "a" * 64]))
    assert not any(map(is_alias, ["", "a.b", "a" * 65, "é", 5, None]))


@pytest.mark.parametrize("path", ["output", "parsed", "parsed.items.0.name", "status", "job_id"])
def test_templates_may_use_output_parsed_status_and_job_id_of_a_parent(path: str) -> None:
    assert template_problems(f"x {{{{ parents.first.{path} }}}} y", ["first"]) == []


@pytest.mark.parametrize(
    "name",
    ["parents", "parents.first", "parents.other.output", "parents.first.outptu", "parents.first.output.0", "first.output", "input", ""],
)
def test_unknown_template_placeholders_are_refused_with_the_valid_forms(name: str) -> None:
    [problem] = template_problems({"deep": [f"{{{{{name}}}}}"]}, ["first"])

    assert problem.startswith(f"asks for {{{{{name}}}}}; there is {{{{parents.first.output}}}}")
