"""Limits of a job type, as pure rules: starts per minute, slots, and reservations per holder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.limits.type_limiter import (
    INITIAL_HOLD_MS,
    MAX_RESERVATIONS,
    MINUTE_MS,
    SLOT_TTL_MS,
    TypeLimiter,
    acquire,
    release,
    renew,
)

NOW = 1_800_000_000_000
RATE = Limits(per_minute=3)
SLOTS = Limits(concurrency=2)
EMPTY = TypeLimiter(type="chore")


def acquire_many(count: int, limits: Limits, now: int = NOW, seen: TypeLimiter = EMPTY) -> tuple[TypeLimiter, list[int]]:
    """Acquire for many holders at once. Return the limiter and the seconds until each may start."""
    times = []
    for number in range(count):
        decision = acquire(seen, limits, f"job{number}#1", now)
        seen = decision.limiter
        times.append(((decision.until or now) - now) // 1000)
    return seen, times


def test_rate_limit_spreads_starts_over_minutes() -> None:
    """Three start at once; each later start is a minute after the start three before it."""
    assert acquire_many(8, RATE)[1] == [0, 0, 0, 60, 60, 60, 120, 120]


def test_due_reservation_is_used_without_taking_a_second_one() -> None:
    """Callers without a reservation wait behind those that hold one."""
    seen, _ = acquire_many(4, RATE)
    later = NOW + MINUTE_MS

    known = acquire(seen, RATE, "job3#2", later, has_reservation=True)
    new = acquire(known.limiter, RATE, "job9#1", later)

    assert (known.until, known.limiter.recent_starts) == (None, seen.recent_starts)
    assert new.until is None
    assert acquire(acquire(new.limiter, RATE, "job10#1", later).limiter, RATE, "job11#1", later).until == later + MINUTE_MS


def test_acquire_is_idempotent_per_holder() -> None:
    """A duplicate wake-up or a lost response must not consume a second start."""
    seen, _ = acquire_many(4, RATE)

    again = acquire(seen, RATE, "job3#1", NOW + 5)

    assert (again.until, again.limiter) == (NOW + MINUTE_MS, seen)
    started = acquire(seen, RATE, "job0#1", NOW + 5)
    assert started.until is None
    assert started.limiter.recent_starts == seen.recent_starts


def test_concurrency_slots_are_freed_by_release_or_expiry() -> None:
    """A renewed slot does not expire."""
    seen, times = acquire_many(3, SLOTS)

    assert times == [0, 0, INITIAL_HOLD_MS // 2000]
    assert acquire(release(seen, "job0#1", NOW + 100), SLOTS, "job3#1", NOW + 100).until is None
    over = NOW + SLOT_TTL_MS
    assert acquire(seen, SLOTS, "job3#1", over).until is None
    renewed = renew(renew(seen, "job0#1", over - 1), "job1#1", over - 1)
    assert acquire(renewed, SLOTS, "job3#1", over).until is not None


def test_duplicate_wake_up_shares_one_slot() -> None:
    """Two workers may run the same wake-up; neither blocks the other."""
    seen, _ = acquire_many(1, SLOTS)

    again = acquire(seen, SLOTS, "job0#1", NOW)

    assert again.until is None
    assert again.limiter.slots_in_use(NOW) == 1


def test_reserved_start_times_follow_the_average_slot_duration() -> None:
    """The average is updated at each release of a slot whose job ran."""
    slow = TypeLimiter(type="chore", average_hold_ms=60_000)

    seen, times = acquire_many(6, SLOTS, seen=slow)

    assert times == [0, 0, 30, 60, 90, 120]
    assert release(seen, "job0#1", NOW + 20_000).average_hold_ms == 50_000
    assert release(seen, "job0#1", NOW + 20_000, ran=False).average_hold_ms == 60_000


def test_no_reservation_beyond_the_latest_start_time() -> None:
    """The job would have expired by then, and the jobs behind it would wait for nothing."""
    seen, _ = acquire_many(3, RATE)

    late = acquire(seen, RATE, "job3#1", NOW, latest=NOW + 1000)

    assert late.until == NOW + MINUTE_MS
    assert late.limiter is seen


def test_release_without_a_slot_changes_nothing() -> None:
    assert release(EMPTY, "job0#1", NOW) is EMPTY


def test_limiter_state_is_bounded() -> None:
    """Checked with 500 requests at the same moment."""
    seen, _ = acquire_many(500, Limits(concurrency=2, per_minute=10))

    assert (len(seen.recent_starts), len(seen.reservations), len(seen.slots)) == (10, MAX_RESERVATIONS, 2)


@given(
    pauses=st.lists(st.integers(0, 40_000), min_size=1, max_size=60),
    per_minute=st.integers(1, 6),
    concurrency=st.none() | st.integers(1, 3),
)
def test_rate_and_concurrency_limits_hold_for_any_arrival_pattern(pauses: list[int], per_minute: int, concurrency: int | None) -> None:
    """Every request with a reserved time returns at that time, and all of them start in the end."""
    limits, now, seen = Limits(concurrency=concurrency, per_minute=per_minute), NOW, EMPTY
    waiting: list[tuple[int, int]] = []
    started: list[int] = []

    def request(number: int, at: int, *, has_reservation: bool) -> None:
        nonlocal seen
        outcome = acquire(seen, limits, f"job{number}#{len(started)}.{at}", at, has_reservation=has_reservation)
        seen = outcome.limiter
        if outcome.until is None:
            started.append(at)
            assert concurrency is None or seen.slots_in_use(at) <= concurrency
        else:
            assert outcome.until > at
            waiting.append((outcome.until, number))

    for number, pause in enumerate(pauses):
        now += pause
        while waiting and min(waiting)[0] <= now:
            at, other = min(waiting)
            waiting.remove((at, other))
            request(other, at, has_reservation=True)
        request(number, now, has_reservation=False)
    for _ in range(2_000):
        if not waiting:
            break
        at, other = min(waiting)
        waiting.remove((at, other))
        request(other, at, has_reservation=True)

    assert not waiting
    started.sort()
    assert all(later - sooner >= MINUTE_MS for sooner, later in zip(started, started[per_minute:], strict=False))
