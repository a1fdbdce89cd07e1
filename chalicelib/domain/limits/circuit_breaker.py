"""The circuit breaker of a model: stop sending requests to the provider while they keep failing.

While it is closed, jobs run. Consecutive failures, or a single exhausted quota or refused key, open
it, and jobs wait. After the cool-down one attempt may probe: its first text closes the circuit, its
failure opens it again for longer.

Jobs of several tenants share the circuit, and a prompt can make the provider fail. So a job counts
as one failure however often it is retried, and a tenant as `MAX_FAILURES_PER_TENANT`. A tenant
whose own jobs alone reach the threshold opens only its own circuit (`TenantCircuit`), which holds
only its jobs, until the provider answers anybody. The tenant that probed last lets the others probe
first.

All functions are pure. A store writes the new value only if the version that it was computed from
is still current. An attempt is identified by its mark, `<job id>#<generation>`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from chalicelib.domain.units import Ms

FAILURE_THRESHOLD = 5  # jobs that failed one after the other, which open the circuit
MAX_FAILURES_PER_TENANT = 3  # of them; so it takes two tenants
MAX_FAILED = 20  # failed jobs that are kept while it is open
MAX_TENANT_CIRCUITS = 20  # kept with a model; the one that would be open longest ago is dropped
# The longest pause between two consecutive failures; after it counting starts again.
FAILURE_WINDOW_MS = 60_000
COOL_DOWN_MS, MAX_COOL_DOWN_MS = 30_000, 300_000  # doubles with each trip
TRIP_RESET_MS = 600_000  # after being closed for so long, earlier trips no longer count
# A probe without a result is abandoned then, and another attempt may probe.
PROBE_TIMEOUT_MS = 60_000
# When a waiting job checks again during a probe, whose first text may arrive at any moment.
RECHECK_MS = 10_000
FORCED_RECHECK_MS = 300_000  # when it checks again if an operator keeps the circuit open
FORCED = "forced"  # the reason of a circuit that was forced open without one
# How long the tenant that probed last lets the jobs of others probe first. Longer than the jitter
# by which waiting jobs are spread.
YIELD_MS = 15_000


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


def classify_error(error_code: str | None, *, flex: bool = False) -> ProviderSignal:
    """Return the signal of an attempt by its error code, which is None after a success.

    Args:
        flex: the request was of the service tier `flex`, which may wait for capacity as long as it
            likes: that it was not answered in time says nothing about the other requests.
    """
    if error_code is None:
        return ProviderSignal.SUCCESS
    if flex and error_code == "provider_timeout":
        return ProviderSignal.INCONCLUSIVE
    return _SIGNALS.get(error_code, ProviderSignal.INCONCLUSIVE)


def tenant_mark(tenant: str) -> str:
    """Return what stands for a tenant in a circuit: short, and no name."""
    return sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose attempt it is: the mark of the attempt, its tenant's and its job's."""

    mark: str
    tenant: str
    job: str

    @property
    def failure(self) -> str:
        """What stands for a failure of this job."""
        return f"{self.tenant}/{self.job}"


