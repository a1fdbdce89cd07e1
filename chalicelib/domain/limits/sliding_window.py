"""A rate limit of a minute, counted in frames: how much may start now, and when the next one may.

A frame is one minute of a model with sixty counters of requests and sixty of tokens, one for each
second. Whoever wants to start a request adds it to the current second, and the store answers with
the whole frame. If the sum of the last minute is within the limit the request starts; otherwise it
is taken off the same second again. So nothing is reserved ahead, and nothing has to be returned by
a process that dies: its request leaves the window after a minute, as if it had been made.

Three sums bound a request:

* The window of `WINDOW` seconds holds at most the limit times the ceiling. Ceilings above 1 are the
  room for requests that did not wait.
* `WIDE_WINDOW` seconds hold at most `MAX_EXCESS` of the limit, less the request's own part. Clocks
  differ by up to a second, and a minute touches 61 seconds, so this is what no sliding minute
  exceeds. With a limit below `SMALL` they hold at most the limit: a single request that starts late
  is much there.
* The last ten seconds hold at most a sixth of the limit times the pace. For what the scheduler
  releases there are such sums of fewer seconds, too: what is released evenly leaves the window
  evenly, so that whoever comes next finds room at once.

All functions are pure. `frames` are those of neighbouring minutes, in any order; a missing one
counts as empty. An ask needs all that reach into its window (`minutes_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor

from chalicelib.domain.units import Ms

SECONDS = 60
WINDOW, WIDE_WINDOW = 61, 63  # seconds
MAX_EXCESS, LINE_EXCESS = 1.05, 1.01  # of the limit in the wide window; the scheduler leaves room for who does not wait
# So few requests a minute are not spread over it: that would cost each batch most of a minute, and a
# stranger waits for some seconds in any case. With still fewer it would wait for most of a minute.
FEWEST, FEW = 10, 30
SMALL = 100  # a limit below it has no ceilings above 1
BIG_PART = 40  # a request that is more than this part of the limit has no ceiling above 1
LARGE_PART = 8  # one that is more than this part has no pace
CLOCK_ERROR = 2  # seconds that the counters of others may be ahead
PACE_SECONDS = 10
# How much more than the pace may start within so many seconds. A round of the scheduler may come a second late; a tenant
# that comes with thousands of jobs leaves room for whoever comes in the next seconds.
LINE_SMOOTH, BURST_SMOOTH = ((1, 1.5), (3, 1.05)), ((3, 1.6),)
BURST_PACE = 1.25  # of who does not wait
LINE_PACE = 0.99  # of the scheduler: what leaves the window while it is full, so that it does not fill before
SMALL_PACE = 1.02  # of the scheduler with few requests a minute
# How much of the limit those who do not wait may use, by lane.
CEILINGS = {"urgent": 1.03, "high": 1.02, "normal": 1.01, "low": 1.0}
LINE_CEILINGS = {"urgent": 1.0, "high": 1.0, "normal": 1.0, "low": 0.98}  # the scheduler's

NONE = (0,) * SECONDS


@dataclass(frozen=True, slots=True)
class Frame:
    """What was asked for in one minute, by second."""

    minute: int  # minutes since 1970
    requests: tuple[int, ...] = NONE
    tokens: tuple[int, ...] = NONE

    def added(self, second: int, requests: int, tokens: int) -> Frame:
        """Return the frame with these added to a second (0 to 59); negative numbers are taken off."""
        return replace(self, requests=_added(self.requests, second, requests), tokens=_added(self.tokens, second, tokens))


Frames = Sequence[Frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may start in a minute; None: there is no such limit."""

    requests: int | None = None
    tokens: int | None = None
    factor: float = 1.0  # how much of them is used at present
    pace: float = 1.0  # how much of the usual pace is kept at present
    blocked_until: Ms | None = None  # nothing starts before

    @property
    def is_limited(self) -> bool:
        """Whether any limit is known."""
        return self.requests is not None or self.tokens is not None

    def can_pass(self, tokens: int) -> bool:
        """Whether a request of so many tokens is within the limits if it is alone."""
        return self.tokens is None or tokens <= self.tokens


