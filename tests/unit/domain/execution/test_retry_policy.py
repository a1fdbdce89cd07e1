"""Retry decisions as tables, and properties of every failure."""

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
    decision = policy.decide(error, tries, NOW, NOW + 7 * DAY, random)
    assert isinstance(decision, RetryAt), decision
    return (decision.due_ms - NOW) / 1000


@pytest.mark.parametrize(
    ("tries", "random", "seconds"),
    [
        (1, 0.0, 0.0),  # full jitter starts at zero
        (1, 0.5, 1.0),
        (1, 0.999, 1.998),
        (2, 0.5, 2.0),
        (3, 0.5, 4.0),
        (8, 0.5, 128.0),
        (9, 0.5, 150.0),  # 512 s is over the cap of 300 s
        (19, 0.5, 150.0),
    ],
)
def test_backoff_is_exponential_with_full_jitter_and_a_cap(tries: int, random: float, seconds: float) -> None:
    assert _seconds(BACKOFF, failures.StreamCut(), tries, random) == pytest.approx(seconds)


@pytest.mark.parametrize(("tries", "seconds"), [(1, 60), (2, 300), (3, 1800), (4, 1800)])
def test_schedule_is_followed_and_its_last_entry_repeated(tries: int, seconds: float) -> None:
    """A scheduled delay has no jitter."""
    assert _seconds(SCHEDULE, failures.ProviderUnavailable(), tries) == seconds


@pytest.mark.parametrize(
    ("policy", "retry_after", "tries", "seconds"),
    [
        (BACKOFF, 30, 1, 31.0),  # honoured, with a jitter of two seconds
        (BACKOFF, 5, 8, 128.0),  # the backoff is longer
        (BACKOFF, 3_600, 1, 3_601.0),  # for as long as was asked
        (BACKOFF, 4 * 86_400, 1, 4 * 86_400 + 1.0),
        (BACKOFF, 10 * 86_400, 1, 7 * 86_400.0),  # capped at the longest `config.retry_for`
        (BACKOFF, 0, 1, 1.0),
        (BACKOFF, -4, 1, 1.0),  # a negative value is ignored
        (BACKOFF, None, 1, 1.0),
        (SCHEDULE, 100, 1, 101.0),
        (SCHEDULE, 100, 2, 300.0),
    ],
)
def test_retry_after_is_a_capped_lower_bound(policy: RetryPolicy, retry_after: int | None, tries: int, seconds: float) -> None:
    """Jitter is added, because other jobs received the same Retry-After."""
    assert _seconds(policy, LIMITED(retry_after=retry_after), tries) == seconds


@pytest.mark.parametrize(
    ("error", "tries", "until", "reason"),
    [
        (failures.ContentRefused(), 1, NOW + DAY, GiveUpReason.NOT_RETRYABLE),
        (failures.ProviderQuotaExhausted(retry_after=1), 1, NOW + DAY, GiveUpReason.NOT_RETRYABLE),  # although it names a delay
        (failures.NotConfigured(), 20, NOW, GiveUpReason.NOT_RETRYABLE),  # the permanent reason is given
        (failures.StreamCut(), 20, NOW + DAY, GiveUpReason.ATTEMPTS_USED_UP),
        (failures.StreamCut(), 21, NOW + DAY, GiveUpReason.ATTEMPTS_USED_UP),
        (failures.StreamCut(), 1, NOW + 999, GiveUpReason.TOO_LATE),  # it would be due one millisecond later
        (failures.StreamCut(), 1, NOW - 1, GiveUpReason.TOO_LATE),
    ],
)
def test_gives_up_when_not_retryable_out_of_attempts_or_too_late(
    error: failures.AttemptFailed, tries: int, until: int, reason: GiveUpReason
) -> None:
    assert BACKOFF.decide(error, tries, NOW, until, 0.5) == GiveUp(reason)


def test_retry_may_be_due_exactly_at_retry_until() -> None:
    """A bound of 0 means no bound."""
    assert BACKOFF.decide(failures.StreamCut(), 1, NOW, NOW + 1000, 0.5) == RetryAt(NOW + 1000)
    assert BACKOFF.decide(failures.StreamCut(), 1, NOW, 0, 0.5) == RetryAt(NOW + 1000)


@given(tries=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True), after=st.none() | st.integers(-10, 10**9))
def test_due_time_is_between_now_and_the_longest_delay(tries: int, random: float, after: int | None) -> None:
    decision = RetryPolicy(max_attempts=100_000).decide(LIMITED(retry_after=after), tries, NOW, 0, random)

    assert isinstance(decision, RetryAt)
    assert NOW <= decision.due_ms <= NOW + 7 * DAY


@pytest.mark.parametrize("error", [failures.WorkerShutdown(), failures.ResponseLost()])
def test_uncounted_failure_is_retried_at_once(error: failures.AttemptFailed) -> None:
    """The second such failure in a row counts, so the retries end."""
    policy = RetryPolicy(max_attempts=1, schedule=(60,))

    assert policy.decide(error, 1, NOW, NOW + DAY, 0.5) == RetryAt(NOW)
    assert policy.decide(error, 1, NOW, NOW + DAY, 0.5, again=True) == GiveUp(GiveUpReason.ATTEMPTS_USED_UP)
    assert policy.decide(error, 1, NOW, NOW - 1, 0.5) == GiveUp(GiveUpReason.TOO_LATE)
