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
    MAX_FAILURES_PER_TENANT,
    MAX_TENANT_CIRCUITS,
    PROBE_TIMEOUT_MS,
    TRIP_RESET_MS,
    YIELD_MS,
    CircuitBreaker,
    CircuitState,
    Origin,
    Permission,
    ProviderSignal,
    check_permission,
    classify_error,
    cool_down,
    force_close,
    force_open,
    origin_of,
    record_failure,
    record_success,
    release_probe,
    retry_at,
    start_probe,
    tenant_mark,
)
from tests.kit.jobs import NOW


def attempt(mark: str, tenant: str = "acme", job: str | None = None) -> Origin:
    """An attempt of a job of its own, unless `job` is given."""
    return origin_of(mark, tenant, job or mark)


CLOSED = CircuitBreaker(model="m")
OPEN = record_failure(CLOSED, "provider_quota_exhausted", NOW - 500, attempt("first"), NOW)
DUE = NOW + COOL_DOWN_MS
PROBED = start_probe(OPEN, attempt("p"), DUE)
assert PROBED is not None


def after(*failures: tuple[str, int], tenants: int = 2) -> CircuitBreaker:
    """A healthy circuit after these failures of different jobs, each at its time, of tenants in turn."""
    circuit = CLOSED
    for number, (code, at) in enumerate(failures):
        circuit = record_failure(circuit, code, at, attempt(f"a{number}", f"tenant-{number % tenants}"), at)
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
    assert check_permission(circuit, attempt("q", "other"), at) is permission


def test_half_open_circuit_allows_one_probe() -> None:
    """A repeated request by the same holder returns the same probe."""
    assert PROBED is not None
    assert (PROBED.state, PROBED.until) == (CircuitState.HALF_OPEN, DUE + PROBE_TIMEOUT_MS)
    assert start_probe(PROBED, attempt("p"), DUE + 1) is PROBED
    assert check_permission(PROBED, attempt("p"), DUE + 1) is Permission.PROBE
    assert start_probe(PROBED, attempt("q"), DUE + 1) is None
    assert start_probe(OPEN, attempt("q"), DUE - 1) is None
    assert start_probe(CLOSED, attempt("q"), NOW) is None


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
    again = record_failure(PROBED, "stream_cut", DUE, attempt("p"), DUE + 5)

    assert (again.state, again.trips, again.until) == (CircuitState.OPEN, 2, DUE + 5 + 2 * COOL_DOWN_MS)
    assert record_failure(PROBED, "stream_cut", DUE, attempt("x"), DUE + 5) is PROBED
    assert record_failure(OPEN, "stream_cut", NOW + 1, attempt("x"), NOW + 5) is OPEN


def test_inconclusive_probe_frees_the_probe_slot() -> None:
    assert PROBED is not None
    again = release_probe(PROBED, "p", DUE + 7)

    assert (again.state, check_permission(again, attempt("q", "other"), DUE + 7), again.trips) == (CircuitState.OPEN, Permission.PROBE, 1)
    assert release_probe(PROBED, "x", DUE + 7) is PROBED


def test_failure_of_an_attempt_started_before_closing_is_ignored() -> None:
    """An attempt from before the recovery says nothing about the provider now."""
    assert PROBED is not None
    closed = record_success(PROBED, DUE, "p", DUE + 900)

    assert record_failure(closed, "provider_quota_exhausted", DUE - 1, attempt("x"), DUE + 1_000) is closed
    assert record_failure(closed, "provider_quota_exhausted", DUE + 950, attempt("x"), DUE + 1_000).state is CircuitState.OPEN


def test_cool_downs_double_up_to_a_limit_and_reset_after_a_quiet_period() -> None:
    """The limit is five minutes; ten quiet minutes reset the trip count."""
    assert [cool_down(trips) for trips in (1, 2, 3, 4, 5, 50)] == [30_000, 60_000, 120_000, 240_000, 300_000, MAX_COOL_DOWN_MS]
    closed = replace(CLOSED, trips=4, closed_at=NOW, version=9)

    soon = record_failure(closed, "authentication_failed", NOW + 1, attempt("x"), NOW + TRIP_RESET_MS - 1)
    late = record_failure(closed, "authentication_failed", NOW + 1, attempt("x"), NOW + TRIP_RESET_MS)

    assert (soon.trips, late.trips) == (5, 1)


