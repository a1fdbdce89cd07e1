"""When a job that waits probably starts, and which limit it waits for."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Status
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, force_open
from chalicelib.domain.limits.sliding_window import Frame, Limits, minute_of
from chalicelib.domain.limits.waiting import (
    LimitKind,
    limit_of_model,
    start_after_circuit,
    start_by_record,
    start_with_slot,
    start_within_rate,
)
from tests.kit.records import NOW, job

MINUTE, SECOND = minute_of(NOW)


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"status": Status.RETRYING, "resume_at": NOW + 5_000}, NOW + 5_000),
        ({"status": Status.RETRYING, "resume_at": NOW - 5_000}, NOW),
        ({"status": Status.WAITING, "reason": START_LATER, "resume_at": NOW + 5_000}, NOW + 5_000),
        ({"status": Status.WAITING, "reason": DEPENDENCIES, "resume_at": NOW + 5_000}, None),
        ({"status": Status.HELD, "reason": "rate_limited", "resume_at": NOW - 5_000}, NOW),
        ({"status": Status.HELD, "reason": "rate_limited", "cause": "rate:m", "resume_at": NOW + 5_000}, NOW + 5_000),
        ({"status": Status.HELD, "reason": "rate_limited", "cause": "rate:m", "resume_at": NOW - 5_000}, None),
        ({"status": Status.HELD, "reason": "paused", "cause": "pause:all"}, None),
        ({"status": Status.QUEUED}, None),
        ({"status": Status.PROCESSING, "resume_at": NOW + 5_000}, None),
        ({"status": Status.COMPLETED, "resume_at": NOW + 5_000}, None),
    ],
)
def test_start_by_the_record_alone(fields: dict[str, object], start: int | None) -> None:
    assert start_by_record(job(**fields), NOW) == start


@pytest.mark.parametrize(
    ("limits", "frame", "kind", "value"),
    [
        (Limits(requests=100, tokens=10_000), Frame(MINUTE), LimitKind.TOKENS, 10_000),
        (Limits(requests=100, tokens=10_000), Frame(MINUTE).added(SECOND, 90, 100), LimitKind.REQUESTS, 100),
        (Limits(requests=100), Frame(MINUTE), LimitKind.REQUESTS, 100),
        (Limits(tokens=100), Frame(MINUTE), LimitKind.TOKENS, 100),
    ],
)
def test_the_limit_of_a_model_is_the_scarcer_one(limits: Limits, frame: Frame, kind: LimitKind, value: int) -> None:
    limit = limit_of_model("m", limits, (frame,), 500, NOW)

    assert limit is not None
    assert (limit.kind, limit.value, limit.model) == (kind, value, "m")


def test_a_model_without_limits_has_none() -> None:
    assert limit_of_model("m", Limits(), (), 500, NOW) is None


def test_each_job_before_it_takes_its_part_of_the_minute() -> None:
    limits = Limits(requests=60)

    starts = [start_within_rate(limits, (), 0, ahead, tenants, NOW) for ahead, tenants in ((0, 1), (10, 1), (10, 3))]

    assert starts == [NOW, NOW + 10_000, NOW + 30_000]


def test_tokens_count_where_they_are_the_scarcer_limit() -> None:
    assert start_within_rate(Limits(requests=600, tokens=6_000), (), 500, 12, 1, NOW) == NOW + 60_000


def test_a_lowered_factor_and_pace_make_the_wait_longer() -> None:
    assert start_within_rate(Limits(requests=60, factor=0.5, pace=0.5), (), 0, 10, 1, NOW) == NOW + 40_000


def test_a_blocked_model_starts_nothing_before() -> None:
    limits = Limits(requests=60, blocked_until=NOW + 20_000)

    assert start_within_rate(limits, (), 0, 0, 1, NOW) == NOW + 20_000
    assert start_within_rate(Limits(blocked_until=NOW + 20_000), (), 0, 5, 1, NOW) == NOW + 20_000


@pytest.mark.parametrize("limits", [Limits(), Limits(blocked_until=NOW - 1), Limits(tokens=100)])
def test_a_start_that_nobody_can_know_is_none(limits: Limits) -> None:
    """No limit is known, so an attempt must tell; or the request alone is above the limit."""
    assert start_within_rate(limits, (), 500, 0, 1, NOW) is None


def test_a_full_minute_frees_before_it_starts() -> None:
    full = Frame(MINUTE).added(SECOND, 60, 0)
    start = start_within_rate(Limits(requests=60), (full,), 0, 0, 1, NOW)

    assert start is not None
    assert NOW + 59_000 <= start <= NOW + 64_000


def test_slots_are_free_as_jobs_end() -> None:
    starts = [
        start_with_slot(4, duration, ahead, tenants, NOW) for duration, ahead, tenants in ((8_000, 0, 1), (8_000, 7, 1), (8_000, 7, 2))
    ]

    assert starts == [NOW + 2_000, NOW + 16_000, NOW + 30_000]
    assert start_with_slot(4, None, 0, 1, NOW) is None


def test_a_circuit_is_asked_again_when_it_allows_it_unless_an_operator_opened_it() -> None:
    opened = CircuitBreaker(model="m", state=CircuitState.OPEN, opened_at=NOW, until=NOW + 30_000)

    assert start_after_circuit(opened, "", NOW) == NOW + 30_000
    assert start_after_circuit(None, "", NOW) == NOW
    assert start_after_circuit(force_open(CircuitBreaker(model="m"), "hal", None, "mark", NOW), "", NOW) is None
