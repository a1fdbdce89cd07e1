"""Errors of providers, proxies and gateways in the shapes in which they come: what is made of each."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import httpx2
import openai
import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.errors import from_event, from_exception, from_response
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
from tests.contract.openai.loopback import CREATED, Answer, Loopback
from tests.contract.openai.test_provider import error_of, played, read
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


def model_denied(message: str, kind: str) -> dict[str, Any]:
    """LiteLLM's answer for a model that this key may not use; the key is right."""
    return {"error": {"message": message, "type": kind, "param": "None", "code": "401"}}


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
        (
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": json.dumps(openai_error("max_tokens is too large", "invalid_value"))},
                }
            },
            RequestRefused,
            "max_tokens is too large",
        ),
        (
            400,
            openai_error(
                "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - "
                "The input is longer than the context window. Received Model Group=m\nAvailable Model Group Fallbacks=None"
            ),
            RequestRefused,
            "refused the request: The input is longer than the context window",
        ),
        (400, {"status": 400, "error": "Bad Request", "message": "Failed to read the request"}, RequestRefused, "Failed to read"),
        (403, "<?xml version='1.0'?><Error><Message>Access Denied</Message></Error>", RequestRefused, "request: Access Denied"),
        (400, {"error": {"code": "unknown_model", "message": "Unknown model: x"}}, RequestRefused, "Unknown model"),
        (401, model_denied("key not allowed to access model", "key_model_access_denied"), RequestRefused, "not allowed"),
        (401, model_denied("Authentication Error, API Key not allowed to access model.", "auth_error"), RequestRefused, "not allowed"),
        (401, {"error": {"message": "This key has no access.", "param": "model", "code": 401}}, RequestRefused, "no access"),
        (402, openai_error("Prompt tokens limit exceeded: 5113 > 4101. To increase, upgrade", 402), RequestRefused, "5113"),
        (422, {"error": "`inputs` tokens must be <= 4096. Given: 5000", "error_type": "validation"}, RequestRefused, "5000"),
        (400, openai_error("Input data may contain inappropriate content.", "data_inspection_failed"), ContentRefused, "inappropriate"),
        (424, {"success": False, "error": [{"code": 2016, "message": "Prompt blocked due to security"}]}, ContentRefused, "blocked"),
        (446, openai_error("The guardrail checks failed.", None, "hooks_failed"), ContentRefused, "guardrail"),
        # What is about the account.
        (400, openai_error("Your key is of no use here.", "InvalidApiKey"), AuthenticationFailed, "no use"),
        (400, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}, AuthenticationFailed, "Authentication"),
        (403, {"message": "The security token included in the request is invalid."}, AuthenticationFailed, "security token"),
        (403, {"error": {"code": "AuthenticationTypeDisabled", "message": "Only Entra."}}, AuthenticationFailed, "Entra"),
        (403, openai_error("Access denied due to Virtual Network/Firewall rules.", "403"), AuthenticationFailed, "Virtual Network"),
        (400, [{"error": {"code": 400, "message": "User location is not supported for the API use."}}], AuthenticationFailed, "location"),
        (
            400,
            [{"error": {"message": "API key expired. Please renew it.", "details": [{"reason": "API_KEY_INVALID"}]}}],
            AuthenticationFailed,
            "Please renew it",
        ),
        (400, openai_error("Authentication Error, ExceededTokenBudget: 7; Max 2", "400", "auth_error"), ProviderQuotaExhausted, "Max 2"),
        (429, openai_error("Your account org-x is suspended due to insufficient balance"), ProviderQuotaExhausted, "suspended"),
        (412, openai_error("Account x is suspended, possibly due to the monthly spending limit", "x"), ProviderQuotaExhausted, "spending"),
        (429, {"code": "Exhausted", "error": "Your team x has either used all available credits or"}, ProviderQuotaExhausted, "credits"),
        (403, {"code": "No", "error": "Your newly created teams doesn't have any credits yet."}, ProviderQuotaExhausted, "credits"),
        (400, openai_error("Please pay.", "Arrearage"), ProviderQuotaExhausted, "Please pay"),
        (403, openai_error("No more.", "insufficient_user_quota"), ProviderQuotaExhausted, "No more"),
        (429, {"errors": [{"message": "AiError: you have used up your daily free allocation"}]}, ProviderQuotaExhausted, "daily free"),
        (403, openai_error("The Gateway requires a valid credit card on file."), ProviderQuotaExhausted, "credit card"),
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
        (200, {"error": "Unexpected endpoint or method. (POST /responses). Returning 200 anyway"}, AddressInvalid, "Unexpected endpoint"),
        (400, {"error": {"code": "BadRequest", "message": "API version not supported"}}, AddressInvalid, "API version"),
        (
            400,
            {"error": {"code": "BadRequest", "message": "Azure OpenAI Responses API is enabled only for api-version 2025-03-01-preview"}},
            AddressInvalid,
            "2025-03-01-preview",
        ),
        (400, openai_error("The Responses API is not supported for model m"), RequestRefused, "model m"),
        (403, {"message": "Missing Authentication Token"}, AddressInvalid, "Missing Authentication Token"),
        (400, "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>", AddressInvalid, "plain HTTP"),
        (400, "Client sent an HTTP request to an HTTPS server.\n", AddressInvalid, "HTTPS server"),
        (200, {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}}]}, AddressInvalid, "Chat Completions"),
        # What passes.
        (429, {"message": "Too many tokens, please wait before trying again."}, ProviderRateLimited, "Too many tokens"),
        (429, {"message": "Too many tokens per day, please wait before trying again."}, ProviderRateLimited, "per day"),
        (429, openai_error("Limit 1.5M, Requested 900K", "rate_limit_exceeded"), ProviderRateLimited, "900K"),
        (429, openai_error("Limit: 5, Remaining limit: 0"), ProviderRateLimited, "Limit: 5"),
        (429, openai_error("Allowed are requests, limit: 0.5 a second"), ProviderRateLimited, "0.5"),
        (400, {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "Slow"}, ProviderRateLimited, "Slow"),
        (403, {"message": "Out of call volume quota. Quota will be replenished in 12:34:56."}, ProviderRateLimited, "12:34:56"),
        (403, {"message": "Token quota is exceeded. Try again in 4 days."}, ProviderRateLimited, "4 days"),
        (498, openai_error("Flex tier capacity exceeded", "capacity_exceeded"), ProviderRateLimited, "Flex"),
        (
            429,
            [{"error": {"message": "You exceeded your current quota, please check your plan.\nPlease retry in 34.07s."}}],
            ProviderRateLimited,
            "34.07s",
        ),
        (429, {"error": {"message": "Provider returned error", "metadata": {"raw": "m is busy"}}}, ProviderRateLimited, "m is busy"),
        (409, openai_error("Another process works on it.", "conversation_locked"), ProviderUnavailable, "Another process"),
        (499, {"error": {"code": 499, "status": "CANCELLED", "message": "Gone."}}, ProviderUnavailable, "Gone"),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "no balance"}}, ProviderUnavailable, "no balance"),
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
        ({"retry-after": '"20"'}, openai_error("Slow"), 20),
        ({"retry-after": "30, 40"}, openai_error("Slow"), 40),
        ({"x-ms-retry-after-ms": "12000"}, openai_error("Slow"), 12),
        ({}, openai_error("Try again in 00:01:30."), 90),
        ({}, openai_error("Quota will be replenished in 1.02:00:00."), 93_600),
        ({}, openai_error("Please try again after one minute."), 60),
        ({}, openai_error("You can make another request in 45 seconds."), 45),
        ({}, openai_error("busy; retry_after: 30"), 30),
        ({}, {"error": {"message": "The usage limit has been reached", "resets_in_seconds": 4000}}, 4_000),
        ({}, {"error": {"message": "Slow", "metadata": {"headers": {"Retry-After": "77"}}}}, 77),
        ({"ratelimit": '"default";r=0;t=50'}, openai_error("Slow"), 50),
        ({"ratelimit": "limit=100, remaining=0, reset=51"}, openai_error("Slow"), 51),
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


