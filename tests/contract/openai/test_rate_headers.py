"""What responses of OpenAI and of compatible servers say about rate limits."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from chalicelib.adapters.openai.errors import from_event, from_response
from chalicelib.adapters.openai.rate_headers import rate_headers_of, refusal_of
from chalicelib.domain.failures import ProviderRateLimited
from chalicelib.domain.limits.rate_limit import RateLimit, learn_from_headers, learn_from_refusal
from chalicelib.domain.rate_headers import LimitHeaders, RateHeaders, Refusal
from chalicelib.ports import ResponseStarted
from tests.contract.openai.loopback import CREATED, Answer, completed, delta, refused
from tests.contract.openai.test_provider import error_of, played, read

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-remaining-tokens": "29976",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-reset-tokens": "48ms",
}
TOLD = RateHeaders(
    requests=LimitHeaders(limit=500, remaining=499, reset=0.12), tokens=LimitHeaders(limit=30_000, remaining=29_976, reset=0.048)
)
TPM = (
    "Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. "
    "Please try again in 18.642s. Visit https://platform.openai.com/account/rate-limits to learn more."
)


def events_with(headers: dict[str, str], *steps: bytes) -> list[Any]:
    return played(Answer(list(steps), headers=headers), play=lambda _, provider: read(provider))


def test_the_first_event_of_a_stream_has_the_headers() -> None:
    seen = events_with(OPENAI, CREATED, delta("Hello", 1), completed())

    assert seen[0] == ResponseStarted("resp_1", "gpt-4o-mini-2024-07-18", TOLD)


def test_a_whole_response_has_the_headers_too() -> None:
    body = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "output_text": "Hi", "usage": {}}
    seen = events_with({**OPENAI, "content-type": "application/json"}, json.dumps(body).encode())

    assert isinstance(seen[0], ResponseStarted)
    assert seen[0].rate == TOLD


def test_a_response_without_such_headers_says_nothing() -> None:
    assert events_with({}, CREATED, completed())[0].rate is None


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, None),
        ({"x-ratelimit-limit-requests": "0", "x-ratelimit-limit-tokens": "-1"}, None),
        ({"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "1.5"}, None),
        ({"x-ratelimit-limit-requests": "9" * 30}, None),
        ({"x-ratelimit-limit-requests": " 500;w=60"}, RateHeaders(requests=LimitHeaders(limit=500))),
        ({"x-ratelimit-remaining-tokens": "0"}, RateHeaders(tokens=LimitHeaders(remaining=0))),
        ({"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "5"}, RateHeaders(tokens=LimitHeaders(remaining=5))),
        (
            {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-limit-project-tokens": "9000", "x-ratelimit-reset-project-tokens": "1m3s"},
            RateHeaders(tokens=LimitHeaders(limit=9_000, reset=63.0)),
        ),
    ],
)
def test_headers_of_other_servers_are_read_or_ignored(headers: dict[str, str], told: RateHeaders | None) -> None:
    assert rate_headers_of(headers) == told


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (TPM, Refusal(kind="tokens", limit=30_000, used=14_567, requested=24_754, wait=19_000)),
        (
            "Rate limit reached for x on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in 120ms.",
            Refusal(kind="requests", limit=500, used=500, requested=1, wait=19_000),
        ),
        (
            "Rate limit reached for x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            Refusal(kind="requests", limit=200, used=200, requested=1, of_minute=False, wait=19_000),
        ),
        (
            "Rate limit reached for default-gpt-3.5-turbo on requests per min. Limit: 3 / min. Please try again in 20s.",
            Refusal(kind="requests", limit=3, wait=19_000),
        ),
        ("Limit reached on tokens per minute: Limit: 1,000,000, Used: 2", Refusal(kind="tokens", limit=1_000_000, used=2, wait=19_000)),
        ("on input tokens per min (ITPM): Limit 3000, Used 3, Requested 1", Refusal(wait=19_000)),
        ("Your requests to gpt-4 have exceeded the token rate limit of your current AIServices S0 pricing tier.", Refusal(wait=19_000)),
        ("Rate limit: 5 requests per min. 'on tokens per min, ignore the Limit 1'", Refusal(wait=19_000)),
        ("tokens per min (TPM): Limit 0, Used 0", Refusal(kind="tokens", used=0, wait=19_000)),
        ("", Refusal(wait=19_000)),
    ],
)
def test_the_numbers_of_a_refusal_are_read(message: str, said: Refusal) -> None:
    assert refusal_of(message, 19) == said


def test_a_refused_request_has_numbers_and_headers() -> None:
    error = error_of(refused(429, message=TPM, code="rate_limit_exceeded", type="tokens", headers=OPENAI), ProviderRateLimited)

    assert error.refusal == Refusal(kind="tokens", limit=30_000, used=14_567, requested=24_754, wait=19_000)
    assert error.rate == TOLD


def test_a_refusal_in_a_stream_has_its_numbers() -> None:
    error = from_event({"code": "rate_limit_exceeded", "message": TPM})

    assert isinstance(error, ProviderRateLimited)
    assert (error.refusal.limit, error.rate) == (30_000, None)


def test_a_refusal_without_words_has_no_numbers() -> None:
    error = from_response(429, {}, "")

    assert isinstance(error, ProviderRateLimited)
    assert error.refusal == Refusal()


@pytest.mark.parametrize("part", ["requests per min ", "tokens per a (A)  limit 1", "limit 9, used ", " " * 40, "1,"])
def test_hostile_words_are_read_in_linear_time(part: str) -> None:
    def seconds(length: int) -> float:
        text = part * (length // len(part))
        began = time.process_time()
        refusal_of(text, None)
        return time.process_time() - began

    assert min(seconds(80_000) for _ in range(3)) <= 40 * max(min(seconds(8_000) for _ in range(3)), 0.000_5)


def test_what_is_read_teaches_the_limits_of_the_model() -> None:
    now = 1_763_800_000_000
    limit = learn_from_headers(RateLimit(model="gpt-4o"), TOLD, now)
    limit = learn_from_refusal(limit, refusal_of(TPM.replace("Limit 30000", "Limit 20000"), 19), (), now + 1)

    assert (limit.requests, limit.tokens, limit.blocked_until) == (500, 20_000, now + 19_001)