def origin_of(mark: str, tenant: str, job_id: str) -> Origin:
    """Return the origin of an attempt of a job."""
    return Origin(mark=mark, tenant=tenant_mark(tenant), job=sha256(job_id.encode()).hexdigest()[:8])


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantCircuit:
    """The circuit of a model for one tenant alone, while it is not closed."""

    tenant: str  # its mark
    opened_at: Ms
    until: Ms  # end of the cool-down, or when the probe times out
    reason: str
    trips: int = 1
    probe: str = ""  # the mark of the probe that is running

    @property
    def state(self) -> CircuitState:
        return CircuitState.HALF_OPEN if self.probe else CircuitState.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """The stored state of one model's circuit."""

    model: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0  # jobs that failed one after the other
    failed: tuple[str, ...] = ()  # these jobs, `<mark of the tenant>/<mark of the job>`
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
    prober: str | None = None  # the mark of the tenant that probed last; None: none since it closed
    own: tuple[TenantCircuit, ...] = ()  # the circuits of single tenants that are not closed

    @property
    def is_forced(self) -> bool:
        """Whether it stays open until an operator closes it."""
        return self.state is CircuitState.OPEN and self.until is None

    @property
    def is_healthy(self) -> bool:
        """Whether it is closed without recent failures, so that a success changes nothing."""
        return self.state is CircuitState.CLOSED and self.failures == 0 and not self.own

    def is_probe(self, mark: str) -> bool:
        """Whether this attempt is the probe of the circuit, or of its tenant's own."""
        return self.is_shared_probe(mark) or any(own.probe == mark for own in self.own)

    def is_shared_probe(self, mark: str) -> bool:
        """Whether this attempt is the probe for all tenants."""
        return self.state is CircuitState.HALF_OPEN and self.mark == mark

    def own_of(self, tenant: str) -> TenantCircuit | None:
        """Return the circuit of a tenant, by its mark; None while it is closed."""
        return next((own for own in self.own if own.tenant == tenant), None)

    def failures_of(self, tenant: str) -> int:
        """Return how many of the failed jobs are of this tenant."""
        return sum(failure.startswith(f"{tenant}/") for failure in self.failed)

    def as_seen_by(self, tenant: str) -> CircuitBreaker:
        """Return the circuit as it is for the jobs of one tenant, without what others did.

        The failures are its own; its own circuit takes the place of a closed one of all tenants;
        an operator's words and name are left out.
        """
        failures, own = self.failures_of(tenant), self.own_of(tenant)
        seen = replace(
            self,
            failures=failures,
            last_failure_at=self.last_failure_at if failures else None,
            reason=FORCED if self.is_forced else self.reason if failures or self.state is not CircuitState.CLOSED else None,
            by=None,
        )
        if own is None or self.state is not CircuitState.CLOSED:
            return seen
        return replace(seen, state=own.state, until=own.until, reason=own.reason, opened_at=own.opened_at, trips=own.trips)

    def concerns(self, tenant: str) -> bool:
        """Whether a job of this tenant is among the failures, or it has a circuit of its own."""
        return self.prober == tenant or self.failures_of(tenant) > 0 or self.own_of(tenant) is not None


class Permission(StrEnum):
    """The answer of the circuit to an attempt."""

    ALLOWED = "allowed"
    PROBE = "probe"  # it may try to become the probe
    DENIED = "denied"


def check_permission(circuit: CircuitBreaker, origin: Origin, now: Ms) -> Permission:
    """Return whether this attempt may start.

    A tenant whose own circuit denies it does not probe for the others either.
    """
    permissions = {_shared_permission(circuit, origin, now), _own_permission(circuit, origin, now)}
    return next(one for one in (Permission.DENIED, Permission.PROBE, Permission.ALLOWED) if one in permissions)


def _shared_permission(circuit: CircuitBreaker, origin: Origin, now: Ms) -> Permission:
    if circuit.state is CircuitState.CLOSED:
        return Permission.ALLOWED
    if circuit.is_shared_probe(origin.mark):
        return Permission.PROBE
    probe_at = _probe_at(circuit, origin.tenant)
    return Permission.PROBE if probe_at is not None and now >= probe_at else Permission.DENIED


def _own_permission(circuit: CircuitBreaker, origin: Origin, now: Ms) -> Permission:
    own = circuit.own_of(origin.tenant)
    if own is None:
        return Permission.ALLOWED
    return Permission.PROBE if own.probe == origin.mark or now >= own.until else Permission.DENIED


def _probe_at(circuit: CircuitBreaker, tenant: str) -> Ms | None:
    """Return when a job of this tenant may become the probe for all; None: an operator decides."""
    if circuit.until is None:
        return None
    return circuit.until + (YIELD_MS if circuit.prober == tenant else 0)


