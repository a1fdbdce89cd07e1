"""Errors of OpenAI as `AttemptFailed`, by the status of a response or the code in an event.

| seen | raised |
|---|---|
| 429 with `insufficient_quota` or a similar code | `ProviderQuotaExhausted`: waiting does not help |
| 429, `rate_limit_exceeded` | `ProviderRateLimited`, with the wait that OpenAI asks for |
| 401, `invalid_api_key` and other codes about the key or account | `AuthenticationFailed` |
| a code of a content policy | `ContentRefused` |
| 408, a timeout | `ProviderTimeout` |
| other 4xx, `invalid_...`, `image_...` | `RequestRefused`, with OpenAI's message |
| 5xx, a 403 without a code, and any unknown code | `ProviderUnavailable` |
| no connection, or a broken one | `ProviderConnectionLost` |

Codes: https://platform.openai.com/docs/guides/error-codes and the SDK's
`types/responses/response_error.py`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from chalicelib.domain.failures import (
    AttemptFailed,
    AuthenticationFailed,
    ContentRefused,
    ProviderConnectionLost,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
)

MAX_MESSAGE_LENGTH = 500
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
AUTHENTICATION = frozenset(
    {
        "invalid_api_key",
        "invalid_organization",
        "invalid_project",
        "account_deactivated",
        "missing_scope",
        "insufficient_permissions",
        "unsupported_country_region_territory",
    }
)
POLICY = frozenset(
    {"content_policy_violation", "image_content_policy_violation", "bio_policy", "misalignment_policy_violation", "content_filter"}
)
REFUSED = frozenset({"model_not_found", "context_length_exceeded", "data_residency_mismatch", "unsupported_image_media_type"})
REFUSED_PREFIXES = ("invalid_", "image_", "unsupported_", "missing_", "unknown_", "failed_to_download_", "empty_image_")

_KEY_MATERIAL = re.compile(r"\b(sk|rk|sess|org|proj|user)[-_][\w*.-]{6,}|Bearer\s+\S+", re.IGNORECASE)
_TRY_AGAIN = re.compile(r"try again in (?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))?", re.IGNORECASE)


def from_exception(exc: Exception) -> AttemptFailed:
    """Translate what the SDK or the HTTP client under it raised."""
    import httpx2
    import openai

    if isinstance(exc, openai.APIStatusError):
        return from_response(exc.status_code, exc.response.headers, exc.body)
    if isinstance(exc, (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError)):
        return ProviderTimeout()
    if isinstance(exc, (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError)):
        return ProviderConnectionLost()
    return ProviderUnavailable()


def from_response(status: int, headers: Mapping[str, str], body: object) -> AttemptFailed:
    """Translate a response whose status is not 200."""
    error = _error_in(body)
    kind = _error_for_status(status, error)
    wait = retry_after(headers, time.time())
    if wait is None and kind is ProviderRateLimited:
        wait = _wait_in_message(error)
    return kind(_message(kind, error), provider_status=status, provider_request_id=headers.get("x-request-id"), retry_after=wait)


def from_event(error: Mapping[str, Any]) -> AttemptFailed:
    """Translate the error in an event: `{"code", "message", ...}`.

    There is no status, because it was 200 before.
    """
    kind = _error_for_codes(_codes(error)) or ProviderUnavailable
    return kind(_message(kind, error), retry_after=_wait_in_message(error) if kind is ProviderRateLimited else None)


def retry_after(headers: Mapping[str, str], now: float) -> int | None:
    """Return the wait that a response asks for, in seconds, rounded up.

    The header is `retry-after-ms`, or `Retry-After` in seconds or as a date.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(wait):
            return max(0, math.ceil(wait))
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, TypeError):
        return None
    return max(0, math.ceil(moment.timestamp() - now))


def redact_message(message: str) -> str:
    """Return OpenAI's message, cut and without key material (a 401 quotes the key)."""
    text = _KEY_MATERIAL.sub("[hidden]", " ".join(message.split()))
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[: MAX_MESSAGE_LENGTH - 1] + "…"


def _error_for_status(status: int, error: Mapping[str, Any]) -> type[AttemptFailed]:
    codes = _codes(error)
    if status == 429:
        return ProviderQuotaExhausted if codes & QUOTA else ProviderRateLimited
    if status == 401 or codes & AUTHENTICATION:
        return AuthenticationFailed
    if status == 408:
        return ProviderTimeout
    if status == 403 and not codes:  # not from the API itself, but from something in front of it
        return ProviderUnavailable
    if 400 <= status < 500:  # a 403 too: what this request may not have says nothing about others
        return ContentRefused if codes & POLICY else RequestRefused
    return ProviderUnavailable


def _error_for_codes(codes: set[str]) -> type[AttemptFailed] | None:
    known: tuple[tuple[frozenset[str], type[AttemptFailed]], ...] = (
        (QUOTA, ProviderQuotaExhausted),
        (frozenset({"rate_limit_exceeded", "rate_limit_error"}), ProviderRateLimited),
        (AUTHENTICATION, AuthenticationFailed),
        (POLICY, ContentRefused),
        (REFUSED, RequestRefused),
    )
    for names, kind in known:
        if codes & names:
            return kind
    return RequestRefused if any(code.startswith(REFUSED_PREFIXES) for code in codes) else None


def _message(kind: type[AttemptFailed], error: Mapping[str, Any]) -> str:
    """Return OpenAI's message where it helps the caller.

    Other messages address the owner of the account; these are replaced.
    """
    text = error.get("message")
    return (
        f"OpenAI refused the request: {redact_message(text)}"
        if kind in (RequestRefused, ContentRefused) and isinstance(text, str) and text
        else ""
    )


def _error_in(body: object) -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error", body)  # the SDK unwraps `error` if the body is as expected
    return inner if isinstance(inner, Mapping) else {"message": str(inner)}


def _codes(error: Mapping[str, Any]) -> set[str]:
    return {value.lower() for value in (error.get("code"), error.get("type")) if isinstance(value, str)}


def _wait_in_message(error: Mapping[str, Any]) -> int | None:
    """Return the seconds in "Please try again in 1m12.5s", which an event has instead of a header."""
    found = _TRY_AGAIN.search(str(error.get("message") or ""))
    if not found or not (found[1] or found[2]):
        return None
    seconds = float(found[2].rstrip(".") or 0) * (0.001 if found[3] == "ms" else 1) if found[2] else 0.0
    return math.ceil(60 * int(found[1] or 0) + seconds)