def test_forced_open_circuit_closes_only_by_force_close() -> None:
    """No success, failure or probe changes a circuit that an operator opened."""
    forced = force_open(CLOSED, "ann", "maintenance", "x", NOW)

    assert forced.is_forced
    assert record_success(forced, NOW + 9, "y", NOW + 99) is forced
    assert record_failure(forced, "stream_cut", NOW + 9, attempt("y"), NOW + 99) is forced
    assert start_probe(forced, attempt("y"), NOW + 10**9) is None
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
    assert retry_at(circuit, tenant_mark("other"), at) == again


def test_every_transition_increments_the_version() -> None:
    """The store compares versions to detect a concurrent change."""
    assert PROBED is not None
    assert (OPEN.version, PROBED.version, record_success(PROBED, DUE, "p", DUE).version) == (1, 2, 3)
    assert force_close(force_open(CLOSED, "a", None, "x", NOW), "a", "x", NOW).version == 2


def failing(circuit: CircuitBreaker, *attempts: Origin, code: str = "provider_unavailable", at: int = NOW) -> CircuitBreaker:
    for one in attempts:
        circuit = record_failure(circuit, code, at - 1, one, at)
    return circuit


def jobs(count: int, tenant: str, first: int = 0) -> list[Origin]:
    return [attempt(f"{tenant}-{number}", tenant) for number in range(first, first + count)]


def test_retries_of_one_job_count_as_one_failure() -> None:
    """A repeated failure of a counted job changes nothing, so it costs no write."""
    once = failing(CLOSED, attempt("a1", job="job"))

    again = failing(once, *[attempt(f"a{number}", job="job") for number in range(2, 50)])

    assert again is once
    assert (again.state, again.failures) == (CircuitState.CLOSED, 1)


def test_failures_of_one_tenant_open_only_its_own_circuit() -> None:
    circuit = failing(CLOSED, *jobs(50, "flood"))

    own = circuit.own_of(tenant_mark("flood"))
    assert own is not None
    assert (circuit.state, own.state, own.until, own.reason) == (
        CircuitState.CLOSED,
        CircuitState.OPEN,
        NOW + COOL_DOWN_MS,
        "provider_unavailable",
    )
    assert check_permission(circuit, attempt("x", "flood"), NOW) is Permission.DENIED
    assert check_permission(circuit, attempt("x", "quiet"), NOW) is Permission.ALLOWED
    assert retry_at(circuit, tenant_mark("flood"), NOW) == own.until
    assert circuit.version == FAILURE_THRESHOLD


@pytest.mark.parametrize(
    ("others", "state"),
    [
        ([], CircuitState.CLOSED),
        (jobs(FAILURE_THRESHOLD - MAX_FAILURES_PER_TENANT - 1, "b"), CircuitState.CLOSED),
        (jobs(FAILURE_THRESHOLD - MAX_FAILURES_PER_TENANT, "b"), CircuitState.OPEN),
        ([*jobs(1, "b"), *jobs(1, "c")], CircuitState.OPEN),
        ([attempt(f"b{number}", "b", job="one") for number in range(9)], CircuitState.CLOSED),  # one job of another tenant
    ],
)
def test_the_circuit_of_all_opens_when_jobs_of_other_tenants_fail_too(others: list[Origin], state: CircuitState) -> None:
    assert failing(CLOSED, *jobs(50, "flood"), *others).state is state


def test_a_success_of_any_tenant_closes_the_circuits_of_single_tenants() -> None:
    """The provider answers. An attempt that started before they opened says nothing."""
    circuit = failing(CLOSED, *jobs(9, "flood"))

    assert record_success(circuit, NOW + 1, "x", NOW + 2).is_healthy
    assert record_success(circuit, NOW - 1, "x", NOW + 2).own == circuit.own


