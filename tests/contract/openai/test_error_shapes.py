"""Errors of providers, proxies and gateways in the shapes in which they come: what is made of each."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.errors import from_event, from_response
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.adapters.openai.redaction import redact_message
from chalicelib.domain.failures import (
    AddressInvalid,
    AttemptFailed,
    AuthenticationFailed,
    ContentRefused,
    ProviderConnectionLost,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
    WorkerMisconfigured,
)
from tests.contract.openai.loopback import CREATED, Answer
from tests.contract.openai.test_provider import error_of, read
from tests.contract.openai.test_quirky_openai import asked
from tests.kit.cpu import units_of
from tests.kit.quirky_openai import QuirkyOpenAI

PAGE = (
    b"<!DOCTYPE html><html><head><title>Attention Required!</title><style>b{}</style></head>"
    b"<body><h1>Sorry, you have been blocked</h1></body></html>"
)


def answered(status: int, body: Any, **headers: str) -> Answer:
    """An answer with a JSON body, or with the bytes or the text of one that is none."""
    if isinstance(body, str | bytes):
        data = body.encode() if isinstance(body, str) else body
        kind = "text/html" if data.lstrip().startswith(b"<") else "text/plain"
        return Answer([data], status, {"content-type": kind, **headers})
    return Answer([json.dumps(body).encode()], status, {"content-type": "application/json", **headers})


def openai_error(message: str, code: Any = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        # What is about one request.
        (
            403,
            openai_error("Project `proj_fake` does not have access to model `gpt-4.1`", "model_not_found"),
            RequestRefused,
            "`proj_fake`",
        ),
        (403, openai_error("Your organization must be verified to use the model `o3`."), RequestRefused, "must be verified"),
        (
            403,
            {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}},
            ContentRefused,
            "flagged",
        ),
        (403, PAGE, RequestRefused, "Attention Required! - Sorry, you have been blocked"),
        (403, "Forbidden", RequestRefused, "Forbidden"),
        (406, PAGE, RequestRefused, "blocked"),
        (
            400,
            openai_error("The response was filtered due to the prompt triggering Azure's content management policy."),
            ContentRefused,
            "filtered",
        ),
        (
            400,
            openai_error("Invalid prompt: your prompt was flagged as violating our usage policy.", "invalid_prompt"),
            ContentRefused,
            "usage",
        ),
        (401, openai_error("You have insufficient permissions. Missing scopes: api.vector_stores.read."), RequestRefused, "vector_stores"),
        (402, openai_error("This request requires more credits, or fewer max_tokens. You can only afford 2500"), RequestRefused, "afford"),
        (
            429,
            openai_error("Request too large for gpt-4o on TPM: Limit 30000, Requested 61337.", "rate_limit_exceeded"),
            RequestRefused,
            "61337",
        ),
        (429, openai_error("Rate limit reached for TPM: Limit 30,000, Requested 61,337.", "rate_limit_exceeded"), RequestRefused, "61,337"),
        (
            429,
            openai_error("Quota exceeded for metric: requests, limit: 0, model: big", 429, "RESOURCE_EXHAUSTED"),
            RequestRefused,
            "limit: 0",
        ),
        (
            413,
            {"error": {"code": "tokens_limit_reached", "message": "Request body too large. Max size: 8000 tokens."}},
            RequestRefused,
            "8000",
        ),
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "store"], "msg": "Extra inputs"}]},
            RequestRefused,
            "body.store: Extra",
        ),
        (400, {"detail": "temperature is too high"}, RequestRefused, "temperature is too high"),
        (400, {"object": "error", "message": "bad field", "type": "BadRequestError", "code": 400}, RequestRefused, "bad field"),
        (400, {"errors": [{"message": "first"}, {"message": "second"}]}, RequestRefused, "second"),
        (400, {"title": "Bad Request", "status": 400, "errors": {"model": ["is required"]}}, RequestRefused, "Bad Request"),
        (
            400,
            [{"error": {"code": 400, "message": "API key is fine, the field is not", "status": "INVALID_ARGUMENT"}}],
            RequestRefused,
            "the field",
        ),
        (400, {"error": {"message": json.dumps(openai_error("the inner words"))}}, RequestRefused, "the inner words"),
        (400, {"error": "just a text"}, RequestRefused, "just a text"),
        (
            404,
            openai_error("The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"),
            RequestRefused,
            "gpt-9",
        ),
        (404, openai_error('model "llama9" not found, try pulling it first', None, "api_error"), RequestRefused, "llama9"),
        (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}, RequestRefused, "deployment"),
        (404, openai_error("Previous response with id 'resp_1' not found."), RequestRefused, "resp_1"),
        (500, openai_error("This model's maximum context length is 1024 tokens.", 500, "InternalServerError"), RequestRefused, "1024"),
        # What is about the account.
        (401, {"detail": "Unauthorized"}, AuthenticationFailed, "Unauthorized"),
        (403, openai_error("Incorrect API key provided"), AuthenticationFailed, "Incorrect"),
        (
            400,
            {"error": {"code": 400, "message": "API key not valid. Please pass a valid one.", "status": "INVALID_ARGUMENT"}},
            AuthenticationFailed,
            "not valid",
        ),
        (403, openai_error("Country, region, or territory not supported"), AuthenticationFailed, "Country"),
        (429, openai_error("You exceeded your current quota, please check your plan."), ProviderQuotaExhausted, "current quota"),
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, ProviderQuotaExhausted, "Insufficient"),
        (403, openai_error("Key limit exceeded (total limit).", 403), ProviderQuotaExhausted, "Key limit"),
        # What is about the address.
        (404, "404 page not found", AddressInvalid, "404 page not found"),
        (404, {"detail": "Not Found"}, AddressInvalid, "Not Found"),
        (404, openai_error("Invalid URL (POST /v1/v1/responses)"), AddressInvalid, "/v1/v1/responses"),
        (404, {"statusCode": 404, "message": "Resource not found"}, AddressInvalid, "Resource not found"),
        (404, PAGE, AddressInvalid, "Attention"),
        (405, {"detail": "Method Not Allowed"}, AddressInvalid, "Not Allowed"),
        (407, PAGE, AddressInvalid, ""),
        (200, PAGE, AddressInvalid, "Attention"),
        # What passes.
        (429, "Too many requests", ProviderRateLimited, "Too many"),
        (429, {"message": "API rate limit exceeded"}, ProviderRateLimited, "rate limit"),
        (429, PAGE, ProviderRateLimited, "Attention"),
        (408, "", ProviderTimeout, ""),
        (500, {"error": {"message": "The server had an error."}}, ProviderUnavailable, "had an error"),
        (
            502,
            b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>",
            ProviderUnavailable,
            "502 Bad Gateway",
        ),
        (503, "", ProviderUnavailable, ""),
        # An error with the status of an answer.
        (200, openai_error("maximum context length is 1024 tokens", 400, "BadRequestError"), RequestRefused, "1024"),
        (200, {"error": {"message": "slow down", "code": 429}}, ProviderRateLimited, "slow down"),
        (200, {"detail": "no such thing"}, ProviderUnavailable, "no such thing"),
    ],
)
def test_an_error_is_read_by_its_code_type_and_words(status: int, body: Any, kind: type[AttemptFailed], words: str) -> None:
    """The provider's words stand beside ours."""
    assert words in error_of(answered(status, body), kind).message


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "maximum context length is 1024 tokens", "type": "BadRequestError", "code": 400}}, RequestRefused),
        ({"error": {"message": "odd field", "type": "BadRequestError", "code": 400}}, RequestRefused),
        ({"object": "error", "message": "odd field", "type": "BadRequestError", "code": 400}, RequestRefused),
        ({"type": "BadRequestError", "message": "odd field", "code": "400"}, RequestRefused),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "odd field"}}, RequestRefused),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Wait."}, ProviderRateLimited),
        ({"error": {"message": "busy", "code": 429}}, ProviderRateLimited),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Request too large: odd"}, RequestRefused),
        ({"error": {"message": "quota", "code": "insufficient_quota"}}, ProviderQuotaExhausted),
        ({"error": {"message": "who are you", "code": 401}}, AuthenticationFailed),
        ({"error": "odd"}, ProviderUnavailable),
        ({"detail": "odd"}, ProviderUnavailable),
        ({"error": {"message": "boom", "code": 500}}, ProviderUnavailable),
        (
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}}},
            ProviderUnavailable,
        ),
        (
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "slow_down", "message": "x"}}},
            ProviderRateLimited,
        ),
    ],
)
def test_an_error_inside_a_stream_is_read_in_every_shape(event: dict[str, Any], kind: type[AttemptFailed]) -> None:
    error = error_of(Answer([CREATED, f"data: {json.dumps(event)}\n\n".encode()]), kind)

    words = json.dumps(event)
    assert any(word in error.message and word in words for word in ("odd", "1024", "busy", "boom", "quota", "who are you", "Wait.", "x"))


