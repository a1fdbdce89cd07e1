"""Decide how many jobs of a cause may be released now.

A cause that is over lets its jobs go in waves, so that they do not all ask at once. Where only an
attempt can tell whether it is over, one job goes first, and each further wave is twice the one
before for as long as none of its jobs is held for the same cause again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, Permission, check_permission, origin_of
from chalicelib.domain.limits.pauses import Pause, line_pause
from chalicelib.domain.limits.rate_limit import RateLimit, effective
from chalicelib.domain.limits.sliding_window import Limits
from chalicelib.domain.queues.causes import MISSING_KEY, CauseKind, kind_of, subject_of
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import SchedulingContext

WAVE = 25  # jobs of a cause that are released in one round
ROUND_MS = 500
TRIAL_MS = 3_000  # after so long a trial has met the cause again, or not
TRIAL_PAUSE_MS = 60_000  # between two trials after one that met it
RECHECK_MS = 60_000  # of what tells nobody that it has changed: a stored key, another version of the code
PROBE_PAUSE_MS = 5_000  # between two candidates for the probe of a circuit


@dataclass(frozen=True, slots=True)
class Opening:
    """What a cause allows now."""

    jobs: int  # how many may be released; 0: none
    next_at: Ms  # when it may allow more
    by_tenant: Mapping[str, int] = field(default_factory=dict)  # how many of these tenants; of others as many as `jobs`


@dataclass(slots=True)
class Trials:
    """The waves of a cause of which only attempts can tell whether it is over."""

    wave: int = 1
    released_at: Ms | None = None  # when the last wave was released; None: none yet

    def opening(self, touched_at: Ms, pause: Ms, now: Ms) -> Opening:
        """Decide about the next wave.

        Args:
            touched_at: when a job was last held for the cause.
            pause: how long to wait after a job that met the cause.
        """
        has_met = self.released_at is None or touched_at > self.released_at
        ready_at = touched_at + pause if self.released_at is None else self.released_at + (pause if has_met else TRIAL_MS)
        if now < ready_at:
            return Opening(0, ready_at)
        self.wave = 1 if has_met else min(WAVE, self.wave * 2)
        return Opening(self.wave, now + TRIAL_MS)


@dataclass(slots=True)
class Facts:
    """What a loop of the scheduler knows about all causes, read once for all of them."""

    circuits: Mapping[str, CircuitBreaker] = field(default_factory=dict)
    has_key: bool = False
    pauses: tuple[Pause, ...] | None = None  # those for everybody; None: unknown
    tenant_pauses: Mapping[str, tuple[Pause, ...]] = field(default_factory=dict)  # of tenants in lines of pauses; absent: unknown
    rates: Mapping[str, RateLimit] = field(default_factory=dict)  # by model


def opening_of(
    ctx: SchedulingContext, facts: Facts, cause: str, trials: Trials, touched: Mapping[str, Ms], probed: Mapping[str, Ms], now: Ms
) -> Opening:
    """Decide how many jobs of a cause may be released now.

    Args:
        touched: when a job of each tenant was last held for the cause.
        probed: when a job of each tenant was last released as a candidate for a probe.
    """
    match kind_of(cause):
        case CauseKind.OPENAI:
            if cause == MISSING_KEY:
                return Opening(WAVE, now + ROUND_MS) if facts.has_key else Opening(0, now + RECHECK_MS)
            return trials.opening(max(touched.values()), TRIAL_PAUSE_MS, now)
        case CauseKind.CIRCUIT:
            return _circuit_opening(facts.circuits.get(subject_of(cause)), touched, probed, now)
        case CauseKind.RATE:
            return _rate_opening(facts.rates.get(subject_of(cause)), trials, max(touched.values()), now)
        case CauseKind.PAUSE:
            return _pause_opening(facts, subject_of(cause), touched, now)
        case CauseKind.CODE:
            return Opening(WAVE, now + ROUND_MS) if _knows_type(ctx, subject_of(cause)) else Opening(0, now + RECHECK_MS)
    return Opening(0, now + RECHECK_MS)  # only a newer version of the code knows it


def _rate_opening(limit: RateLimit | None, trials: Trials, touched_at: Ms, now: Ms) -> Opening:
    """Known limits decide by the window how many of the wave may go; without any, attempts must tell."""
    allowed = effective(limit, now) if limit is not None else Limits()
    if allowed.blocked_until is not None and now < allowed.blocked_until:
        return Opening(0, allowed.blocked_until)
    if not allowed.is_limited:
        return trials.opening(touched_at, 0 if trials.released_at is None else TRIAL_MS, now)
    return Opening(WAVE, now + ROUND_MS)


def _circuit_opening(circuit: CircuitBreaker | None, touched: Mapping[str, Ms], probed: Mapping[str, Ms], now: Ms) -> Opening:
    """A closed circuit lets a wave go, one that may be probed a candidate. A worker makes it the probe."""
    if circuit is None:
        return Opening(WAVE, now + ROUND_MS)
    by_tenant: dict[str, int] = {}
    for tenant in touched:
        permission = check_permission(circuit, origin_of("", tenant, ""), now)
        may_probe = permission is Permission.PROBE and probed.get(tenant, 0) + PROBE_PAUSE_MS <= now
        by_tenant[tenant] = WAVE if permission is Permission.ALLOWED else int(may_probe)
    if circuit.state is CircuitState.CLOSED:
        return Opening(WAVE, now + ROUND_MS, by_tenant)
    if any(by_tenant.values()) and max(probed.values(), default=0) + PROBE_PAUSE_MS <= now:
        return Opening(1, now + PROBE_PAUSE_MS, by_tenant)
    if circuit.is_forced:
        return Opening(0, now + RECHECK_MS)
    return Opening(0, max(now + ROUND_MS, circuit.until or 0), by_tenant)


def _pause_opening(facts: Facts, subject: str, touched: Mapping[str, Ms], now: Ms) -> Opening:
    """The line of a tenant lets its waves go when no pause holds back all of it."""
    by_tenant: dict[str, int] = {}
    next_at = now + RECHECK_MS
    for tenant in touched:
        own = facts.tenant_pauses.get(tenant)
        if facts.pauses is None or own is None:  # unknown
            by_tenant[tenant] = 0
            continue
        pause = line_pause(subject, tenant, (*facts.pauses, *own), now)
        by_tenant[tenant] = WAVE if pause is None else 0
        next_at = min(next_at, now + ROUND_MS if pause is None else pause.until or next_at)
    return Opening(WAVE if any(by_tenant.values()) else 0, next_at, by_tenant)


def _knows_type(ctx: SchedulingContext, name: str) -> bool:
    try:
        ctx.job_type(name)
    except JobTypeNotFound:
        return False
    return True
