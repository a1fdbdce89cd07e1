"""Pause and resume of one job record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, TERMINAL, Job, JobError, JobPause, Status
from tests.kit.records import NOW, job

ERROR = JobError(code="stream_cut", error_class="provider", retryable=True, message="m", suggestion="s", attempt=1)


def pause(record: Job, until: int | None = None, reason: str | None = None) -> Job:
    paused = transitions.pause(record, "ann", reason, until, NOW)
    assert paused is not None
    return paused


def test_a_paused_job_keeps_its_place_and_stands_in_a_line_of_its_own() -> None:
    queued = job(queued_at=NOW - 500)

    paused = pause(queued, reason="wait")

    assert (paused.status, paused.reason, paused.cause, paused.resume_at) == (Status.HELD, "paused", "pause:job", None)
    assert (paused.generation, paused.version, paused.queued_at) == (queued.generation + 1, queued.version + 1, NOW - 500)
    assert paused.pause == JobPause(by="ann", since=NOW, reason="wait")
    assert paused.due_at == queued.expires_at


def test_a_pause_with_an_end_waits_for_a_time() -> None:
    paused = pause(job(), until=NOW + 60_000)

    assert (paused.cause, paused.resume_at, transitions.message_delay(paused, NOW)) == (None, NOW + 60_000, 60)
    assert transitions.is_paused(paused, NOW + 59_999)
    assert not transitions.is_paused(paused, NOW + 60_000)


@pytest.mark.parametrize("status", [Status.PROCESSING, *TERMINAL])
def test_what_runs_or_has_ended_cannot_be_paused(status: Status) -> None:
    assert transitions.pause(job(status=status), "ann", None, None, NOW) is None


def test_a_job_whose_response_runs_on_cannot_be_paused() -> None:
    assert transitions.pause(job(response_id="resp_1"), "ann", None, None, NOW) is None


@pytest.mark.parametrize("reason", [START_LATER, DEPENDENCIES])
def test_a_waiting_job_only_notes_its_pause(reason: str) -> None:
    waiting = job(status=Status.WAITING, reason=reason, resume_at=NOW + 5)

    paused = pause(waiting)

    assert replace(paused, pause=None, version=waiting.version, updated_at=waiting.updated_at) == waiting
    assert transitions.resume(paused, NOW + 1) == replace(waiting, version=waiting.version + 2, updated_at=NOW + 1)


def test_a_resumed_job_is_queued_with_its_place() -> None:
    queued = job(queued_at=NOW - 500)

    resumed = transitions.resume(pause(queued), NOW + 9)

    assert resumed is not None
    assert (resumed.status, resumed.reason, resumed.cause, resumed.pause) == (Status.QUEUED, None, None, None)
    assert (resumed.queued_at, resumed.generation) == (NOW - 500, queued.generation + 2)


@pytest.mark.parametrize(("later", "status"), [(10, Status.RETRYING), (90_000, Status.QUEUED)])
def test_a_retrying_job_keeps_the_time_of_its_next_attempt(later: int, status: Status) -> None:
    retrying = job(status=Status.RETRYING, started_at=NOW, resume_at=NOW + 60_000, error=ERROR, reason="stream_cut")

    resumed = transitions.resume(pause(retrying), NOW + later)

    assert resumed is not None
    expected = (NOW + 60_000, "stream_cut") if status is Status.RETRYING else (None, None)
    assert (resumed.status, (resumed.resume_at, resumed.reason)) == (status, expected)


def test_resuming_what_is_not_paused_changes_nothing() -> None:
    queued = job()

    assert transitions.resume(queued, NOW) is queued
    assert transitions.resume(job(status=Status.COMPLETED), NOW) is None


def test_a_job_that_waits_for_something_else_stays_where_it_is_when_it_is_resumed() -> None:
    """It was paused while it waited, and is held for a circuit since."""
    waiting = pause(job(status=Status.WAITING, reason=START_LATER, resume_at=NOW + 5))
    held = transitions.hold(replace(waiting, status=Status.QUEUED), waiting.generation, "circuit_open", None, NOW, "circuit:m")
    assert held is not None

    resumed = transitions.resume(held, NOW)

    assert resumed is not None
    assert (resumed.status, resumed.cause, resumed.pause) == (Status.HELD, "circuit:m", None)


def test_an_end_or_a_claim_ends_the_pause() -> None:
    paused = pause(job())
    over = pause(job(), until=NOW + 5)

    cancelled = transitions.cancel(paused, NOW)
    claimed = transitions.claim(over, over.generation, "l#1", NOW + 6)

    assert cancelled is not None
    assert claimed is not None
    assert (cancelled.pause, claimed.pause) == (None, None)
    assert transitions.restart(paused, NOW, 1, 1) is None