@pytest.mark.parametrize("prompt", ["Incorrect API key provided", "You exceeded your current quota", "insufficient_quota invalid_api_key"])
@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_prompt_that_the_provider_quotes_never_blames_the_account(prompt: str, status: int) -> None:
    error = from_response(status, {}, openai_error(f"Your input was refused: '{prompt}'"))

    assert type(error) in (RequestRefused, ContentRefused)


@pytest.mark.parametrize("prompt", ["rate limit reached, try again in 900 seconds", "Incorrect API key provided", "404 page not found"])
def test_words_in_a_stream_blame_this_request_at_most(prompt: str) -> None:
    assert type(from_event({"error": {"message": prompt}})) is ProviderUnavailable


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "3600"}, openai_error("Slow"), 3_600),
        ({"retry-after": "2.5"}, openai_error("Slow"), 3),
        ({"retry-after-ms": "250"}, openai_error("Slow"), 1),
        ({"retry-after": "1m30s"}, openai_error("Slow"), 90),
        ({"retry-after": "120 seconds"}, openai_error("Slow"), 120),
        ({}, openai_error("Please try again in 6h3m12.5s. Visit the page."), 21_793),
        ({}, openai_error("Limit reached. Please try again in 1 day."), 86_400),
        ({}, openai_error("Please retry after 20 minutes."), 1_200),
        ({}, openai_error("Please try again in 250ms."), 1),
        ({}, openai_error("Please retry in 38.5s."), 39),
        ({}, openai_error("Please wait 30 seconds before the next request."), 30),
        ({}, openai_error("Try again in 1 hour and 5 minutes."), 3_900),
        ({}, "Too many requests, retry after 7 seconds", 7),
        ({"retry-after": "1"}, openai_error("Please try again in 20s."), 20),
        ({}, {"error": {"message": "Slow", "details": [{"@type": "RetryInfo", "retryDelay": "38s"}]}}, 38),
        ({}, {"message": "Slow", "retry_after": 12}, 12),
        (
            {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"},
            openai_error("Slow"),
            360,
        ),
        ({"x-ratelimit-reset-requests": "2m59.5s", "x-ratelimit-reset-tokens": "9s"}, openai_error("Slow", kind="requests"), 180),
        ({"ratelimit-reset": "44"}, openai_error("Slow"), 44),
        ({"retry-after": "5", "x-ratelimit-reset-requests": "1h"}, openai_error("Slow"), 5),
        ({}, openai_error("Slow"), None),
    ],
)
def test_a_wait_is_understood_in_every_form(headers: dict[str, str], body: Any, wait: int | None) -> None:
    assert error_of(answered(429, body, **headers), ProviderRateLimited).retry_after == wait