def minute_of(at: Ms) -> tuple[int, int]:
    """Return the minute since 1970 and the second within it."""
    return divmod(at // 1000, SECONDS)


def minutes_of(at: Ms) -> list[int]:
    """Return the minutes whose frames an ask at this time needs: the current one last.

    In the first seconds the window reaches into two earlier minutes. In the last ones somebody
    whose clock is ahead may have counted in the next minute.
    """
    first, last = (minute_of(at + 1000 * seconds)[0] for seconds in (1 - WIDE_WINDOW, CLOCK_ERROR))
    current = minute_of(at)[0]
    return [minute for minute in range(first, last + 1) if minute != current] + [current]


def added(frames: Frames, at: Ms, requests: int, tokens: int) -> tuple[Frame, ...]:
    """Return the frames with requests and tokens added at a time."""
    minute, second = minute_of(at)
    current = next((frame for frame in frames if frame.minute == minute), Frame(minute))
    return (*(frame for frame in frames if frame.minute != minute), current.added(second, requests, tokens))


def used(frames: Frames, now: Ms, seconds: int = SECONDS) -> tuple[int, int]:
    """Return the requests and tokens of the last seconds, a minute at most."""
    return tuple(_Counts(frames, now, kind).last(min(SECONDS, seconds)) for kind in ("requests", "tokens"))  # type: ignore[return-value]


def fits(frames: Frames, limits: Limits, tokens: int, now: Ms, ceiling: float = 1.0) -> bool:
    """Whether a request that does not wait, and that the frames count, may start now.

    Args:
        tokens: what it is charged; 0: the model's tokens are not counted.
        ceiling: of its lane, from `CEILINGS`.
    """
    return _allows(frames, limits, tokens, now, ceiling, 1.0, line=False)


def fitting(frames: Frames, limits: Limits, costs: Sequence[int], now: Ms, ceiling: float = 1.0) -> int:
    """Return how many of several requests, by their tokens, may start now; the frames count all of them.

    The first that does not fit ends it, so that none passes one that came before.
    """
    for number in range(len(costs)):
        later = costs[number + 1 :]
        if not fits(added(frames, now, -len(later), -sum(later)), limits, costs[number], now, ceiling):
            return number
    return len(costs)


def paced(frames: Frames, limits: Limits, tokens: int, now: Ms, ceiling: float = 1.0) -> bool:
    """Whether the scheduler may release a request that the frames count: it fits, and keeps the pace.

    Args:
        ceiling: of its lane, from `LINE_CEILINGS`.
    """
    return _allows(frames, limits, tokens, now, ceiling, limits.pace, line=True)


def free_at(frames: Frames, limits: Limits, tokens: int, now: Ms, ceiling: float = 1.0) -> Ms | None:
    """Return when the scheduler may release a request that the frames do not count, if no other comes first.

    None: never, because it is above the limit alone.
    """
    if not limits.can_pass(tokens):
        return None
    at = max(now, limits.blocked_until or 0)
    for _ in range(2 * WIDE_WINDOW):
        if paced(added(frames, at, 1, tokens), limits, tokens, at, ceiling):
            return at
        at = (at // 1000 + 1) * 1000
    return at


class _Counts:
    """The counters of one kind around a moment, the latest last."""

    def __init__(self, frames: Frames, now: Ms, kind: str) -> None:
        by_minute = {frame.minute: getattr(frame, kind) for frame in frames}
        minute, second = minute_of(now)
        first, last = minute - 2, max([minute, *by_minute])
        self._flat: list[int] = []
        for one in range(first, min(last, minute + 1) + 1):
            self._flat += by_minute.get(one, NONE)
        self._next = (minute - first) * SECONDS + second + 1  # the index of the next second

    def last(self, seconds: int) -> int:
        """Return the sum of the last seconds, with what others whose clocks are ahead have counted."""
        return sum(self._flat[max(0, self._next - seconds) :])


def _allows(frames: Frames, limits: Limits, tokens: int, now: Ms, ceiling: float, pace: float, *, line: bool) -> bool:
    if limits.blocked_until is not None and now < limits.blocked_until:
        return False
    for kind, own, limit in (("requests", 1, limits.requests), ("tokens", tokens, limits.tokens)):
        if limit is None or own <= 0:
            continue
        if own > limit:
            return False
        allowed = max(limit * limits.factor, own)  # whatever the factor, one may pass alone
        if not _is_within(_Counts(frames, now, kind), own, allowed, ceiling, pace, line=line):
            return False
    return True


def _is_within(counts: _Counts, own: int, limit: float, ceiling: float, pace: float, *, line: bool) -> bool:
    if limit < SMALL:
        if counts.last(WIDE_WINDOW) > limit:  # no ceiling: it would round a small limit down
            return False
    else:
        excess = max(1.0, (LINE_EXCESS if line else MAX_EXCESS) - own / limit)
        is_big = own * BIG_PART > limit
        if counts.last(WINDOW) > limit * (min(1.0, ceiling) if is_big else ceiling) or counts.last(WIDE_WINDOW) > limit * excess:
            return False
    return _keeps_pace(counts, own, limit, pace, line=line)


def _keeps_pace(counts: _Counts, own: int, limit: float, pace: float, *, line: bool) -> bool:
    """Whether the last seconds are not above the pace; one request may always start in them.

    Half of it counts, so that sizes round evenly.
    """
    if line and FEWEST <= limit / own < FEW:
        return True
    if line and limit < SMALL * own:
        seconds = _spacing(limit / own)
        if counts.last(seconds) > max(own, SMALL_PACE * pace * limit * seconds / WIDE_WINDOW + own / 2):
            return False
        return counts.last(1) <= max(own, SMALL_PACE * pace * limit / SECONDS + 0.95 * own)
    if own * LARGE_PART > limit >= SMALL or (not line and limit < BIG_PART):
        return True  # a few that fill a minute: any pause between them would leave room that nothing else fits into
    second = pace * (LINE_PACE if line else BURST_PACE) * limit / SECONDS
    if counts.last(PACE_SECONDS) > max(own, second * PACE_SECONDS + own / 2):
        return False
    return all(counts.last(seconds) <= part * second * seconds + own for seconds, part in (LINE_SMOOTH if line else BURST_SMOOTH))


@lru_cache(maxsize=1_000)
def _spacing(limit: float) -> int:
    """Return the seconds over which the scheduler spreads few requests, so that they do not start all at once.

    Over ten seconds, whole requests would round a small limit down by up to a tenth or up to a
    burst. These are the fewest seconds for which the rounded number is about what the limit gives.
    """
    for seconds in range(1, WIDE_WINDOW):
        expected = limit * seconds / WIDE_WINDOW
        if 0.98 * expected <= floor(SMALL_PACE * expected + 0.5) <= 1.04 * expected:
            return seconds
    return WIDE_WINDOW


def _added(counters: tuple[int, ...], second: int, number: int) -> tuple[int, ...]:
    if not number:
        return counters
    return (*counters[:second], counters[second] + number, *counters[second + 1 :])
