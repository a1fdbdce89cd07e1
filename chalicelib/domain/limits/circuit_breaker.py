"""The circuit of a model: whether it is worth asking the provider for it, learnt from how attempts ended.

Closed, jobs run. A run of failures, or at once an exhausted quota or a refused key, opens it: jobs wait. After its cool-down one attempt
may probe; its first text closes the circuit, its failure opens it again for longer. All functions are pure: None of them decides by what
another process may have seen, because each new circuit is swapped in for the very version that it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.units import Ms

FAILURE_THRESHOLD = 5  # in a row
FAILURE_WINDOW_MS = 60_000  # between two of them; after a longer pause counting begins anew
COOL_DOWN_MS, MAX_COOL_DOWN_MS = 30_000, 300_000  # doubling with each trip
TRIP_RESET_MS = 600_000  # closed for so long, its former trips count no more
PROBE_TIMEOUT_MS = 60_000  # a probe of which nothing was heard is over then, and another attempt may be one
RECHECK_MS = 10_000  # how soon a job looks again while a probe is on: its first text may come any moment
FORCED_LOOK_MS = 300_000  # how soon a job looks again at a circuit that only a person will close


class CircuitState(StrEnum):
    """What the circuit lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing
    HALF_OPEN = "half_open"  # one probe, which is on its way


class ProviderSignal(StrEnum):
    """What the end of an attempt says of the provider."""

    SUCCESS = "answers"  # it answered in full, whatever the answer is worth
    FAILURE = "fails"  # several of these in a row open the circuit
    ACCOUNT_BLOCKED = "refuses_all"  # one of these is enough: every other request would meet it too
    INCONCLUSIVE = "silent"  # nothing: our own doing, or this request's alone


_SIGNS = {
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
    """What an attempt's error says; None: it ended without one."""
    return ProviderSignal.SUCCESS if error_code is None else _SIGNS.get(error_code, ProviderSignal.INCONCLUSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """`until`: when an open one lets a probe through, or when a probe is over; None while a person keeps it open.

    `mark` is the attempt that wrote it last, of a half-open one its probe: so that nobody takes another's write for their own.
    `by` is the person who forced it, None for what came by itself. `version` 0 has never been written.
    """

    model: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    last_failure_at: Ms | None = None
    opened_at: Ms | None = None
    closed_at: Ms | None = None
    until: Ms | None = None
    reason: str | None = None
    trips: int = 0
    version: int = 0
    mark: str = ""
    by: str | None = None

    @property
    def is_forced(self) -> bool:
        """Whether it stays open until a person closes it."""
        return self.state is CircuitState.OPEN and self.until is None

    @property
    def is_healthy(self) -> bool:
        """Whether an answer has nothing to change here."""
        return self.state is CircuitState.CLOSED and self.failures == 0

    def is_probe(self, mark: str) -> bool:
        """Whether the attempt of this mark is the probe."""
        return self.state is CircuitState.HALF_OPEN and self.mark == mark


class Permission(StrEnum):
    """What an attempt that asks is told."""

    ALLOWED = "free"
    PROBE = "probe"  # it may try to be the probe
    DENIED = "shut"


def check_permission(circuit: CircuitBreaker, mark: str, now: Ms) -> Permission:
    """Whether the attempt of this mark may begin."""
    if circuit.state is CircuitState.CLOSED:
        return Permission.ALLOWED
    if circuit.is_probe(mark):
        return Permission.PROBE
    return Permission.PROBE if circuit.until is not None and now >= circuit.until else Permission.DENIED


def retry_at(circuit: CircuitBreaker, now: Ms) -> Ms:
    """When whoever found it shut should look again."""
    if circuit.state is CircuitState.HALF_OPEN:
        return min(circuit.until or now, now + RECHECK_MS)
    return now + FORCED_LOOK_MS if circuit.until is None else max(now, circuit.until)


def start_probe(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker | None:
    """Be the one probe. None: it is not time, or another one is it."""
    if circuit.is_probe(mark):
        return circuit
    if check_permission(circuit, mark, now) is not Permission.PROBE:
        return None
    return _next(circuit, mark, state=CircuitState.HALF_OPEN, until=now + PROBE_TIMEOUT_MS)


def record_failure(circuit: CircuitBreaker, error_code: str, began_at: Ms, mark: str, now: Ms) -> CircuitBreaker:
    """An attempt that began at `began_at` ended with this error. The same circuit, if that says nothing new.

    An open one learns nothing from attempts that were under way when it opened; a half-open one only from its probe; and one that was
    closed meanwhile nothing from those that began before.
    """
    sign = classify_error(error_code)
    if sign not in (ProviderSignal.FAILURE, ProviderSignal.ACCOUNT_BLOCKED) or circuit.state is CircuitState.OPEN:
        return circuit
    if circuit.state is CircuitState.HALF_OPEN:
        return _open(circuit, error_code, mark, now, circuit.failures + 1) if circuit.is_probe(mark) else circuit
    if circuit.closed_at is not None and began_at < circuit.closed_at and circuit.mark != mark:
        return circuit
    recent = circuit.last_failure_at is not None and now - circuit.last_failure_at <= FAILURE_WINDOW_MS
    failures = circuit.failures + 1 if recent else 1
    if sign is ProviderSignal.ACCOUNT_BLOCKED or failures >= FAILURE_THRESHOLD:
        return _open(circuit, error_code, mark, now, failures)
    return _next(circuit, mark, failures=failures, last_failure_at=now, reason=error_code)


def record_success(circuit: CircuitBreaker, began_at: Ms, mark: str, now: Ms) -> CircuitBreaker:
    """An attempt has proved that the provider answers: whoever began after the circuit opened closes it; else a run of failures is over."""
    if circuit.is_healthy or circuit.is_forced:
        return circuit
    if circuit.state is CircuitState.CLOSED:
        return _next(circuit, mark, failures=0, reason=None)
    if circuit.mark != mark and began_at <= (circuit.opened_at or 0):
        return circuit
    return _close(circuit, mark, now)


def release_probe(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker:
    """The probe ended without a word on the provider: another one may be it at once."""
    return _next(circuit, mark, state=CircuitState.OPEN, until=now) if circuit.is_probe(mark) else circuit


def force_open(circuit: CircuitBreaker, by: str, reason: str | None, mark: str, now: Ms) -> CircuitBreaker:
    """A person opens it, and it stays open until a person closes it."""
    return _next(circuit, mark, state=CircuitState.OPEN, opened_at=now, until=None, reason=reason or "forced", by=by)


def force_close(circuit: CircuitBreaker, by: str, mark: str, now: Ms) -> CircuitBreaker:
    """A person closes it; what happened before is forgotten."""
    return replace(_close(circuit, mark, now), trips=0, by=by)


def _open(circuit: CircuitBreaker, reason: str, mark: str, now: Ms, failures: int) -> CircuitBreaker:
    quiet = circuit.state is CircuitState.CLOSED and (circuit.closed_at is None or now - circuit.closed_at >= TRIP_RESET_MS)
    trips = 1 if quiet else circuit.trips + 1
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
    """How long it stays open after so many trips."""
    return int(min(MAX_COOL_DOWN_MS, COOL_DOWN_MS * 2 ** min(trips - 1, 10)))


def _close(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker:
    return _next(circuit, mark, state=CircuitState.CLOSED, failures=0, closed_at=now, opened_at=None, until=None, reason=None, by=None)


def _next(circuit: CircuitBreaker, mark: str, **changes: Any) -> CircuitBreaker:
    return replace(circuit, version=circuit.version + 1, mark=mark, **changes)