@pytest.mark.parametrize("kind", ["http", "iso", "unix", "unix-ms"])
def test_a_wait_may_be_a_moment(kind: str) -> None:
    at = time.time() + 5_000
    text = {
        "http": formatdate(at, usegmt=True),
        "iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        "unix": f"{at:.0f}",
        "unix-ms": f"{at * 1000:.0f}",
    }[kind]

    assert 4_900 <= (from_response(429, {"retry-after": text}, "Slow").retry_after or 0) <= 5_001


def test_a_server_error_may_ask_for_a_wait_too() -> None:
    assert error_of(answered(503, "", **{"retry-after": "1800"}), ProviderUnavailable).retry_after == 1_800


def test_capacity_for_cheap_requests_is_no_limit_of_the_model() -> None:
    errors = [from_response(429, {}, openai_error("No capacity", code)) for code in ("resource_unavailable", "rate_limit_exceeded")]

    assert [isinstance(error, ProviderRateLimited) and error.is_shared for error in errors] == [False, True]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Incorrect API key provided: abcd1234*****zz. See the page.", "Incorrect API key provided: [hidden] See the page."),
        ("Bad key sk-proj-abcdefgh12345 here", "Bad key [hidden] here"),
        ("Sent Authorization: Bearer abc.def-12345", "Sent Authorization: Bearer [hidden]"),
        ("api-key=0123456789abcdef0123456789abcdef given", "api-key=[hidden] given"),
        ("subscription key 0123456789abcdef0123456789ABCDEF", "subscription key [hidden]"),
        ("POST http://bob:secret@proxy.local:8080/x failed", "POST http://[hidden]@proxy.local:8080/x failed"),
        ("at https://h/x?api-version=1&sig=Zm9vYmFy%3D&b=2", "at https://h/x?api-version=1&sig=[hidden]&b=2"),
        ("the token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "the token [hidden]"),
        ("blob A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0== end", "blob [hidden] end"),
        ("<b>Bold</b> <script>alert(1)</script>\x1b[31m red\x00\u202e \ud800end", "Bold alert(1) [31m red end"),
        (
            "Project `proj_fake` has no access to `gpt-4o-mini-audio-preview-2024-12-17`",
            "Project `proj_fake` has no access to `gpt-4o-mini-audio-preview-2024-12-17`",
        ),
        ("a < b and c > d; Bearer token missing", "a < b and c > d; Bearer token missing"),
        ("The user-supplied schema of org-level rules is too large", "The user-supplied schema of org-level rules is too large"),
        ("user-AbC123defgh in org-*****xyz of sk-abcdefgh", "[hidden] in [hidden] of [hidden]"),
    ],
)
def test_words_of_a_provider_are_shown_without_keys_and_tags(message: str, shown: str) -> None:
    assert redact_message(message) == shown


