"""The circuit breaker of a model: stop sending requests to the provider while they keep failing.

While it is closed, jobs run. Consecutive failures, or a single exhausted quota or refused key, open
it, and jobs wait. After the cool-down one attempt may probe: its first text closes the circuit, its
failure opens it again for longer.

All functions are pure. A store writes the new value only if the version that it was computed from
is still current. An attempt is identified by its mark, `<job id>#<generation>`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.units import Ms

FAILURE_THRESHOLD = 5  # consecutive failures that open the circuit
# The longest pause between two consecutive failures; after it counting starts again.
FAILURE_WINDOW_MS = 60_000
COOL_DOWN_MS, MAX_COOL_DOWN_MS = 30_000, 300_000  # doubles with each trip
TRIP_RESET_MS = 600_000  # after being closed for so long, earlier trips no longer count
# A probe without a result is abandoned then, and another attempt may probe.
PROBE_TIMEOUT_MS = 60_000
# When a waiting job checks again during a probe, whose first text may arrive at any moment.
RECHECK_MS = 10_000
FORCED_RECHECK_MS = 300_000  # when it checks again if an operator keeps the circuit open


class CircuitState(StrEnum):
    """Which attempts the circuit allows."""

    CLOSED = "closed"  # all
    OPEN = "open"  # none
    HALF_OPEN = "half_open"  # one probe, which is running


class ProviderSignal(StrEnum):
    """What the end of an attempt says about the provider."""

    SUCCESS = "success"  # it answered completely, even if the answer is unusable
    FAILURE = "failure"  # several of these in a row open the circuit
    ACCOUNT_BLOCKED = "account_blocked"  # one of these opens it: every other request would fail too
    INCONCLUSIVE = "inconclusive"  # the cause was Headrace or this request alone


_SIGNALS = {
    "content_refused": ProviderSignal.SUCCESS,
    "output_invalid": ProviderSignal.SUCCESS,
    "provider_unavailable": ProviderSignal.FAILURE,
    "provider_timeout": ProviderSignal.FAILURE,
    "provider_connection_lost": ProviderSignal.FAILURE,
    "stream_cut": ProviderSignal.FAILURE,
    "stream_malformed": ProviderSignal.FAILURE,
    "provider_quota_exhausted": ProviderSignal.ACCOUNT_BLOCKED,
    "authentication_failed": ProviderSignal.ACCOUNT_BLOCKED,
}


def classify_error(error_code: str | None) -> ProviderSignal:
    """Return the signal of an attempt by its error code, which is None after a success."""
    return ProviderSignal.SUCCESS if error_code is None else _SIGNALS.get(error_code, ProviderSignal.INCONCLUSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """The stored state of one model's circuit."""

    model: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0  # consecutive
    last_failure_at: Ms | None = None
    opened_at: Ms | None = None
    closed_at: Ms | None = None
    # Open: end of the cool-down; half-open: when the probe times out; None: forced open.
    until: Ms | None = None
    reason: str | None = None  # the error code of the last failure, or the operator's reason
    trips: int = 0  # consecutive openings; starts again after `TRIP_RESET_MS` closed
    version: int = 0  # 0: never written
    # The attempt that wrote it last; of a half-open one its probe. Tells a retried write from
    # another's.
    mark: str = ""
    by: str | None = None  # the operator who forced the state; None: changed automatically

    @property
    def is_forced(self) -> bool:
        """Whether it stays open until an operator closes it."""
        return self.state is CircuitState.OPEN and self.until is None

    @property
    def is_healthy(self) -> bool:
        """Whether it is closed without recent failures, so that a success changes nothing."""
        return self.state is CircuitState.CLOSED and self.failures == 0

    def is_probe(self, mark: str) -> bool:
        """Whether this attempt is the probe."""
        return self.state is CircuitState.HALF_OPEN and self.mark == mark


class Permission(StrEnum):
    """The answer of the circuit to an attempt."""

    ALLOWED = "allowed"
    PROBE = "probe"  # it may try to become the probe
    DENIED = "denied"


def check_permission(circuit: CircuitBreaker, mark: str, now: Ms) -> Permission:
    """Return whether this attempt may start."""
    if circuit.state is CircuitState.CLOSED:
        return Permission.ALLOWED
    if circuit.is_probe(mark):
        return Permission.PROBE
    return Permission.PROBE if circuit.until is not None and now >= circuit.until else Permission.DENIED