@pytest.mark.parametrize(
    "words",
    [
        "Limit resets at: {0:%Y-%m-%d %H:%M:%S} UTC",
        "Try again at {0:%Y-%m-%dT%H:%M:%SZ}",
        "Retry after {0:%Y-%m-%dT%H:%M:%S}+00:00.",
        "You will regain access on {0:%Y-%m-%d} at {0:%H:%M} UTC.",
    ],
)
def test_a_moment_may_be_in_the_message(words: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=5)

    wait = from_response(429, {}, openai_error(words.format(at))).retry_after

    assert 5 * 3_600 - 61 <= (wait or 0) <= 5 * 3_600 + 1


def test_the_reset_of_a_limit_that_a_gateway_names_in_another_header_is_read() -> None:
    at = (datetime.now(UTC) + timedelta(hours=5)).isoformat()

    assert 17_900 <= (from_response(429, {"anthropic-ratelimit-requests-reset": at}, "Slow").retry_after or 0) <= 18_001


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "1800"}, "", 1_800),
        ({}, {"error": "Model x is currently loading", "estimated_time": 20.0}, 20),
        ({}, {"error": {"message": "Overloaded. Please retry in 25 seconds."}}, 25),
        ({"x-ratelimit-reset-tokens": "6m0s"}, "", None),
    ],
)
def test_a_server_error_may_ask_for_a_wait_too(headers: dict[str, str], body: Any, wait: int | None) -> None:
    """What limits have left is in all answers of OpenAI, and no wait."""
    assert error_of(answered(503, body, **headers), ProviderUnavailable).retry_after == wait


