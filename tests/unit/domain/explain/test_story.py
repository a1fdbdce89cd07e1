"""The story of a job, from its records."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.explain.story import Event, Records, tell_story
from chalicelib.domain.explain.words import duration_text, waited_for
from chalicelib.domain.jobs.job import DEPENDENCIES, JobError, JobPause, Status, Wait
from chalicelib.domain.jobs.transitions import MAX_WAITS
from chalicelib.domain.limits.admission import HoldReason
from chalicelib.domain.limits.waiting import JobWait, LimitKind, WaitLimit
from tests.kit.records import NOW, job

RATE = WaitLimit(kind=LimitKind.REQUESTS, value=500, model="gpt-4o-mini")


def error(code: str = "provider_unavailable", *, retryable: bool = True, attempt: int = 1) -> JobError:
    return JobError(code=code, error_class="x", retryable=retryable, message="OpenAI said 503.", suggestion="Retry it.", attempt=attempt)


def row(attempt: int = 1, **fields: Any) -> Result:
    at = NOW + attempt * 10_000
    return Result(
        **{"job_id": "j", "attempt": attempt, "text": "", "model": "gpt-4o-mini", "started_at": at, "finished_at": at + 3_000, **fields}
    )


def story(attempts: Any = (), wait: JobWait | None = None, limits: Any = None, content: bool = True, **fields: Any) -> list[Event]:
    records = Records(job=job(**fields), attempts=attempts, wait=wait or JobWait(), limits=limits or {}, content=content)
    return tell_story(records, NOW + 60_000)


def sentences(events: list[Event], what: str) -> list[str]:
    return [event.sentence for event in events if event.what == what]


def test_a_wait_is_told_with_its_limit_and_how_long_it_was() -> None:
    waits = (Wait(reason="rate_limited", cause="rate:gpt-4o-mini", since=NOW, until=NOW + 12_000),)
    events = story(waits=waits, limits={0: RATE})

    assert sentences(events, "wait") == ["It waited 12 s for the rate limit of gpt-4o-mini (500 requests a minute)."]
    assert events[1].facts["limit"] == {"kind": "requests", "value": 500, "model": "gpt-4o-mini"}
    assert events[1].facts["seconds"] == 12.0


def test_the_submission_comes_first_and_names_fallback_models_batch_and_run() -> None:
    told = story(fallback_models=("a", "b"), batch_id="batch_1", run=2)[0]

    assert (told.what, told.at) == ("submitted", NOW)
    for part in ("ann submitted it", "general", "normal", "gpt-4o-mini", "a or b", "batch_1", "run 2"):
        assert part in told.sentence


def test_a_held_job_says_what_it_waits_for_how_many_are_before_it_and_when_it_starts() -> None:
    wait = JobWait(limit=RATE, ahead=12, start_at=NOW + 90_000)
    waits = (Wait(reason="rate_limited", cause="rate:gpt-4o-mini", since=NOW),)
    events = story(status=Status.HELD, reason="rate_limited", cause="rate:gpt-4o-mini", waits=waits, wait=wait)

    (told,) = sentences(events, "now")
    for part in ("the rate limit of gpt-4o-mini (500 requests a minute)", "12 jobs of acme are before it", "in 30 s"):
        assert part in told
    assert sentences(events, "wait") == ["It has waited 1 min 0 s for the rate limit of gpt-4o-mini."]
    assert events[-1].facts["jobs_before"] == 12


def test_a_start_that_nobody_knows_is_said_to_be_unknown() -> None:
    events = story(status=Status.HELD, reason="openai_not_configured", cause="openai:key", wait=JobWait(ahead=0))

    assert "an OpenAI key to be stored" in events[-1].sentence
    assert "When it starts is not known." in events[-1].sentence
    assert "No other job of acme is before it." in events[-1].sentence


def test_more_jobs_than_are_counted_are_told_as_more() -> None:
    events = story(status=Status.HELD, reason="paused", cause="pause:all", wait=JobWait(ahead=300, more_ahead=True))

    assert "More than 300 jobs of acme are before it." in events[-1].sentence


def test_attempts_are_told_with_model_error_and_decision() -> None:
    attempts = [row(1, error_code="stream_cut"), row(2, model="gpt-4o", error_code="provider_unavailable")]
    events = story(attempts, status=Status.FAILED, attempt=2, tries=3, error=error(attempt=2), finished_at=NOW + 50_000)

    first, second = sentences(events, "attempt")
    assert first == "Attempt 1 asked gpt-4o-mini and failed after 3.0 s with stream_cut. It was tried again."
    assert second == (
        "Attempt 2 asked the fallback model gpt-4o and failed after 3.0 s with provider_unavailable: OpenAI said 503. No attempt was left."
    )
    assert events[-1].sentence == "It failed 50 s after it was submitted. OpenAI said 503. Retry it."


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        ({"status": Status.FAILED, "error": error(retryable=False)}, "not_retryable"),
        ({"status": Status.FAILED, "error": error(), "tries": 3}, "no_attempt_left"),
        ({"status": Status.FAILED, "error": error(), "tries": 1}, "too_late"),
        ({"status": Status.RETRYING, "error": error(), "tries": 1}, "retry"),
        ({"status": Status.HELD, "error": error(), "reason": "rate_limited"}, "wait"),
        ({"status": Status.CANCELLED, "error": None}, None),
        ({"status": Status.PROCESSING, "attempt": 2}, "tried_again"),
    ],
)
def test_what_was_decided_after_an_attempt(fields: dict[str, Any], decision: str | None) -> None:
    events = story([row(error_code="provider_unavailable")], **{"attempt": 1, **fields})

    assert [event.facts["decision"] for event in events if event.what == "attempt"] == [decision]


def test_a_worker_that_died_a_cached_answer_and_an_answer_by_rules_are_told() -> None:
    lost, rules = (
        story([row(finish_reason=WORKER_LOST)], attempt=2),
        story([row(fallback=True, status="completed", model="local")], attempt=1),
    )

    assert "its worker died" in sentences(lost, "attempt")[0]
    assert "no OpenAI key was stored" in sentences(rules, "attempt")[0]


def test_events_are_in_the_order_of_time() -> None:
    waits = (Wait(reason="rate_limited", cause="rate:m", since=NOW + 15_000, until=NOW + 18_000),)
    events = story([row(1, error_code="stream_cut"), row(2)], waits=waits, attempt=2, status=Status.COMPLETED, finished_at=NOW + 30_000)

    assert [event.what for event in events] == ["submitted", "attempt", "wait", "attempt", "end"]


def test_waits_that_are_no_longer_kept_are_mentioned() -> None:
    waits = tuple(Wait(reason="rate_limited", cause="rate:m", since=NOW + n, until=NOW + n) for n in range(MAX_WAITS))

    assert len(sentences(story(waits=waits), "earlier_waits")) == 1
    assert sentences(story(waits=waits[1:]), "earlier_waits") == []


def test_who_may_not_read_content_sees_codes_and_no_words_of_the_provider_or_of_users() -> None:
    pause = JobPause(by="olga", since=NOW, reason="secret words")
    failed = story([row(error_code="provider_unavailable")], content=False, status=Status.FAILED, attempt=1, error=error())
    paused = story(content=False, status=Status.HELD, reason="paused", cause="pause:job", pause=pause)
    text = " ".join(event.sentence + str(dict(event.facts)) for event in (*failed, *paused))

    assert "provider_unavailable" in text
    assert "olga paused it until it is resumed." in text
    assert "503" not in text
    assert "secret words" not in text
    assert "secret words" in " ".join(event.sentence for event in story(status=Status.HELD, reason="paused", pause=pause))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"status": Status.QUEUED}, "queued in general:normal"),
        ({"status": Status.QUEUED, "reason": "handed_over"}, "reached its time limit"),
        ({"status": Status.PROCESSING, "attempt": 2, "attempt_model": "gpt-4o"}, "attempt 2 asks gpt-4o"),
        ({"status": Status.RETRYING, "tries": 1, "error": error()}, "1 of 3"),
        ({"status": Status.WAITING, "reason": DEPENDENCIES}, "depends on"),
        ({"status": Status.EXPIRED, "finished_at": NOW + 5}, "had not started by"),
        ({"status": Status.INCOMPLETE, "incomplete_reason": "max_tokens", "length": 5}, "Raise `config.max_tokens`"),
        ({"status": Status.CANCELLED}, "was cancelled"),
        ({"status": Status.COMPLETED, "finished_at": NOW + 65_000}, "was completed 1 min 5 s after"),
    ],
)
def test_the_last_event_says_how_it_stands(fields: dict[str, Any], part: str) -> None:
    assert part in story(**fields)[-1].sentence


@pytest.mark.parametrize("reason", list(HoldReason))
def test_every_reason_has_words(reason: HoldReason) -> None:
    """A reason without words would show as its code."""
    assert reason.value not in waited_for(reason.value, None, None)


@pytest.mark.parametrize(
    ("cause", "reason", "text"),
    [
        ("rate:m", "rate_limited", "the rate limit of m"),
        ("circuit:m", "circuit_open", "m, which OpenAI did not answer for: its circuit is open"),
        ("type:export", "type_rate", "the starts of the job type export"),
        ("type:export", "type_concurrency", "a running job to end of the job type export"),
        ("slots:t:acme", "tenant_concurrency", "another job of its tenant to end"),
        ("pause:job", "paused", "the end of its own pause"),
        ("pause:type:export", "paused", "the end of a pause of type:export"),
        ("code:new", "type_unknown", "a worker that knows the job type new"),
        ("moon:full", "moonlight", "the reason moonlight"),
    ],
)
def test_what_a_cause_is_called(cause: str, reason: str, text: str) -> None:
    assert waited_for(reason, cause, None) == text


def test_durations_are_short() -> None:
    assert [duration_text(ms) for ms in (-5, 400, 9_990, 61_000, 7_800_000)] == ["0.0 s", "0.4 s", "10 s", "1 min 1 s", "2 h 10 min"]