def retry_at(circuit: CircuitBreaker, now: Ms) -> Ms:
    """Return when a denied job should check again."""
    if circuit.state is CircuitState.HALF_OPEN:
        return min(circuit.until or now, now + RECHECK_MS)
    return now + FORCED_RECHECK_MS if circuit.until is None else max(now, circuit.until)


def start_probe(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker | None:
    """Make this attempt the probe.

    Returns None if the cool-down has not ended or another attempt is the probe.
    """
    if circuit.is_probe(mark):
        return circuit
    if check_permission(circuit, mark, now) is not Permission.PROBE:
        return None
    return _next(circuit, mark, state=CircuitState.HALF_OPEN, until=now + PROBE_TIMEOUT_MS)


def record_failure(circuit: CircuitBreaker, error_code: str, began_at: Ms, mark: str, now: Ms) -> CircuitBreaker:
    """Record the error of an attempt that started at `began_at`.

    Returns the same object if nothing changes. An open circuit ignores all failures, because those
    attempts started before it opened. A half-open one counts only its probe. A closed one ignores
    attempts that started before it was closed.
    """
    signal = classify_error(error_code)
    if signal not in (ProviderSignal.FAILURE, ProviderSignal.ACCOUNT_BLOCKED) or circuit.state is CircuitState.OPEN:
        return circuit
    if circuit.state is CircuitState.HALF_OPEN:
        return _open(circuit, error_code, mark, now, circuit.failures + 1) if circuit.is_probe(mark) else circuit
    if circuit.closed_at is not None and began_at < circuit.closed_at and circuit.mark != mark:
        return circuit
    recent = circuit.last_failure_at is not None and now - circuit.last_failure_at <= FAILURE_WINDOW_MS
    failures = circuit.failures + 1 if recent else 1
    if signal is ProviderSignal.ACCOUNT_BLOCKED or failures >= FAILURE_THRESHOLD:
        return _open(circuit, error_code, mark, now, failures)
    return _next(circuit, mark, failures=failures, last_failure_at=now, reason=error_code)


def record_success(circuit: CircuitBreaker, began_at: Ms, mark: str, now: Ms) -> CircuitBreaker:
    """Record that the provider answered an attempt that started at `began_at`.

    Returns the same object if nothing changes. A success resets the failures of a closed circuit.
    An open or half-open one is closed only by its probe or by an attempt that started after it
    opened.
    """
    if circuit.is_healthy or circuit.is_forced:
        return circuit
    if circuit.state is CircuitState.CLOSED:
        return _next(circuit, mark, failures=0, reason=None)
    if circuit.mark != mark and began_at <= (circuit.opened_at or 0):
        return circuit
    return _close(circuit, mark, now)


def release_probe(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker:
    """End a probe without a conclusion, so that another attempt may probe at once."""
    return _next(circuit, mark, state=CircuitState.OPEN, until=now) if circuit.is_probe(mark) else circuit


def force_open(circuit: CircuitBreaker, by: str, reason: str | None, mark: str, now: Ms) -> CircuitBreaker:
    """Open the circuit on an operator's request, until an operator closes it."""
    return _next(circuit, mark, state=CircuitState.OPEN, opened_at=now, until=None, reason=reason or "forced", by=by)


def force_close(circuit: CircuitBreaker, by: str, mark: str, now: Ms) -> CircuitBreaker:
    """Close the circuit on an operator's request and reset its trips."""
    return replace(_close(circuit, mark, now), trips=0, by=by)


def _open(circuit: CircuitBreaker, reason: str, mark: str, now: Ms, failures: int) -> CircuitBreaker:
    was_stable = circuit.state is CircuitState.CLOSED and (circuit.closed_at is None or now - circuit.closed_at >= TRIP_RESET_MS)
    trips = 1 if was_stable else circuit.trips + 1
    return _next(
        circuit,
        mark,
        state=CircuitState.OPEN,
        failures=failures,
        last_failure_at=now,
        opened_at=now,
        until=now + cool_down(trips),
        reason=reason,
        trips=trips,
        by=None,
    )


def cool_down(trips: int) -> Ms:
    """Return how long the circuit stays open after this number of trips."""
    return int(min(MAX_COOL_DOWN_MS, COOL_DOWN_MS * 2 ** min(trips - 1, 10)))


def _close(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker:
    return _next(circuit, mark, state=CircuitState.CLOSED, failures=0, closed_at=now, opened_at=None, until=None, reason=None, by=None)


def _next(circuit: CircuitBreaker, mark: str, **changes: Any) -> CircuitBreaker:
    return replace(circuit, version=circuit.version + 1, mark=mark, **changes)