def test_a_tenant_probes_its_own_circuit_and_a_failure_doubles_its_cool_down() -> None:
    flood = tenant_mark("flood")
    circuit = failing(CLOSED, *jobs(9, "flood"))
    probe = attempt("p", "flood")
    probing = start_probe(circuit, probe, DUE)
    assert probing is not None
    assert probing.is_probe("p")
    assert check_permission(probing, attempt("q", "flood"), DUE) is Permission.DENIED
    assert check_permission(probing, attempt("q", "quiet"), DUE) is Permission.ALLOWED

    failed = record_failure(probing, "stream_cut", DUE, probe, DUE + 9)

    own = failed.own_of(flood)
    assert own is not None
    assert (failed.state, own.state, own.until) == (CircuitState.CLOSED, CircuitState.OPEN, DUE + 9 + 2 * COOL_DOWN_MS)
    assert failed.version == probing.version + 1
    assert record_success(probing, DUE, "p", DUE + 9).is_healthy
    released = release_probe(probing, "p", DUE + 5)
    assert check_permission(released, attempt("q", "flood"), DUE + 5) is Permission.PROBE


def test_the_tenant_that_probed_last_lets_others_probe_first() -> None:
    """Otherwise one tenant's failing or endless probes would keep the circuit open for all."""
    assert PROBED is not None
    for circuit, until in (
        (record_failure(PROBED, "stream_cut", DUE, attempt("p"), DUE), DUE + 2 * COOL_DOWN_MS),
        (PROBED, DUE + PROBE_TIMEOUT_MS),  # it never answered
        (release_probe(PROBED, "p", DUE), DUE),
    ):
        assert check_permission(circuit, attempt("q", "acme"), until) is Permission.DENIED
        assert check_permission(circuit, attempt("q", "other"), until) is Permission.PROBE
        assert check_permission(circuit, attempt("q", "acme"), until + YIELD_MS) is Permission.PROBE


def test_a_tenant_with_an_open_circuit_of_its_own_does_not_probe_for_all() -> None:
    circuit = failing(failing(CLOSED, *jobs(9, "flood")), *jobs(2, "b"), at=NOW + 25_000)
    assert circuit.state is CircuitState.OPEN
    reopened = replace(circuit, own=(replace(circuit.own[0], until=NOW + 10**6),))

    assert check_permission(reopened, attempt("q", "flood"), NOW + 60_000) is Permission.DENIED
    assert check_permission(reopened, attempt("q", "b"), NOW + 60_000) is Permission.PROBE


def test_the_number_of_circuits_of_single_tenants_is_bounded() -> None:
    """Many tenants fail alone, each long after the one before, so that the circuit of all stays closed."""
    circuit, at = CLOSED, NOW
    for number in range(MAX_TENANT_CIRCUITS + 5):
        at += FAILURE_WINDOW_MS + 1
        circuit = failing(circuit, *jobs(FAILURE_THRESHOLD, f"t{number}"), at=at)

    assert circuit.state is CircuitState.CLOSED
    assert [own.tenant for own in circuit.own] == [tenant_mark(f"t{number}") for number in range(5, MAX_TENANT_CIRCUITS + 5)]


def test_an_account_error_of_one_job_opens_the_circuit_even_if_the_job_was_counted() -> None:
    circuit = failing(CLOSED, attempt("a", job="job"))

    assert failing(circuit, attempt("b", job="job"), code="provider_quota_exhausted").state is CircuitState.OPEN


def test_a_flex_request_that_times_out_is_inconclusive() -> None:
    assert classify_error("provider_timeout", flex=True) is ProviderSignal.INCONCLUSIVE
    assert classify_error("provider_rate_limited", flex=True) is ProviderSignal.INCONCLUSIVE
    assert classify_error("provider_unavailable", flex=True) is ProviderSignal.FAILURE
    assert classify_error(None, flex=True) is ProviderSignal.SUCCESS
