"""Retry: a table of decisions, and what holds for every failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import failures
from chalicelib.domain.execution.retry_policy import GiveUp, GiveUpReason, RetryAt, RetryPolicy

NOW = 1_000_000_000_000
DAY = 86_400_000
BACKOFF = RetryPolicy(max_attempts=20)
SCHEDULE = RetryPolicy(max_attempts=5, schedule=(60, 300, 1800))
LIMITED = failures.ProviderRateLimited


def _seconds(policy: RetryPolicy, error: failures.AttemptFailed, tries: int, random: float = 0.5) -> float:
    decision = policy.decide(error, tries, NOW, NOW + DAY, random)
    assert isinstance(decision, RetryAt), decision
    return (decision.due_ms - NOW) / 1000


@pytest.mark.parametrize(
    ("tries", "random", "seconds"),
    [
        (1, 0.0, 0.0),  # full jitter starts at nothing
        (1, 0.5, 1.0),
        (1, 0.999, 1.998),
        (2, 0.5, 2.0),
        (3, 0.5, 4.0),
        (8, 0.5, 128.0),
        (9, 0.5, 150.0),  # 512 s is over the cap of 300 s
        (19, 0.5, 150.0),
    ],
)
def test_backoff(tries: int, random: float, seconds: float) -> None:
    """Without a schedule the pause is a part of 2 s x 2^n, at most 300 s."""
    assert _seconds(BACKOFF, failures.StreamCut(), tries, random) == pytest.approx(seconds)


@pytest.mark.parametrize(("tries", "seconds"), [(1, 60), (2, 300), (3, 1800), (4, 1800)])
def test_schedule(tries: int, seconds: float) -> None:
    """A type's own schedule is followed to the second, and its last entry repeated."""
    assert _seconds(SCHEDULE, failures.ProviderUnavailable(), tries) == seconds


@pytest.mark.parametrize(
    ("policy", "retry_after", "tries", "seconds"),
    [
        (BACKOFF, 30, 1, 31.0),  # obeyed, spread over the next two seconds
        (BACKOFF, 5, 8, 128.0),  # our own pause is longer
        (BACKOFF, 86_400, 1, 900.0),  # capped
        (BACKOFF, 0, 1, 1.0),
        (BACKOFF, -4, 1, 1.0),  # nonsense is ignored
        (BACKOFF, None, 1, 1.0),
        (SCHEDULE, 100, 1, 101.0),
        (SCHEDULE, 100, 2, 300.0),
    ],
)
def test_retry_after(policy: RetryPolicy, retry_after: int | None, tries: int, seconds: float) -> None:
    """What the provider asks for is a lower bound, up to 900 s."""
    assert _seconds(policy, LIMITED(retry_after=retry_after), tries) == seconds


@pytest.mark.parametrize(
    ("error", "tries", "until", "why"),
    [
        (failures.ContentRefused(), 1, NOW + DAY, GiveUpReason.NOT_RETRYABLE),
        (failures.ProviderQuotaExhausted(retry_after=1), 1, NOW + DAY, GiveUpReason.NOT_RETRYABLE),  # whatever it asks for
        (failures.NotConfigured(), 20, NOW, GiveUpReason.NOT_RETRYABLE),  # the reason that would stay is the one that is told
        (failures.StreamCut(), 20, NOW + DAY, GiveUpReason.ATTEMPTS_USED_UP),
        (failures.StreamCut(), 21, NOW + DAY, GiveUpReason.ATTEMPTS_USED_UP),
        (failures.StreamCut(), 1, NOW + 999, GiveUpReason.TOO_LATE),  # it would be due one millisecond later
        (failures.StreamCut(), 1, NOW - 1, GiveUpReason.TOO_LATE),
    ],
)
def test_gives_up(error: failures.AttemptFailed, tries: int, until: int, why: GiveUpReason) -> None:
    """No other attempt where none would help, none is left, or it would begin too late."""
    assert BACKOFF.decide(error, tries, NOW, until, 0.5) == GiveUp(why)


def test_the_last_moment_counts() -> None:
    """An attempt may begin exactly at `retry_until`; 0 sets no bound."""
    assert BACKOFF.decide(failures.StreamCut(), 1, NOW, NOW + 1000, 0.5) == RetryAt(NOW + 1000)
    assert BACKOFF.decide(failures.StreamCut(), 1, NOW, 0, 0.5) == RetryAt(NOW + 1000)


@given(tries=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True), after=st.none() | st.integers(-10, 10**9))
def test_never_in_the_past_nor_beyond_the_caps(tries: int, random: float, after: int | None) -> None:
    """Whatever happens, the next attempt is due between now and the longest pause."""
    decision = RetryPolicy(max_attempts=100_000).decide(LIMITED(retry_after=after), tries, NOW, 0, random)

    assert isinstance(decision, RetryAt)
    assert NOW <= decision.due_ms <= NOW + 900_000


@pytest.mark.parametrize("error", [failures.WorkerShutdown(), failures.ResponseLost()])
def test_what_is_not_held_against_a_job_is_tried_again_at_once(error: failures.AttemptFailed) -> None:
    """Even on the last try, and whatever the schedule says; the second time in a row it counts, so that it comes to an end."""
    policy = RetryPolicy(max_attempts=1, schedule=(60,))

    assert policy.decide(error, 1, NOW, NOW + DAY, 0.5) == RetryAt(NOW)
    assert policy.decide(error, 1, NOW, NOW + DAY, 0.5, again=True) == GiveUp(GiveUpReason.ATTEMPTS_USED_UP)
    assert policy.decide(error, 1, NOW, NOW - 1, 0.5) == GiveUp(GiveUpReason.TOO_LATE)
