"""The circuit breaker: when it opens, what it permits, who may probe, and what closes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.limits.circuit_breaker import (
    COOL_DOWN_MS,
    FAILURE_THRESHOLD,
    FAILURE_WINDOW_MS,
    FORCED_RECHECK_MS,
    MAX_COOL_DOWN_MS,
    PROBE_TIMEOUT_MS,
    TRIP_RESET_MS,
    CircuitBreaker,
    CircuitState,
    Permission,
    ProviderSignal,
    check_permission,
    classify_error,
    cool_down,
    force_close,
    force_open,
    record_failure,
    record_success,
    release_probe,
    retry_at,
    start_probe,
)
from tests.kit.jobs import NOW

CLOSED = CircuitBreaker(model="m")
OPEN = record_failure(CLOSED, "provider_quota_exhausted", NOW - 500, "first", NOW)
DUE = NOW + COOL_DOWN_MS
PROBED = start_probe(OPEN, "p", DUE)
assert PROBED is not None


def after(*failures: tuple[str, int]) -> CircuitBreaker:
    """A healthy circuit after these failures, each at its time."""
    circuit = CLOSED
    for number, (code, at) in enumerate(failures):
        circuit = record_failure(circuit, code, at, f"a{number}", at)
    return circuit


@pytest.mark.parametrize(
    ("code", "signal"),
    [
        (None, ProviderSignal.SUCCESS),
        ("content_refused", ProviderSignal.SUCCESS),  # the model answered, although it refused
        ("output_invalid", ProviderSignal.SUCCESS),
        ("provider_unavailable", ProviderSignal.FAILURE),
        ("provider_timeout", ProviderSignal.FAILURE),
        ("provider_connection_lost", ProviderSignal.FAILURE),
        ("stream_cut", ProviderSignal.FAILURE),
        ("stream_malformed", ProviderSignal.FAILURE),
        ("provider_quota_exhausted", ProviderSignal.ACCOUNT_BLOCKED),
        ("authentication_failed", ProviderSignal.ACCOUNT_BLOCKED),
        ("provider_rate_limited", ProviderSignal.INCONCLUSIVE),
        ("request_invalid", ProviderSignal.INCONCLUSIVE),
        ("timeout", ProviderSignal.INCONCLUSIVE),  # `config.timeout` is set by the caller
        ("openai_not_configured", ProviderSignal.INCONCLUSIVE),
        ("internal_error", ProviderSignal.INCONCLUSIVE),
    ],
)
def test_classify_error_maps_error_codes_to_provider_signals(code: str | None, signal: ProviderSignal) -> None:
    assert classify_error(code) is signal


def test_inconclusive_attempt_errors_are_listed_explicitly() -> None:
    """A new error code counts as inconclusive until it is classified, and this list shows it."""
    codes = {kind.code for kind in AttemptFailed.__subclasses__()}

    assert {code for code in codes if classify_error(code) is ProviderSignal.INCONCLUSIVE} == {
        "content_gone",
        "dependency_failed",
        "openai_not_configured",
        "provider_rate_limited",
        "reattach_refused",
        "request_invalid",
        "response_lost",
        "store_unavailable",
        "timeout",
        "worker_ending",
    }


@pytest.mark.parametrize(
    ("failures", "state"),
    [
        ([("stream_cut", NOW + n) for n in range(FAILURE_THRESHOLD - 1)], CircuitState.CLOSED),
        ([("stream_cut", NOW + n) for n in range(FAILURE_THRESHOLD)], CircuitState.OPEN),
        ([("provider_timeout", NOW + n * FAILURE_WINDOW_MS) for n in range(FAILURE_THRESHOLD)], CircuitState.OPEN),  # just close enough
        ([("provider_timeout", NOW + n * (FAILURE_WINDOW_MS + 1)) for n in range(FAILURE_THRESHOLD)], CircuitState.CLOSED),  # too far apart
        ([("provider_rate_limited", NOW + n) for n in range(99)], CircuitState.CLOSED),
        ([("provider_quota_exhausted", NOW)], CircuitState.OPEN),
        ([("authentication_failed", NOW)], CircuitState.OPEN),
    ],
)
def test_circuit_opens_on_a_failure_run_or_an_account_error(failures: list[tuple[str, int]], state: CircuitState) -> None:
    """An account error opens the circuit at once, because every other request would fail too."""
    circuit = after(*failures)

    assert circuit.state is state
    if state is CircuitState.OPEN:
        assert (circuit.reason, circuit.until, circuit.trips) == (failures[-1][0], failures[-1][1] + COOL_DOWN_MS, 1)


def test_success_resets_the_failure_count() -> None:
    """A healthy circuit is returned unchanged, so a success writes nothing."""
    failing = after(*[("stream_cut", NOW)] * 4)

    healthy = record_success(failing, NOW - 1, "x", NOW + 1)

    assert (failing.failures, healthy.failures, healthy.is_healthy) == (4, 0, True)
    assert record_success(healthy, NOW, "x", NOW + 2) is healthy
    assert record_success(CLOSED, NOW, "x", NOW) is CLOSED


@pytest.mark.parametrize(
    ("circuit", "at", "permission"),
    [
        (CLOSED, NOW, Permission.ALLOWED),
        (after(*[("stream_cut", NOW)] * 4), NOW, Permission.ALLOWED),
        (OPEN, DUE - 1, Permission.DENIED),
        (OPEN, DUE, Permission.PROBE),
        (PROBED, DUE + PROBE_TIMEOUT_MS - 1, Permission.DENIED),
        (PROBED, DUE + PROBE_TIMEOUT_MS, Permission.PROBE),  # a dead probe expires (protocol rule 15: everything unfinished is due)
        (force_open(CLOSED, "ann", None, "x", NOW), NOW + 10**9, Permission.DENIED),
    ],
)
def test_check_permission_by_circuit_state_and_time(circuit: CircuitBreaker, at: int, permission: Permission) -> None:
    assert check_permission(circuit, "q", at) is permission


def test_half_open_circuit_allows_one_probe() -> None:
    """A repeated request by the same holder returns the same probe."""
    assert PROBED is not None
    assert (PROBED.state, PROBED.until) == (CircuitState.HALF_OPEN, DUE + PROBE_TIMEOUT_MS)
    assert start_probe(PROBED, "p", DUE + 1) is PROBED
    assert check_permission(PROBED, "p", DUE + 1) is Permission.PROBE
    assert start_probe(PROBED, "q", DUE + 1) is None
    assert start_probe(OPEN, "q", DUE - 1) is None
    assert start_probe(CLOSED, "q", NOW) is None


def test_successful_probe_closes_the_circuit() -> None:
    """The failure count starts from zero again."""
    assert PROBED is not None
    closed = record_success(PROBED, DUE, "p", DUE + 900)

    assert (closed.state, closed.failures, closed.until, closed.reason, closed.closed_at) == (CircuitState.CLOSED, 0, None, None, DUE + 900)


@pytest.mark.parametrize(
    ("started_at", "closes"),
    [
        (NOW + 1, True),  # another process had not read the open circuit yet, and its attempt succeeds
        (NOW - 1, False),  # an attempt from before the opening says nothing about the provider now
    ],
)
def test_success_of_an_attempt_started_after_opening_closes_the_circuit(started_at: int, closes: bool) -> None:
    for circuit in (OPEN, PROBED):
        assert circuit is not None
        assert (record_success(circuit, started_at, "x", DUE + 1).state is CircuitState.CLOSED) is closes


def test_failed_probe_reopens_with_a_doubled_cool_down() -> None:
    """Failures of other attempts are ignored; they started before the probe."""
    assert PROBED is not None
    again = record_failure(PROBED, "stream_cut", DUE, "p", DUE + 5)

    assert (again.state, again.trips, again.until) == (CircuitState.OPEN, 2, DUE + 5 + 2 * COOL_DOWN_MS)
    assert record_failure(PROBED, "stream_cut", DUE, "x", DUE + 5) is PROBED
    assert record_failure(OPEN, "stream_cut", NOW + 1, "x", NOW + 5) is OPEN


def test_inconclusive_probe_frees_the_probe_slot() -> None:
    assert PROBED is not None
    again = release_probe(PROBED, "p", DUE + 7)

    assert (again.state, check_permission(again, "q", DUE + 7), again.trips) == (CircuitState.OPEN, Permission.PROBE, 1)
    assert release_probe(PROBED, "x", DUE + 7) is PROBED


def test_failure_of_an_attempt_started_before_closing_is_ignored() -> None:
    """An attempt from before the recovery says nothing about the provider now."""
    assert PROBED is not None
    closed = record_success(PROBED, DUE, "p", DUE + 900)

    assert record_failure(closed, "provider_quota_exhausted", DUE - 1, "x", DUE + 1_000) is closed
    assert record_failure(closed, "provider_quota_exhausted", DUE + 950, "x", DUE + 1_000).state is CircuitState.OPEN


def test_cool_downs_double_up_to_a_limit_and_reset_after_a_quiet_period() -> None:
    """The limit is five minutes; ten quiet minutes reset the trip count."""
    assert [cool_down(trips) for trips in (1, 2, 3, 4, 5, 50)] == [30_000, 60_000, 120_000, 240_000, 300_000, MAX_COOL_DOWN_MS]
    closed = replace(CLOSED, trips=4, closed_at=NOW, version=9)

    soon = record_failure(closed, "authentication_failed", NOW + 1, "x", NOW + TRIP_RESET_MS - 1)
    late = record_failure(closed, "authentication_failed", NOW + 1, "x", NOW + TRIP_RESET_MS)

    assert (soon.trips, late.trips) == (5, 1)


def test_forced_open_circuit_closes_only_by_force_close() -> None:
    """No success, failure or probe changes a circuit that an operator opened."""
    forced = force_open(CLOSED, "ann", "maintenance", "x", NOW)

    assert forced.is_forced
    assert record_success(forced, NOW + 9, "y", NOW + 99) is forced
    assert record_failure(forced, "stream_cut", NOW + 9, "y", NOW + 99) is forced
    assert start_probe(forced, "y", NOW + 10**9) is None
    closed = force_close(forced, "ann", "z", NOW + 100)
    assert (closed.state, closed.trips, closed.by, closed.is_healthy) == (CircuitState.CLOSED, 0, "ann", True)


@pytest.mark.parametrize(
    ("circuit", "at", "again"),
    [
        (OPEN, NOW + 5, DUE),
        (OPEN, DUE + 5, DUE + 5),
        (PROBED, DUE + 1, DUE + 10_001),  # the first token of the probe may arrive at any moment
        (PROBED, DUE + 59_000, DUE + PROBE_TIMEOUT_MS),
        (force_open(CLOSED, "ann", None, "x", NOW), NOW, NOW + FORCED_RECHECK_MS),
    ],
)
def test_retry_at_by_circuit_state(circuit: CircuitBreaker, at: int, again: int) -> None:
    assert retry_at(circuit, at) == again


def test_every_transition_increments_the_version() -> None:
    """The store compares versions to detect a concurrent change."""
    assert PROBED is not None
    assert (OPEN.version, PROBED.version, record_success(PROBED, DUE, "p", DUE).version) == (1, 2, 3)
    assert force_close(force_open(CLOSED, "a", None, "x", NOW), "a", "x", NOW).version == 2