def retry_at(circuit: CircuitBreaker, tenant: str, now: Ms) -> Ms:
    """Return when a denied job of this tenant (its mark) should check again."""
    moments, own = [now], circuit.own_of(tenant)
    if circuit.state is CircuitState.HALF_OPEN:
        moments.append(min(circuit.until or now, now + RECHECK_MS))
    elif circuit.state is CircuitState.OPEN:
        probe_at = _probe_at(circuit, tenant)
        moments.append(now + FORCED_RECHECK_MS if probe_at is None else probe_at)
    if own is not None:
        moments.append(min(own.until, now + RECHECK_MS) if own.probe else own.until)
    return max(moments)


def start_probe(circuit: CircuitBreaker, origin: Origin, now: Ms) -> CircuitBreaker | None:
    """Make this attempt the probe: of the circuit, of its tenant's own, or of both.

    Returns None if the cool-down has not ended or another attempt is the probe.
    """
    if circuit.is_probe(origin.mark):
        return circuit
    if check_permission(circuit, origin, now) is not Permission.PROBE:
        return None
    until = now + PROBE_TIMEOUT_MS
    own = tuple(replace(one, probe=origin.mark, until=until) if one.tenant == origin.tenant else one for one in circuit.own)
    if circuit.state is CircuitState.CLOSED:
        return _next(circuit, origin.mark, own=own)
    return _next(circuit, origin.mark, state=CircuitState.HALF_OPEN, until=until, own=own, prober=origin.tenant)


def record_failure(circuit: CircuitBreaker, error_code: str, began_at: Ms, origin: Origin, now: Ms) -> CircuitBreaker:
    """Record the error of an attempt that started at `began_at`.

    Returns the same object if nothing changes. An open circuit ignores all failures, because those
    attempts started before it opened. A half-open one counts only its probe. A closed one ignores
    attempts that started before it was closed, and other attempts of a job that it has counted.
    """
    signal = classify_error(error_code)
    if signal not in (ProviderSignal.FAILURE, ProviderSignal.ACCOUNT_BLOCKED):
        return circuit
    changed = _reopen_own(circuit, error_code, origin, now)
    if circuit.state is CircuitState.HALF_OPEN and circuit.is_shared_probe(origin.mark):
        changed = _open(changed, error_code, origin, now, changed.failed)
    elif circuit.state is CircuitState.CLOSED:
        is_old = circuit.closed_at is not None and began_at < circuit.closed_at and circuit.mark != origin.mark
        changed = changed if is_old else _count_failure(changed, signal, error_code, origin, now)
    return changed if changed is circuit else replace(changed, version=circuit.version + 1)


def _count_failure(circuit: CircuitBreaker, signal: ProviderSignal, error_code: str, origin: Origin, now: Ms) -> CircuitBreaker:
    """Count a failure in a closed circuit, once for each job."""
    recent = circuit.last_failure_at is not None and now - circuit.last_failure_at <= FAILURE_WINDOW_MS
    failed = circuit.failed if recent else ()
    if signal is ProviderSignal.ACCOUNT_BLOCKED:
        return _open(circuit, error_code, origin, now, failed)
    by_tenant = Counter(failure.partition("/")[0] for failure in failed)
    if origin.failure in failed or by_tenant[origin.tenant] >= FAILURE_THRESHOLD:
        return circuit
    by_tenant[origin.tenant] += 1
    if sum(min(count, MAX_FAILURES_PER_TENANT) for count in by_tenant.values()) >= FAILURE_THRESHOLD:
        return _open(circuit, error_code, origin, now, failed)
    failed = (*failed, origin.failure)
    own = circuit.own
    if by_tenant[origin.tenant] >= FAILURE_THRESHOLD and circuit.own_of(origin.tenant) is None:
        opened = TenantCircuit(tenant=origin.tenant, opened_at=now, until=now + cool_down(1), reason=error_code)
        own = (*sorted(own, key=lambda one: one.until)[-(MAX_TENANT_CIRCUITS - 1) :], opened)
    return _next(circuit, origin.mark, failed=failed, failures=len(failed), last_failure_at=now, reason=error_code, own=own)


