"""Whether a failed attempt is followed by another, and when: a pure value that returns a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.units import Ms

MAX_RETRY_AFTER = 900.0  # seconds; also the longest delay of an SQS message


class GiveUpReason(StrEnum):
    """Why no other attempt is made."""

    NOT_RETRYABLE = "not_retryable"  # the same request would fail in the same way
    ATTEMPTS_USED_UP = "attempts_used_up"
    TOO_LATE = "too_late"  # the next attempt would begin after `retry_until`


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `due_ms`."""

    due_ms: Ms


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final."""

    reason: GiveUpReason


Decision = RetryAt | GiveUp


def counts_as_attempt(error: AttemptFailed, *, again: bool) -> bool:
    """Whether a failed attempt counts against `max_attempts`. `again`: the attempt before failed alike."""
    return error.counts_as_attempt or again


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` counts the first. `schedule`: seconds before the second, third ... attempt, its last entry repeated; empty: backoff.

    Backoff is `base` x 2^n seconds at most `cap`, with full jitter: evenly between nothing and that, so that jobs that failed together
    do not come back together.
    """

    max_attempts: int
    schedule: tuple[float, ...] = ()
    base: float = 2.0
    cap: float = 300.0

    def decide(self, error: AttemptFailed, tries: int, now: Ms, retry_until: Ms, random: float, *, again: bool = False) -> Decision:
        """What follows after attempt number `tries` of this run failed. `random` is in [0, 1); `retry_until` 0 sets no bound.

        A failure that is not held against the job is followed by another attempt at once. `again`: the attempt before failed alike; then
        it counts like any other, so that nothing goes on for ever.
        """
        if not error.retryable:
            return GiveUp(GiveUpReason.NOT_RETRYABLE)
        counts = counts_as_attempt(error, again=again)
        if counts and tries >= self.max_attempts:
            return GiveUp(GiveUpReason.ATTEMPTS_USED_UP)
        due = now + round(1000 * max(self._pause(tries, random), self._asked_for(error, random))) if counts else now
        if retry_until and due > retry_until:
            return GiveUp(GiveUpReason.TOO_LATE)
        return RetryAt(due)

    def _pause(self, tries: int, random: float) -> float:
        done = max(0, tries - 1)
        if self.schedule:
            return self.schedule[min(done, len(self.schedule) - 1)]
        return random * min(self.cap, self.base * 2.0 ** min(done, 64))  # 2^64 is beyond any cap, and no overflow

    def _asked_for(self, error: AttemptFailed, random: float) -> float:
        """The provider's Retry-After, and a little more: everybody else who waits was told the same second."""
        if not error.retry_after or error.retry_after < 0:
            return 0.0
        return min(MAX_RETRY_AFTER, error.retry_after + random * self.base)