def test_the_type_of_an_error_in_a_header_of_aws_counts() -> None:
    error = from_response(400, {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/"}, {"message": "No."})

    assert type(error) is ProviderRateLimited


def test_a_network_that_is_refused_is_not_mended_by_another_key() -> None:
    error = from_response(403, {}, openai_error("Country, region, or territory not supported", "unsupported_country_region_territory"))

    assert "network" in error.suggestion


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
        "resets at 2026-" * 200_000,
        "retry after: " * 200_000,
        "tokens " * 400_000,
        "account " * 400_000,
        "litellm.A: " + "Error: " * 400_000,
        "litellm.A: " + "Error" * 600_000,
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


@pytest.mark.parametrize("status", [301, 302, 303])
def test_an_address_that_redirects_is_named_with_where_it_leads(status: int) -> None:
    """The request becomes a GET without content there, so whatever that answers is not about it."""

    async def play(server: Loopback, provider: OpenAIResponses) -> AttemptFailed:
        with pytest.raises(AddressInvalid) as raised:
            await read(provider)
        return raised.value

    elsewhere = Answer([], status, {"location": "/login?next=secret"})
    message = played(elsewhere, answered(200, PAGE), play=play).message

    assert "/v1/responses to" in message
    assert message.count("/login") == 1
    assert "secret" not in message


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("http://no-such-host.invalid/v1", ProviderConnectionLost, "no-such-host.invalid"),
        ("http://127.0.0.1:9/v1", ProviderConnectionLost, "127.0.0.1"),
    ],
)
def test_a_connection_that_cannot_be_made_names_the_host(url: str, kind: type[AttemptFailed], words: str) -> None:
    async def play() -> AttemptFailed:
        with pytest.raises(kind) as raised:
            await read(OpenAIResponses(lambda: Credentials("key", url)))
        return raised.value

    assert words in asyncio.run(play()).message


def test_a_server_without_tls_is_no_address_for_https() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def play() -> str:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            with pytest.raises(AddressInvalid) as raised:
                await read(OpenAIResponses(lambda: Credentials("key", address)))
        return raised.value.message

    assert "does not speak https" in asyncio.run(play())


def test_a_connection_that_is_not_made_in_time_is_no_slow_answer() -> None:
    """A longer `config.timeout` would not help."""
    request = httpx2.Request("POST", "http://10.0.0.1/v1/responses")
    raised = openai.APITimeoutError(request)
    raised.__cause__ = httpx2.ConnectTimeout("")

    error = from_exception(raised)

    assert type(error) is ProviderConnectionLost
    assert "10.0.0.1" in error.message


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
