"""Limit the jobs of one type: how many run at once, and how many start in any minute.

A job that may not start yet gets a reservation: its own start time. So of a hundred jobs that
arrive together each waits once, instead of all of them retrying. For the rate, `recent_starts`
holds the last starts and reserved starts, as many as are allowed in a minute; the next start is a
minute after the oldest of them. A slot is held for a limited time and renewed while the job runs,
so that the slot of a crashed worker becomes free.

All functions are pure. A store writes the new value only if the version that it was computed from
is still current. A holder is one wake-up of a job, `<job id>#<generation>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.units import Ms

MINUTE_MS = 60_000
# About a lease and its margin: the slot of a dead worker expires with its lease.
SLOT_TTL_MS = 30_000
RESERVATION_TTL_MS = 60_000  # how long after its time a reservation is valid
CLOCK_TOLERANCE_MS = 1_000  # the clocks of workers differ
# The last ones are remembered, so that a duplicate wake-up does not reserve twice.
MAX_RESERVATIONS = 16
INITIAL_HOLD_MS = 10_000  # average time of a slot before any was measured
MIN_WAIT_MS, MAX_WAIT_MS = 1_000, 600_000  # between two reserved starts that wait for a slot


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that a running job holds."""

    holder: str  # the wake-up, not the worker: two workers with the same wake-up share it
    since: Ms
    until: Ms  # when it is free unless it is renewed


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimiter:
    """The stored state of one type's limiter."""

    type: str
    version: int = 0
    recent_starts: tuple[Ms, ...] = ()  # the last starts and reserved starts, in order
    reservations: tuple[tuple[str, Ms], ...] = ()  # the last holders with their start times
    slots: tuple[Slot, ...] = field(default=())
    next_slot_at: Ms = 0  # when a slot is likely to be free for the next waiting job
    average_hold_ms: Ms = INITIAL_HOLD_MS  # moving average of how long slots are held

    def slots_in_use(self, now: Ms) -> int:
        return len(self._held_slots(now))

    def holds_slot(self, holder: str, now: Ms) -> bool:
        return any(slot.holder == holder for slot in self._held_slots(now))

    def _held_slots(self, now: Ms) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.until > now)


@dataclass(frozen=True, slots=True)
class PermitDecision:
    """The answer to `acquire`, with the limiter to store."""

    limiter: TypeLimiter
    until: Ms | None = None  # the reserved start time; None: the holder may start now
    by_rate: bool = False  # it waits for the rate; false: for a slot


def acquire(
    limiter: TypeLimiter, limits: Limits, holder: str, now: Ms, *, has_reservation: bool = False, latest: Ms | None = None
) -> PermitDecision:
    """Acquire a slot for `holder`, or reserve the earliest start time. Idempotent per holder.

    Args:
        limiter: The current state.
        limits: The limits of the type.
        holder: The wake-up that asks.
        now: The current time.
        has_reservation: The reserved time of this holder has come, so the rate was already counted.
        latest: Do not store a reservation at or after this time, because the job expires then.
    """
    reserved_at = dict(limiter.reservations).get(holder)
    if limiter.holds_slot(holder, now):
        return PermitDecision(limiter)
    has_reservation = has_reservation or (reserved_at is not None and now - RESERVATION_TTL_MS <= reserved_at <= now)
    start_at = now if has_reservation else _earliest_by_rate(limiter, limits, now)
    is_full = limits.concurrency is not None and limiter.slots_in_use(now) >= limits.concurrency
    if reserved_at is not None and reserved_at > now:
        return PermitDecision(limiter, reserved_at, by_rate=not is_full)
    if start_at <= now and not is_full:
        return PermitDecision(_start(limiter, limits, holder, now, count_rate=not has_reservation))
    return _reserve(limiter, limits, holder, now, latest, is_full=is_full)


def renew(limiter: TypeLimiter, holder: str, now: Ms) -> TypeLimiter:
    """Extend a slot.

    If it has expired it is acquired again, even beyond the limit, because its job is running.
    """
    since = next((slot.since for slot in limiter.slots if slot.holder == holder), now)
    return _next(limiter, slots=(*_other_slots(limiter, holder, now), Slot(holder, since, now + SLOT_TTL_MS)))


def release(limiter: TypeLimiter, holder: str, now: Ms, *, ran: bool = True) -> TypeLimiter:
    """Free a slot.

    `ran`: the job did run, so the time that the slot was held counts for the average.
    """
    slot = next((slot for slot in limiter.slots if slot.holder == holder), None)
    if slot is None:
        return limiter
    average = limiter.average_hold_ms
    if ran:
        average += (max(100, now - slot.since) - average) // 4
    return _next(limiter, slots=_other_slots(limiter, holder, now), average_hold_ms=average)


def _earliest_by_rate(limiter: TypeLimiter, limits: Limits, now: Ms) -> Ms:
    """Return the earliest start with which no minute has more than `per_minute` starts."""
    per_minute = limits.per_minute
    if per_minute is None or len(limiter.recent_starts) < per_minute:
        return now
    return max(now, limiter.recent_starts[-per_minute] + MINUTE_MS)


def _start(limiter: TypeLimiter, limits: Limits, holder: str, now: Ms, *, count_rate: bool) -> TypeLimiter:
    slots = _other_slots(limiter, holder, now)
    if limits.concurrency is not None:
        slots = (*slots, Slot(holder, now, now + SLOT_TTL_MS))
    starts = _with_start(limiter, limits, now) if count_rate else limiter.recent_starts
    return _next(limiter, slots=slots, recent_starts=starts, reservations=_with_reservation(limiter, holder, now))


def _reserve(limiter: TypeLimiter, limits: Limits, holder: str, now: Ms, latest: Ms | None, *, is_full: bool) -> PermitDecision:
    """Reserve the next start, at the pace at which slots are likely to become free."""
    rate_at, next_slot_at = _earliest_by_rate(limiter, limits, now), limiter.next_slot_at
    start_at = rate_at
    if limits.concurrency is not None:
        interval = min(MAX_WAIT_MS, max(MIN_WAIT_MS, limiter.average_hold_ms // limits.concurrency))
        start_at = max(start_at, now + interval if is_full else now, limiter.next_slot_at)
        next_slot_at = start_at + interval
    if latest is not None and start_at >= latest:
        return PermitDecision(limiter, start_at, by_rate=rate_at > now)
    starts, reservations = _with_start(limiter, limits, start_at), _with_reservation(limiter, holder, start_at)
    reserved = _next(limiter, recent_starts=starts, reservations=reservations, next_slot_at=next_slot_at)
    return PermitDecision(reserved, start_at, by_rate=rate_at > now)


def _with_start(limiter: TypeLimiter, limits: Limits, at: Ms) -> tuple[Ms, ...]:
    return tuple(sorted((*limiter.recent_starts, at)))[-limits.per_minute :] if limits.per_minute is not None else ()


def _with_reservation(limiter: TypeLimiter, holder: str, at: Ms) -> tuple[tuple[str, Ms], ...]:
    return (*(entry for entry in limiter.reservations if entry[0] != holder), (holder, at))[-MAX_RESERVATIONS:]


def _other_slots(limiter: TypeLimiter, holder: str, now: Ms) -> tuple[Slot, ...]:
    """Return the unexpired slots of other holders."""
    return tuple(slot for slot in limiter.slots if slot.holder != holder and slot.until > now)


def _next(limiter: TypeLimiter, **changes: object) -> TypeLimiter:
    return replace(limiter, version=limiter.version + 1, **changes)  # type: ignore[arg-type]
