"""The limits of a kind of work, as rules: no minute has too many, no more than so many at once, and each place is somebody's own."""

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


def asked(count: int, limits: Limits, now: int = NOW, seen: TypeLimiter = EMPTY) -> tuple[TypeLimiter, list[int]]:
    """So many come together: what they leave, and when each may begin, in seconds from now."""
    times = []
    for number in range(count):
        turn = acquire(seen, limits, f"job{number}#1", now)
        seen = turn.limiter
        times.append(((turn.until or now) - now) // 1000)
    return seen, times


def test_a_minute_has_as_many_as_it_may() -> None:
    """The first ones begin at once, each of the others a minute after the one that had its place before."""
    assert asked(8, RATE)[1] == [0, 0, 0, 60, 60, 60, 120, 120]


def test_a_place_is_ones_own() -> None:
    """Who comes at its time comes in, and takes no other place; who has none waits behind those who have."""
    seen, _ = asked(4, RATE)
    later = NOW + MINUTE_MS

    known = acquire(seen, RATE, "job3#2", later, has_reservation=True)
    new = acquire(known.limiter, RATE, "job9#1", later)

    assert (known.until, known.limiter.recent_starts) == (None, seen.recent_starts)
    assert new.until is None
    assert acquire(acquire(new.limiter, RATE, "job10#1", later).limiter, RATE, "job11#1", later).until == later + MINUTE_MS


def test_asking_twice_takes_one_place() -> None:
    """A wake-up that comes twice, or a write whose answer was lost, is told the same."""
    seen, _ = asked(4, RATE)

    again = acquire(seen, RATE, "job3#1", NOW + 5)

    assert (again.until, again.limiter) == (NOW + MINUTE_MS, seen)
    entered = acquire(seen, RATE, "job0#1", NOW + 5)
    assert entered.until is None
    assert entered.limiter.recent_starts == seen.recent_starts


def test_slots_are_bounded_and_come_back() -> None:
    """By being given back, or by their time; renewed they last."""
    seen, times = asked(3, SLOTS)

    assert times == [0, 0, INITIAL_HOLD_MS // 2000]
    assert acquire(release(seen, "job0#1", NOW + 100), SLOTS, "job3#1", NOW + 100).until is None
    over = NOW + SLOT_TTL_MS
    assert acquire(seen, SLOTS, "job3#1", over).until is None
    renewed = renew(renew(seen, "job0#1", over - 1), "job1#1", over - 1)
    assert acquire(renewed, SLOTS, "job3#1", over).until is not None


def test_two_workers_with_one_wake_up_have_one_slot() -> None:
    """Neither keeps the other out, and together they are one."""
    seen, _ = asked(1, SLOTS)

    again = acquire(seen, SLOTS, "job0#1", NOW)

    assert again.until is None
    assert again.limiter.slots_in_use(NOW) == 1


def test_who_waits_for_a_slot_is_told_a_time_by_how_long_others_took() -> None:
    """One behind the other, so that each finds one when it comes; how long slots are held is learnt from those who leave."""
    slow = TypeLimiter(type="chore", average_hold_ms=60_000)

    seen, times = asked(6, SLOTS, seen=slow)

    assert times == [0, 0, 30, 60, 90, 120]
    assert release(seen, "job0#1", NOW + 20_000).average_hold_ms == 50_000
    assert release(seen, "job0#1", NOW + 20_000, ran=False).average_hold_ms == 60_000


def test_a_place_that_comes_too_late_is_not_taken() -> None:
    """The job will have ended by then; those behind it come sooner."""
    seen, _ = asked(3, RATE)

    late = acquire(seen, RATE, "job3#1", NOW, latest=NOW + 1000)

    assert late.until == NOW + MINUTE_MS
    assert late.limiter is seen


def test_leaving_what_one_does_not_have_changes_nothing() -> None:
    assert release(EMPTY, "job0#1", NOW) is EMPTY


def test_what_is_kept_is_bounded() -> None:
    """However many come."""
    seen, _ = asked(500, Limits(concurrency=2, per_minute=10))

    assert (len(seen.recent_starts), len(seen.reservations), len(seen.slots)) == (10, MAX_RESERVATIONS, 2)


@given(
    pauses=st.lists(st.integers(0, 40_000), min_size=1, max_size=60),
    per_minute=st.integers(1, 6),
    concurrency=st.none() | st.integers(1, 3),
)
def test_no_minute_has_too_many_whoever_comes_when(pauses: list[int], per_minute: int, concurrency: int | None) -> None:
    """Each that is told a time comes at it; of all moments at which somebody came in, no minute has more than it may."""
    limits, now, seen = Limits(concurrency=concurrency, per_minute=per_minute), NOW, EMPTY
    waiting: list[tuple[int, int]] = []
    began: list[int] = []

    def come(number: int, at: int, *, has_place: bool) -> None:
        nonlocal seen
        turn = acquire(seen, limits, f"job{number}#{len(began)}.{at}", at, has_reservation=has_place)
        seen = turn.limiter
        if turn.until is None:
            began.append(at)
            assert concurrency is None or seen.slots_in_use(at) <= concurrency
        else:
            assert turn.until > at
            waiting.append((turn.until, number))

    for number, pause in enumerate(pauses):
        now += pause
        while waiting and min(waiting)[0] <= now:
            at, other = min(waiting)
            waiting.remove((at, other))
            come(other, at, has_place=True)
        come(number, now, has_place=False)
    for _ in range(2_000):
        if not waiting:
            break
        at, other = min(waiting)
        waiting.remove((at, other))
        come(other, at, has_place=True)

    assert not waiting
    began.sort()
    assert all(later - sooner >= MINUTE_MS for sooner, later in zip(began, began[per_minute:], strict=False))
