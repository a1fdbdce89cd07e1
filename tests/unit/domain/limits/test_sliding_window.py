"""The sliding window of a rate limit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.limits.sliding_window import (
    CEILINGS,
    LINE_CEILINGS,
    MAX_EXCESS,
    SMALL,
    Frame,
    Limits,
    added,
    fits,
    fitting,
    free_at,
    minute_of,
    minutes_of,
    paced,
    used,
)

MINUTE = 60_000
START = 29_400_000 * MINUTE  # the first second of a frame


@dataclass
class Store:
    """The frames of one model, and what was started in true time."""

    frames: dict[int, Frame] = field(default_factory=dict)
    started: list[tuple[int, int]] = field(default_factory=list)  # true time, tokens

    def ask(self, limits: Limits, tokens: int, clock: int, true: int, lane: str, *, line: bool) -> int | None:
        """Ask with a clock that may be wrong. Returns: the time to give back; None: it started."""
        self.add(clock, 1, tokens)
        seen = [frame for minute in minutes_of(clock) if (frame := self.frames.get(minute))]
        allows = paced(seen, limits, tokens, clock, LINE_CEILINGS[lane]) if line else fits(seen, limits, tokens, clock, CEILINGS[lane])
        if not allows:
            return clock
        self.started.append((true, tokens))
        return None

    def add(self, clock: int, requests: int, tokens: int) -> None:
        minute, second = minute_of(clock)
        self.frames[minute] = self.frames.get(minute, Frame(minute)).added(second, requests, tokens)

    def most_in_a_minute(self) -> tuple[int, int]:
        """Return the most requests and the most tokens of any sliding minute."""
        requests = tokens = 0
        for first, _ in self.started:
            minute = [own for at, own in self.started if first <= at < first + MINUTE]
            requests, tokens = max(requests, len(minute)), max(tokens, sum(minute))
        return requests, tokens


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 900), st.integers(0, 12_000)),  # milliseconds since the step before
        st.sampled_from([-1000, -999, -400, 0, 300, 999, 1000]),  # the error of the clock
        st.integers(1, 60),  # asks
        st.sampled_from([1, 10, 40, 200]),  # tokens of each
        st.sampled_from(list(CEILINGS)),
        st.booleans(),  # by the scheduler
        st.integers(0, 3_000),  # how late what did not fit is given back
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    requests=st.sampled_from([1, 5, 30, 99, 100, 137, 400]),
    tokens=st.sampled_from([None, 1_000, 5_000]),
    offset=st.integers(0, 59),
)
def test_no_sliding_minute_exceeds_a_limit_by_more_than_a_twentieth(
    steps: list[tuple[int, int, int, int, str, bool, int]], requests: int, tokens: int | None, offset: int
) -> None:
    limits, store, now = Limits(requests=requests, tokens=tokens), Store(), START + 1_000 * offset
    back: list[tuple[int, int, int]] = []  # true time, time of the ask, tokens
    for pause, error, asks, own, lane, line, late in steps:
        now += pause
        for _, clock, taken in sorted(one for one in back if one[0] <= now):
            store.add(clock, -1, -taken)
        back = [one for one in back if one[0] > now]
        for _ in range(asks):
            refused = store.ask(limits, own, now + error, now, lane, line=line)
            if refused is not None:
                back.append((now + late, refused, own))

    most_requests, most_tokens = store.most_in_a_minute()
    assert most_requests <= (requests if requests < SMALL else requests * MAX_EXCESS)
    assert tokens is None or most_tokens <= tokens * MAX_EXCESS


def test_a_full_minute_is_released_evenly_and_uses_nearly_the_whole_limit() -> None:
    """The scheduler releases each half second what it may."""
    limits, store = Limits(requests=600), Store()
    for now in range(START, START + 10 * MINUTE, 500):
        while (refused := store.ask(limits, 0, now, now, "normal", line=True)) is None:
            pass
        store.add(refused, -1, 0)

    last = [at for at, _ in store.started if at >= START + 5 * MINUTE]
    by_ten_seconds = [sum(first <= at < first + 10_000 for at in last) for first in range(START + 5 * MINUTE, START + 10 * MINUTE, 10_000)]
    assert len(last) >= 0.95 * 5 * 600
    assert min(by_ten_seconds) >= 50, "there is a pause after each burst"
    assert max(Counter(at // 1_000 for at in last).values()) <= 16, "a second is far above the pace"


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 11, 20, 33, 47, 59, 60, 61, 63, 75, 99, 100, 101, 120, 500])
def test_limits_of_any_size_are_used_by_nine_tenths(limit: int) -> None:
    """Whole requests do not round a small limit down."""
    limits, store, minutes = Limits(requests=limit), Store(), 20
    for now in range(START, START + minutes * MINUTE, 500):
        while (refused := store.ask(limits, 0, now, now, "low", line=True)) is None:
            pass
        store.add(refused, -1, 0)

    assert len(store.started) >= 0.9 * limit * minutes


def test_a_request_that_does_not_wait_finds_room_above_the_scheduler() -> None:
    """Where the limit is large enough, its lane has a ceiling of its own."""
    limits, now = Limits(requests=500), START + 59_000
    frames: tuple[Frame, ...] = (Frame(minute_of(START)[0], tuple([9] * 55 + [0] * 5)),)
    frames = added(frames, now, 5, 0)  # 500

    assert not paced(added(frames, now, 1, 0), limits, 0, now)
    assert [fits(added(frames, now, 10, 0), limits, 0, now, CEILINGS[lane]) for lane in ("urgent", "high", "normal")] == [True, True, False]
    assert not fits(added(frames, now, 16, 0), limits, 0, now, CEILINGS["urgent"])


def test_the_window_reaches_into_the_minutes_before() -> None:
    """The first second of a minute needs two earlier frames, and the last one the next, for clocks that are ahead."""
    minute = minute_of(START)[0]
    assert minutes_of(START) == [minute - 2, minute - 1, minute]
    assert minutes_of(START + 3_000) == [minute - 1, minute]
    assert minutes_of(START + 57_999) == [minute - 1, minute]
    assert minutes_of(START + 58_000) == [minute - 1, minute + 1, minute]


def test_what_a_clock_ahead_counted_in_the_next_minute_counts() -> None:
    limits, now = Limits(requests=100), START + 59_900
    ahead = added((), START + MINUTE, 100, 0)

    assert fits(added((), now, 1, 0), limits, 0, now)
    assert not fits(added(ahead, now, 1, 0), limits, 0, now)


def test_a_request_leaves_the_window_after_its_seconds() -> None:
    limits, asked = Limits(requests=1), START + 59_000
    frames = added((), asked, 1, 0)

    assert free_at(frames, limits, 0, asked + 100) == asked + 63_000
    assert not fits(added(frames, asked + 62_999, 1, 0), limits, 0, asked + 62_999)
    assert fits(added(frames, asked + 63_000, 1, 0), limits, 0, asked + 63_000)


def test_missing_frames_count_as_empty() -> None:
    limits = Limits(requests=1, tokens=10)
    assert free_at((), limits, 10, START) == START
    assert used((), START) == (0, 0)
    assert free_at((Frame(minute_of(START)[0] - 9, (5,) * 60),), limits, 10, START) == START


def test_tokens_and_requests_are_limited_both() -> None:
    now = START + 30_000
    frames = added(added(added((), now, 1, 3_000), now - 12_000, 1, 3_000), now - 24_000, 1, 3_000)

    assert fits(frames, Limits(requests=3), 3_000, now)
    assert fits(frames, Limits(requests=3, tokens=9_000), 3_000, now)
    assert not fits(frames, Limits(requests=3, tokens=8_999), 3_000, now)
    assert not fits(frames, Limits(requests=2, tokens=9_000), 3_000, now)
    assert fits(frames, Limits(tokens=100), 0, now), "its tokens are not counted"
    assert used(frames, now) == (3, 9_000)


def test_a_request_above_the_limit_alone_never_fits() -> None:
    limits = Limits(tokens=1_000)

    assert not limits.can_pass(1_001)
    assert free_at((), limits, 1_001, START) is None
    assert not fits(added((), START, 1, 1_001), limits, 1_001, START)


def test_a_lowered_factor_lets_a_single_request_pass() -> None:
    """Otherwise a request that the limit allows would wait until the factor is back."""
    limits = Limits(requests=10, tokens=1_000, factor=0.1)

    assert fits(added((), START, 1, 900), limits, 900, START)
    assert not fits(added(added((), START, 1, 900), START, 1, 10), limits, 10, START)


def test_nothing_starts_while_the_model_is_blocked() -> None:
    limits = Limits(requests=10, blocked_until=START + 5_500)

    assert not fits(added((), START, 1, 0), limits, 0, START)
    assert free_at((), limits, 0, START) == START + 5_500
    assert fits(added((), START + 5_500, 1, 0), limits, 0, START + 5_500)


def test_a_lower_pace_spreads_and_does_not_lower_the_window() -> None:
    """For others who use the same account: what they leave is taken more slowly."""
    now = START + 30_000
    frames = added((), now - 5_000, 50, 0)

    assert paced(added(frames, now, 1, 0), Limits(requests=600), 0, now)
    assert not paced(added(frames, now, 1, 0), Limits(requests=600, pace=0.4), 0, now)
    assert fits(added(frames, now, 1, 0), Limits(requests=600, pace=0.4), 0, now)


def test_as_many_of_a_batch_start_as_fit() -> None:
    limits, costs = Limits(requests=200, tokens=100_000), [2_000, 2_000, 8_000, 8_000, 1_000]
    frames = added((), START, len(costs), sum(costs))

    assert fitting(frames, limits, costs, START) == 3, "the fourth would be faster than the pace"
    assert fitting(added(frames, START, 0, 8_000), limits, costs, START) == 2
    assert fitting(added(frames, START, 200, 0), limits, costs, START) == 0
    assert fitting((), limits, [], START) == 0
