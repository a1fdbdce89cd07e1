"""The rules by which a model is paused after a rate limit."""

from __future__ import annotations

import pytest

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, force_close, origin_of
from chalicelib.domain.limits.model_pause import end_pauses, is_paused, pause_model, spread, wait_alone
from chalicelib.domain.units import DAY_MS

NOW = 1_790_000_000_000
HEALTHY = CircuitBreaker(model="m")
ONE, TWO = origin_of("one", "acme", "job_1"), origin_of("two", "acme", "job_2")
HOUR = 3_600


def paused(asked: int | None = 3, at: int = NOW) -> CircuitBreaker:
    return pause_model(HEALTHY, asked, at - 5, ONE, 0.5, at)


@pytest.mark.parametrize(("asked", "seconds"), [(3, 3), (HOUR, HOUR), (96 * HOUR, 96 * HOUR), (366 * 24 * HOUR, 7 * 24 * HOUR)])
def test_a_pause_is_as_long_as_asked_but_not_longer_than_a_job_may_wait(asked: int, seconds: int) -> None:
    circuit = paused(asked)

    assert circuit.paused_until == NOW + seconds * 1000
    assert (is_paused(circuit, NOW + seconds * 1000 - 1), is_paused(circuit, NOW + seconds * 1000)) == (True, False)


def test_a_pause_changes_nothing_of_the_circuit_but_itself() -> None:
    circuit = paused()

    assert (circuit.state, circuit.failures, circuit.version, circuit.is_healthy) == (CircuitState.CLOSED, 0, 1, False)


def test_requests_that_were_on_their_way_do_not_prolong_a_pause_by_their_number() -> None:
    circuit = paused(3)

    assert pause_model(circuit, 3, NOW - 1, TWO, 0.5, NOW + 900) is circuit
    assert pause_model(circuit, None, NOW - 1, TWO, 0.5, NOW + 900) is circuit


def test_a_longer_wait_that_comes_during_a_pause_is_obeyed() -> None:
    assert pause_model(paused(3), HOUR, NOW - 1, TWO, 0.5, NOW + 100).paused_until == NOW + 100 + HOUR * 1000


def test_pauses_grow_by_at_most_fifteen_seconds_while_nobody_is_answered() -> None:
    circuit, waits, now = HEALTHY, [], NOW
    for number in range(8):
        circuit = pause_model(circuit, 3, now, origin_of("x", "acme", f"job_{number}"), 0.5, now)
        waits.append((circuit.paused_until or 0) - now)
        now = circuit.paused_until or 0

    assert waits == [3_000, 4_500, 6_750, 10_125, 15_188, 18_000, 18_000, 18_000]


def test_a_pause_nobody_asked_for_doubles_with_jitter() -> None:
    circuit, waits, now = HEALTHY, [], NOW
    for number in range(7):
        circuit = pause_model(circuit, None, now, origin_of("x", "acme", f"job_{number}"), 0.0, now)
        waits.append((circuit.paused_until or 0) - now)
        now = circuit.paused_until or 0

    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
    assert (pause_model(HEALTHY, None, NOW, ONE, 0.999, NOW).paused_until or 0) - NOW in range(1_990, 2_001)


def test_an_answer_after_the_pause_sets_the_growth_back() -> None:
    circuit = paused(3)
    assert end_pauses(circuit, NOW + 2_999, "m") is circuit  # it was asked before the pause

    answered = end_pauses(circuit, NOW + 3_000, "m")

    assert (answered.pauses, answered.is_healthy, answered.version) == (0, True, circuit.version + 1)
    assert pause_model(answered, 3, NOW + 4_000, TWO, 0.5, NOW + 5_000).paused_until == NOW + 8_000


def test_a_job_that_is_refused_again_after_others_were_answered_pauses_nobody_else() -> None:
    answered = end_pauses(paused(3), NOW + 3_000, "m")

    assert pause_model(answered, HOUR, NOW + 4_000, ONE, 0.5, NOW + 5_000) is answered
    assert pause_model(answered, 3, NOW + 4_000, TWO, 0.5, NOW + 5_000) is not answered


def test_an_operator_who_closes_the_circuit_ends_the_pause() -> None:
    assert not is_paused(force_close(paused(HOUR), "ann", "m", NOW + 1), NOW + 2)


@pytest.mark.parametrize(("wait", "longest"), [(0, 1_000), (500, 1_000), (3_000, 3_000), (DAY_MS, 10_000)])
def test_jobs_are_spread_over_as_long_as_they_have_waited(wait: int, longest: int) -> None:
    assert (spread(wait, 0.0), spread(wait, 1.0)) == (0, longest)


def test_a_job_that_waits_alone_waits_longer_each_time() -> None:
    assert [wait_alone(None, refusals, 0.0) for refusals in (1, 2, 3, 20)] == [1_000, 2_000, 4_000, 150_000]
    assert wait_alone(HOUR, 9, 0.9) == HOUR * 1000