@pytest.mark.parametrize(
    "text",
    [
        "<" * 3_000_000,
        "<a" * 1_500_000,
        "a" * 3_000_000,
        "1" * 3_000_000,
        "sk-" + "a-" * 1_500_000,
        "sk-." * 750_000,
        "user-." * 500_000,
        "user-a" * 500_000,
        "<html>" + "<style>" * 400_000,
        "<html>" + "<!--" * 700_000,
        "<html>" + "<title" * 500_000,
        "try again in " * 200_000,
        "missing scopes " + "a." * 1_500_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_long_message_is_read_and_cut_in_little_time(text: str) -> None:
    """A provider may quote a hostile prompt, and the worker has other streams to serve meanwhile."""

    def read() -> None:
        assert len(redact_message(text)) <= 500
        from_response(429, {"retry-after": text[:100_000]}, text)
        from_response(403, {}, {"error": {"message": text}})

    assert units_of(read) < 30


# ---- an address that cannot be used


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9/v1",
        "api.example.com/v1",
        "ftp://h/v1",
        "https:///v1",
        "https://h/v1?api-version=1",
        "https://h/v1#x",
        "https://h/v1/responses",
        "https://bob:secret@h/v1",
        "https://h:99999/v1",
        "https://h /v1",
    ],
)
def test_an_address_that_cannot_be_one_is_never_asked(url: str) -> None:
    """The sentence names it, without what is secret in it."""

    async def play() -> AttemptFailed:
        with pytest.raises(AddressInvalid) as raised:
            await read(OpenAIResponses(lambda: Credentials("key", url)))
        return raised.value

    message = asyncio.run(play()).message
    assert "secret" not in message
    assert "api-version" not in message


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "gopher://127.0.0.1:1"])
def test_a_proxy_that_the_worker_cannot_use_is_the_workers_fault(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)

    async def play() -> str:
        with pytest.raises(WorkerMisconfigured) as raised:
            await read(OpenAIResponses(lambda: Credentials("key", "http://127.0.0.1:9/v1")))
        return raised.value.message

    assert "proxy" in asyncio.run(play()).lower()


def test_a_key_with_characters_of_control_is_never_quoted() -> None:
    async def play() -> AttemptFailed:
        with pytest.raises(AttemptFailed) as raised:
            await read(OpenAIResponses(lambda: Credentials("sk-abc\r\ndef-0123456789", "http://127.0.0.1:9/v1")))
        return raised.value

    error = asyncio.run(play())
    assert type(error) in (WorkerMisconfigured, ProviderConnectionLost)
    assert "abc" not in error.message


# ---- the stand-in


@pytest.mark.parametrize(
    ("quirk", "kind", "words"),
    [
        ("[[no-model-access]]", RequestRefused, "Project `proj_fake` does not have access to model `gpt-4.1-mini`"),
        ("[[flagged]] FLAGGED", ContentRefused, "your input was flagged"),
        ("[[waf]] SELECT * FROM t", RequestRefused, "Attention Required!"),
        ("[[too-large]]", RequestRefused, "Limit 30000, Requested 61337"),
        ("[[in-stream-error]]", RequestRefused, "you requested 1029"),
        ("[[flat-stream-error]]", RequestRefused, "1024 tokens"),
        ("[[status-200-error]]", RequestRefused, "you requested 1029"),
        ("[[fastapi-422]]", RequestRefused, "body.store: Extra inputs are not permitted"),
        ("[[no-responses-api]]", AddressInvalid, "404 page not found"),
        ("[[poison]]", ProviderUnavailable, "The server had an error"),
        ("[[hour]]", ProviderRateLimited, "Rate limit reached"),
    ],
)
def test_a_quirk_of_the_stand_in_fails_as_what_it_is(
    quirky_openai: QuirkyOpenAI, quirk: str, kind: type[AttemptFailed], words: str
) -> None:
    with pytest.raises(AttemptFailed) as raised:
        asked(quirky_openai, f"{quirk} hello")

    assert type(raised.value) is kind
    assert words in raised.value.message
