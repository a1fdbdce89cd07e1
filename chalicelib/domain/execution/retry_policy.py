"""Decide whether a failed attempt is followed by another, and when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.units import Ms

# Seconds. No job waits for longer than the longest `config.retry_for`.
MAX_RETRY_AFTER = 604_800.0


class GiveUpReason(StrEnum):
    """Why no further attempt is made."""

    NOT_RETRYABLE = "not_retryable"  # the same request would fail again
    ATTEMPTS_USED_UP = "attempts_used_up"
    TOO_LATE = "too_late"  # the next attempt would start after `retry_until`


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Make another attempt at `due_ms`."""

    due_ms: Ms


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final."""

    reason: GiveUpReason


Decision = RetryAt | GiveUp


def counts_as_attempt(error: AttemptFailed, *, again: bool) -> bool:
    """Whether a failed attempt counts against `max_attempts`.

    `again`: the previous attempt failed with the same error. Then it counts in any case, so that
    retries end.
    """
    return error.counts_as_attempt or again


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to retry.

    Without a schedule the delay is exponential, `base` x 2^n seconds up to `cap`, with full jitter:
    uniformly distributed between zero and that, so that jobs that failed together do not retry
    together.
    """

    max_attempts: int  # includes the first
    # Seconds before the second, third ... attempt; the last entry repeats.
    schedule: tuple[float, ...] = ()
    base: float = 2.0  # seconds
    cap: float = 300.0  # seconds

    def decide(self, error: AttemptFailed, tries: int, now: Ms, retry_until: Ms, random: float, *, again: bool = False) -> Decision:
        """Return what follows the failure of attempt number `tries` of this run.

        Args:
            error: How the attempt failed. One that does not count as an attempt is retried at once.
            tries: The attempts of this run that count, this one included.
            now: The current time.
            retry_until: The latest start of another attempt; 0: no limit.
            random: A random number in [0, 1), for the jitter.
            again: The previous attempt failed with the same error; see `counts_as_attempt`.
        """
        if not error.retryable:
            return GiveUp(GiveUpReason.NOT_RETRYABLE)
        counts = counts_as_attempt(error, again=again)
        if counts and tries >= self.max_attempts:
            return GiveUp(GiveUpReason.ATTEMPTS_USED_UP)
        due = now + round(1000 * max(self._delay(tries, random), self._retry_after(error, random))) if counts else now
        if retry_until and due > retry_until:
            return GiveUp(GiveUpReason.TOO_LATE)
        return RetryAt(due)

    def _delay(self, tries: int, random: float) -> float:
        previous = max(0, tries - 1)
        if self.schedule:
            return self.schedule[min(previous, len(self.schedule) - 1)]
        # 2^64 exceeds any cap without overflowing.
        return random * min(self.cap, self.base * 2.0 ** min(previous, 64))

    def _retry_after(self, error: AttemptFailed, random: float) -> float:
        """Return the provider's Retry-After plus jitter: all waiting jobs got the same value."""
        if not error.retry_after or error.retry_after < 0:
            return 0.0
        return min(MAX_RETRY_AFTER, error.retry_after + random * self.base)
