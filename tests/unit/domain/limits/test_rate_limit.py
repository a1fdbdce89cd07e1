"""What is learnt about the rate limits of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.limits.rate_limit import (
    FORGOTTEN_MS,
    MAX_LIMIT,
    MAX_UNASKED_MS,
    MAX_WAIT_MS,
    REFRESH_MS,
    UNASKED_MS,
    LimitSource,
    RateLimit,
    configure,
    effective,
    learn_from_headers,
    learn_from_refusal,
    too_large,
)
from chalicelib.domain.limits.sliding_window import added
from chalicelib.domain.rate_headers import LimitHeaders, RateHeaders, Refusal

NOW = 1_763_800_000_000
UNKNOWN = RateLimit(model="gpt-4o", account="a")
KNOWN = replace(UNKNOWN, requests=500, tokens=30_000, source=LimitSource.HEADER, seen_at=NOW, version=3)


def headers(requests: int | None = None, tokens: int | None = None, **fields: float) -> RateHeaders:
    names = {name: int(value) if name == "remaining" else value for name, value in fields.items()}
    return RateHeaders(requests=LimitHeaders(limit=requests, **names), tokens=LimitHeaders(limit=tokens))  # type: ignore[arg-type]


def refused(known: RateLimit, now: int = NOW, accepted: int = 0, **fields: object) -> RateLimit:
    """Learn from a refusal before which `accepted` requests were started in the last minute, evenly."""
    starts = added((), now, 1, 0)  # its own
    for second in range(60):
        starts = added(starts, now - 1000 * second, accepted * (second + 1) // 60 - accepted * second // 60, 0)
    return learn_from_refusal(known, Refusal(**fields), starts, now)  # type: ignore[arg-type]


def test_headers_teach_the_limits() -> None:
    learnt = learn_from_headers(UNKNOWN, headers(500, 30_000), NOW)

    assert (learnt.requests, learnt.tokens, learnt.source, learnt.seen_at, learnt.version) == (500, 30_000, "header", NOW, 1)
    assert (effective(learnt, NOW).requests, effective(learnt, NOW).tokens) == (500, 30_000)


@pytest.mark.parametrize("told", [headers(), headers(500, 30_000), headers(505, 29_700), headers(0, -1), headers(MAX_LIMIT + 1, None)])
def test_headers_that_say_nothing_new_change_nothing(told: RateHeaders) -> None:
    """Azure sends -1 and 0; and not every response is worth a write."""
    assert learn_from_headers(KNOWN, told, NOW + 60_000) is KNOWN


def test_a_limit_that_moved_by_more_than_a_hundredth_is_taken_over() -> None:
    assert learn_from_headers(KNOWN, headers(250, 30_000), NOW).requests == 250
    assert learn_from_headers(KNOWN, headers(500, 31_000), NOW).tokens == 31_000


def test_a_limit_that_headers_confirm_is_written_again_each_day() -> None:
    """Otherwise its record would expire while it is used."""
    assert learn_from_headers(KNOWN, headers(500, 30_000), NOW + REFRESH_MS).seen_at == NOW + REFRESH_MS


def test_the_limit_of_a_day_is_not_taken_for_that_of_a_minute() -> None:
    """Of 10,000 requests a day one was used, which is free again in 8.64 s."""
    assert learn_from_headers(UNKNOWN, headers(10_000, None, remaining=9_999, reset=8.64), NOW) is UNKNOWN
    assert learn_from_headers(UNKNOWN, headers(500, None, remaining=499, reset=0.12), NOW).requests == 500


def test_little_that_remains_lowers_the_pace_for_ten_seconds() -> None:
    learnt = learn_from_headers(KNOWN, headers(500, 30_000, remaining=63), NOW)

    assert effective(learnt, NOW).pace == pytest.approx(0.4)
    assert effective(learnt, NOW + 10_001).pace == 1.0
    assert learn_from_headers(learnt, headers(500, 30_000, remaining=55), NOW + 4_000) is learnt, "nearly the same, a moment later"
    assert learn_from_headers(learnt, headers(500, 30_000, remaining=55), NOW + 5_000).seen_at == NOW + 5_000
    assert learn_from_headers(learnt, headers(500, 30_000, remaining=200), NOW + 1).remaining is None
    assert effective(learn_from_headers(KNOWN, headers(500, 30_000, remaining=0), NOW), NOW).pace == pytest.approx(0.1)


def test_a_refusal_with_numbers_teaches_the_limit_and_blocks_the_model() -> None:
    learnt = refused(KNOWN, kind="tokens", limit=20_000, used=14_567, requested=24_754, wait=18_642)

    assert (learnt.tokens, learnt.requests, learnt.source) == (20_000, 500, "message")
    assert effective(learnt, NOW).blocked_until == NOW + 18_642
    assert effective(learnt, NOW).factor == 1.0


def test_a_refusal_never_shortens_a_wait() -> None:
    learnt = refused(refused(KNOWN, wait=30_000), now=NOW + 1_000, wait=2_000)

    assert learnt.blocked_until == NOW + 30_000


def test_a_refusal_of_a_day_leaves_the_limit_of_the_minute() -> None:
    learnt = refused(KNOWN, accepted=3, kind="requests", limit=200, used=200, requested=1, of_minute=False, wait=432_000)

    assert (learnt.requests, learnt.factor, learnt.blocked_until) == (500, 1.0, NOW + 432_000)


def test_no_wait_is_longer_than_a_day() -> None:
    assert refused(KNOWN, wait=10**15).blocked_until == NOW + MAX_WAIT_MS


def test_a_bare_refusal_uses_nine_tenths_of_what_was_accepted_and_grows_back() -> None:
    learnt = refused(KNOWN, accepted=250)

    assert effective(learnt, NOW).factor == pytest.approx(0.45)
    assert effective(learnt, NOW + 10 * 60_000).factor == pytest.approx(0.55)
    assert effective(learnt, NOW + 60 * 60_000).factor == 1.0
    assert refused(learnt, now=NOW + 9_000, accepted=100).factor == learnt.factor, "it was on its way then"
    assert refused(learnt, now=NOW + 60_000, accepted=500).factor == pytest.approx(0.46 * 0.9), "never more than before"
    assert effective(refused(KNOWN, accepted=99), NOW).factor == 1.0, "that was another limit"


def test_what_was_accepted_between_two_bare_refusals_is_the_limit() -> None:
    """Of the last minute, half was what the provider had saved before the first one."""
    known = refused(KNOWN, accepted=480)
    starts = added(added((), NOW - 10_000, 300, 0), NOW + 15_000, 84, 0)  # 83 in twenty seconds, and the one that is refused
    learnt = learn_from_refusal(known, Refusal(), starts, NOW + 20_000)

    assert effective(known, NOW).factor == pytest.approx(0.96 * 0.9)
    assert effective(learnt, NOW + 20_000).factor == pytest.approx(83 * 3 / 500 * 0.9)


def test_a_bare_refusal_without_known_starts_cuts_nothing() -> None:
    assert learn_from_refusal(KNOWN, Refusal(), (), NOW).factor == 1.0


def test_a_later_refusal_does_not_take_back_what_has_grown() -> None:
    halved, later = refused(KNOWN, accepted=250), NOW + 10 * 60_000
    again = refused(halved, now=later, kind="requests", limit=200, of_minute=False)

    assert effective(again, later).factor == effective(halved, later).factor == pytest.approx(0.55)


def test_the_waits_of_bare_refusals_double_until_an_answer() -> None:
    limit, waits = UNKNOWN, []
    for number in range(8):
        at = NOW + number * 100_000
        limit = refused(limit, now=at)
        waits.append((limit.blocked_until or 0) - at)
    assert waits == [UNASKED_MS << number for number in range(5)] + [MAX_UNASKED_MS] * 3

    answered = learn_from_headers(limit, RateHeaders(), (limit.blocked_until or 0) + 1)
    assert answered.refusals == 0
    assert learn_from_headers(limit, RateHeaders(), (limit.blocked_until or 0) - 1) is limit, "it was on its way before"


def test_requests_that_were_on_their_way_do_not_prolong_a_wait_that_nobody_asked_for() -> None:
    limit = refused(UNKNOWN)

    assert refused(limit, now=NOW + 1_000) is limit


def test_a_header_does_not_raise_what_a_refusal_named() -> None:
    """Some headers name another limit than the one that refuses."""
    learnt = refused(KNOWN, kind="requests", limit=100, used=100, requested=1)

    assert learn_from_headers(learnt, headers(500, None), NOW + 60_000).requests == 100
    assert learn_from_headers(learnt, headers(50, None), NOW + 60_000).requests == 50
    assert learn_from_headers(learnt, headers(500, None), NOW + 600_000).requests == 500


def test_the_headers_of_a_refusal_teach_the_other_limit() -> None:
    told = Refusal(kind="tokens", limit=20_000, used=20_000, requested=1)
    learnt = learn_from_refusal(UNKNOWN, told, 0, NOW, headers(300, 90_000))

    assert (learnt.requests, learnt.tokens, learnt.source) == (300, 20_000, "message")


def test_what_only_a_refusal_named_is_forgotten_after_a_day() -> None:
    learnt = refused(UNKNOWN, kind="requests", limit=100, used=100, requested=1)

    assert effective(learnt, NOW + FORGOTTEN_MS - 1).requests == 100
    assert effective(learnt, NOW + FORGOTTEN_MS).requests is None


def test_the_lower_of_the_configured_and_the_learnt_limit_counts() -> None:
    assert effective(configure(KNOWN, 100, 90_000), NOW).requests == 100
    assert effective(configure(KNOWN, 100, 90_000), NOW).tokens == 30_000
    assert effective(configure(UNKNOWN, 100, None), NOW).requests == 100
    assert configure(KNOWN, None, None) is KNOWN


@pytest.mark.parametrize("value", [0, -1, MAX_LIMIT + 1])
def test_a_limit_that_is_none_cannot_be_configured(value: int) -> None:
    with pytest.raises(ValueError, match="a whole number from 1"):
        configure(UNKNOWN, value, None)


def test_the_source_of_a_setting_goes_with_it() -> None:
    assert configure(UNKNOWN, 100, None).source is LimitSource.SETTING
    assert configure(configure(UNKNOWN, 100, None), None, None).source is None
    assert configure(configure(KNOWN, 100, None), None, None).source is LimitSource.HEADER


def test_a_request_above_the_limit_alone_names_both_numbers() -> None:
    found = too_large(KNOWN, 30_001, NOW)

    assert found is not None
    assert (found.limit, found.requested) == (30_000, 30_001)
    assert "30,000" in str(found)
    assert "30,001" in str(found)
    assert too_large(KNOWN, 30_000, NOW) is None
    assert too_large(UNKNOWN, 10**9, NOW) is None


def test_a_lowered_factor_makes_no_request_too_large() -> None:
    assert too_large(refused(KNOWN, accepted=100), 30_000, NOW) is None


def test_several_windows_share_the_limits() -> None:
    shared = replace(KNOWN, requests=100_001, windows=4)

    assert effective(shared, NOW).requests == 25_000
    assert effective(shared, NOW).tokens == 7_500
    assert too_large(shared, 7_501, NOW) is not None
    assert effective(replace(KNOWN, requests=2, windows=4), NOW).requests == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda reduced: learn_from_headers(reduced, headers(250, 30_000), NOW),
        lambda reduced: configure(reduced, 250, None),
    ],
    ids=["the provider", "an operator"],
)
def test_a_new_number_of_a_limit_begins_without_what_refusals_of_the_old_one_have_shown(change: Callable[[RateLimit], RateLimit]) -> None:
    """Otherwise it would be reduced twice."""
    reduced = refused(KNOWN, accepted=250)
    assert reduced.factor < 0.5
    assert change(reduced).factor == 1.0


def test_a_refusal_with_a_new_number_in_its_headers_is_measured_by_that() -> None:
    starts = added((), NOW, 251, 0)
    learnt = learn_from_refusal(KNOWN, Refusal(), starts, NOW, headers(250, 30_000))
    assert (learnt.requests, learnt.factor) == (250, pytest.approx(0.9))
