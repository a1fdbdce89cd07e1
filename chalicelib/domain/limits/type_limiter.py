"""The limits of one kind of work: so many at once, so many begun in any minute. Pure rules on one value, swapped on its version.

Whoever may not begin yet is told its time, and that place is its own: a hundred that come together are told a hundred times, and each waits
once. A place is a moment, not a job: `begun` keeps as many moments as may be in a minute, and the next one is a minute after the first of
them. A slot is taken for a time and renewed while the job runs, so that a crash gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.units import Ms

MINUTE_MS = 60_000
SLOT_TTL_MS = 30_000  # about as long as a lease and its margin: with the worker the slot is dead
RESERVATION_TTL_MS = 60_000  # whoever comes later than that asks anew
CLOCK_TOLERANCE_MS = 1_000  # clocks differ
MAX_RESERVATIONS = 16  # of those who were told a time last: a wake-up that comes twice takes no second place
INITIAL_HOLD_MS = 10_000
MIN_WAIT_MS, MAX_WAIT_MS = 1_000, 600_000  # between two looks for a slot


@dataclass(frozen=True, slots=True)
class Slot:
    """One of those at work, by job and generation: of two workers with the same wake-up neither takes what the other one needs."""

    mark: str
    since: Ms
    until: Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimiter:
    """`begun`: the moments at which the last ones began or may begin, in order. `places`: when whoever asked last may.

    `line_at`: when the last of those who wait may find a slot, guessed by how long slots are held (`typical_ms`).
    """

    type: str
    version: int = 0
    recent_starts: tuple[Ms, ...] = ()
    reservations: tuple[tuple[str, Ms], ...] = ()
    slots: tuple[Slot, ...] = field(default=())
    next_slot_at: Ms = 0
    average_hold_ms: Ms = INITIAL_HOLD_MS

    def slots_in_use(self, now: Ms) -> int:
        """Slots that are taken now."""
        return len(self._alive(now))

    def holds_slot(self, mark: str, now: Ms) -> bool:
        return any(slot.mark == mark for slot in self._alive(now))

    def _alive(self, now: Ms) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.until > now)


@dataclass(frozen=True, slots=True)
class PermitDecision:
    """What somebody is told: come in (`until` is None), or come back then, because of the rate or for want of a slot."""

    limiter: TypeLimiter
    until: Ms | None = None
    by_rate: bool = False


def acquire(seen: TypeLimiter, limits: Limits, mark: str, now: Ms, *, has_place: bool = False, latest: Ms | None = None) -> PermitDecision:
    """Let `mark` in, or tell it its time. `has_place`: its time, which it was told before, has come. After `latest` no place is of use.

    Asking again with the same mark answers the same.
    """
    told = dict(seen.reservations).get(mark)
    if seen.holds_slot(mark, now):
        return PermitDecision(seen)
    has_place = has_place or (told is not None and now - RESERVATION_TTL_MS <= told <= now)
    at = now if has_place else _by_rate(seen, limits, now)
    full = limits.concurrency is not None and seen.slots_in_use(now) >= limits.concurrency
    if told is not None and told > now:
        return PermitDecision(seen, told, by_rate=not full)
    if at <= now and not full:
        return PermitDecision(_enter(seen, limits, mark, now, counted=not has_place))
    return _wait(seen, limits, mark, now, latest, full=full)


def renew(seen: TypeLimiter, mark: str, now: Ms) -> TypeLimiter:
    """Keep a slot for longer; one that was taken for given back is taken again, because its job is at work."""
    since = next((slot.since for slot in seen.slots if slot.mark == mark), now)
    return _next(seen, slots=(*_others(seen, mark, now), Slot(mark, since, now + SLOT_TTL_MS)))


def release(seen: TypeLimiter, mark: str, now: Ms, *, ran: bool = True) -> TypeLimiter:
    """Give a slot back. `ran`: how long it was held says how long others will be."""
    mine = next((slot for slot in seen.slots if slot.mark == mark), None)
    if mine is None:
        return seen
    typical = seen.average_hold_ms + (max(100, now - mine.since) - seen.average_hold_ms) // 4 if ran else seen.average_hold_ms
    return _next(seen, slots=_others(seen, mark, now), average_hold_ms=typical)


def _by_rate(seen: TypeLimiter, limits: Limits, now: Ms) -> Ms:
    """The first moment with which no minute has too many."""
    most = limits.per_minute
    return max(now, seen.recent_starts[-most] + MINUTE_MS) if most is not None and len(seen.recent_starts) >= most else now


def _enter(seen: TypeLimiter, limits: Limits, mark: str, now: Ms, *, counted: bool) -> TypeLimiter:
    slots = _others(seen, mark, now)
    if limits.concurrency is not None:
        slots = (*slots, Slot(mark, now, now + SLOT_TTL_MS))
    begun = _counted(seen, limits, now) if counted else seen.recent_starts
    return _next(seen, slots=slots, recent_starts=begun, reservations=_remembered(seen, mark, now))


def _wait(seen: TypeLimiter, limits: Limits, mark: str, now: Ms, latest: Ms | None, *, full: bool) -> PermitDecision:
    """Behind those who wait already: one after the other, as slots are likely to be free."""
    rate, line = _by_rate(seen, limits, now), seen.next_slot_at
    at = rate
    if limits.concurrency is not None:
        each = min(MAX_WAIT_MS, max(MIN_WAIT_MS, seen.average_hold_ms // limits.concurrency))
        at = max(at, now + each if full else now, seen.next_slot_at)
        line = at + each
    if latest is not None and at >= latest:
        return PermitDecision(seen, at, by_rate=rate > now)
    new = _next(seen, recent_starts=_counted(seen, limits, at), reservations=_remembered(seen, mark, at), next_slot_at=line)
    return PermitDecision(new, at, by_rate=rate > now)


def _counted(seen: TypeLimiter, limits: Limits, at: Ms) -> tuple[Ms, ...]:
    return tuple(sorted((*seen.recent_starts, at)))[-limits.per_minute :] if limits.per_minute is not None else ()


def _remembered(seen: TypeLimiter, mark: str, at: Ms) -> tuple[tuple[str, Ms], ...]:
    return (*(place for place in seen.reservations if place[0] != mark), (mark, at))[-MAX_RESERVATIONS:]


def _others(seen: TypeLimiter, mark: str, now: Ms) -> tuple[Slot, ...]:
    """The slots of others whose time is not over."""
    return tuple(slot for slot in seen.slots if slot.mark != mark and slot.until > now)


def _next(seen: TypeLimiter, **changes: object) -> TypeLimiter:
    return replace(seen, version=seen.version + 1, **changes)  # type: ignore[arg-type]