def _reopen_own(circuit: CircuitBreaker, error_code: str, origin: Origin, now: Ms) -> CircuitBreaker:
    """Open the tenant's own circuit again if this attempt was its probe."""

    def reopen(own: TenantCircuit) -> TenantCircuit:
        trips = own.trips + 1
        return replace(own, probe="", opened_at=now, until=now + cool_down(trips), trips=trips, reason=error_code)

    if not any(own.probe == origin.mark for own in circuit.own):
        return circuit
    return _next_own(circuit, origin.mark, tuple(reopen(own) if own.probe == origin.mark else own for own in circuit.own))


def record_success(circuit: CircuitBreaker, began_at: Ms, mark: str, now: Ms) -> CircuitBreaker:
    """Record that the provider answered an attempt that started at `began_at`, of any tenant.

    Returns the same object if nothing changes. A success resets the failures of a closed circuit.
    An open or half-open one is closed only by its probe or by an attempt that started after it
    opened; the same is true of the circuits of single tenants.
    """
    if circuit.is_healthy or circuit.is_forced:
        return circuit
    own = tuple(one for one in circuit.own if one.probe != mark and began_at <= one.opened_at)
    if circuit.state is CircuitState.CLOSED:
        if not circuit.failures and own == circuit.own:
            return circuit
        return _next(circuit, mark, failures=0, failed=(), reason=None, own=own)
    if circuit.mark != mark and began_at <= (circuit.opened_at or 0):
        return circuit
    return replace(_close(circuit, mark, now), own=own)


def release_probe(circuit: CircuitBreaker, mark: str, now: Ms) -> CircuitBreaker:
    """End a probe without a conclusion, so that another attempt may probe at once."""
    if not circuit.is_probe(mark):
        return circuit
    own = tuple(replace(one, probe="", until=now) if one.probe == mark else one for one in circuit.own)
    if circuit.is_shared_probe(mark):
        return _next(circuit, mark, state=CircuitState.OPEN, until=now, own=own)
    return _next_own(circuit, mark, own)


def force_open(circuit: CircuitBreaker, by: str, reason: str | None, mark: str, now: Ms) -> CircuitBreaker:
    """Open the circuit on an operator's request, until an operator closes it."""
    return _next(circuit, mark, state=CircuitState.OPEN, opened_at=now, until=None, reason=reason or FORCED, by=by)


def force_close(circuit: CircuitBreaker, by: str, mark: str, now: Ms) -> CircuitBreaker:
    """Close the circuit, for every tenant, on an operator's request, and reset its trips."""
    return replace(_close(circuit, mark, now), trips=0, by=by, own=())


def _open(circuit: CircuitBreaker, reason: str, origin: Origin, now: Ms, failed: tuple[str, ...]) -> CircuitBreaker:
    """Open it for all tenants, after this failure beside those that were counted."""
    failed = failed if origin.failure in failed else (*failed, origin.failure)[-MAX_FAILED:]
    was_stable = circuit.state is CircuitState.CLOSED and (circuit.closed_at is None or now - circuit.closed_at >= TRIP_RESET_MS)
    trips = 1 if was_stable else circuit.trips + 1
    return _next(
        circuit,
        origin.mark,
        state=CircuitState.OPEN,
        failures=len(failed),
        failed=failed,
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
    return _next(
        circuit,
        mark,
        state=CircuitState.CLOSED,
        failures=0,
        failed=(),
        closed_at=now,
        opened_at=None,
        until=None,
        reason=None,
        by=None,
        prober=None,
    )


def _next_own(circuit: CircuitBreaker, mark: str, own: tuple[TenantCircuit, ...]) -> CircuitBreaker:
    """Change only the circuits of single tenants: the mark stays that of the probe for all."""
    return _next(circuit, circuit.mark if circuit.state is CircuitState.HALF_OPEN else mark, own=own)


def _next(circuit: CircuitBreaker, mark: str, **changes: Any) -> CircuitBreaker:
    return replace(circuit, version=circuit.version + 1, mark=mark, **changes)
