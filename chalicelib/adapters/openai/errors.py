"""What goes wrong at OpenAI, in our own tree: by the status of an answer, or by the code in an event of a stream.

| seen | means |
|---|---|
| 429 with `insufficient_quota` and its like | `ProviderQuotaExhausted`: waiting does not help |
| 429, `rate_limit_exceeded` | `ProviderRateLimited`, with the wait that was asked for |
| 401, 403, `invalid_api_key` | `AuthenticationFailed` |
| a code of a content policy | `ContentRefused` |
| 408, a timeout | `ProviderTimeout` |
| other 4xx, `invalid_...`, `image_...` | `RequestRefused`, in OpenAI's words |
| 5xx, and any code that is not known | `ProviderUnavailable` |
| no connection, or a broken one | `ProviderConnectionLost` |

Codes: https://platform.openai.com/docs/guides/error-codes and the SDK's `types/responses/response_error.py`.
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

LONGEST_MESSAGE = 500
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
AUTHENTICATION = frozenset({"invalid_api_key", "invalid_organization", "invalid_project", "account_deactivated"})
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
    """Translate an answer that is no 200."""
    error = _error_in(body)
    kind = _kind_of_status(status, error)
    wait = retry_after(headers, time.time())
    if wait is None and kind is ProviderRateLimited:
        wait = _asked_in_words(error)
    return kind(_message(kind, error), provider_status=status, provider_request_id=headers.get("x-request-id"), retry_after=wait)


def from_event(error: Mapping[str, Any]) -> AttemptFailed:
    """Translate the error that an event carries: `{"code", "message", ...}`. The status was 200 by then, so none is told."""
    kind = _kind_of_code(_codes(error)) or ProviderUnavailable
    return kind(_message(kind, error), retry_after=_asked_in_words(error) if kind is ProviderRateLimited else None)


def retry_after(headers: Mapping[str, str], now: float) -> int | None:
    """The wait that an answer asks for, in whole seconds, rounded up: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
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
    """OpenAI's words without key material (a 401 quotes the key), and not longer than what one reads."""
    text = _KEY_MATERIAL.sub("[hidden]", " ".join(message.split()))
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def _kind_of_status(status: int, error: Mapping[str, Any]) -> type[AttemptFailed]:
    codes = _codes(error)
    if status == 429:
        return ProviderQuotaExhausted if codes & QUOTA else ProviderRateLimited
    if status in (401, 403):
        return AuthenticationFailed
    if status == 408:
        return ProviderTimeout
    if 400 <= status < 500:
        return ContentRefused if codes & POLICY else RequestRefused
    return ProviderUnavailable


def _kind_of_code(codes: set[str]) -> type[AttemptFailed] | None:
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
    """OpenAI's words where they help whoever asked; our own otherwise: theirs speak to the owner of the account."""
    said = error.get("message")
    return (
        f"OpenAI refused the request: {redact_message(said)}"
        if kind in (RequestRefused, ContentRefused) and isinstance(said, str) and said
        else ""
    )


def _error_in(body: object) -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error", body)  # the SDK has taken it out already, where the body was as expected
    return inner if isinstance(inner, Mapping) else {"message": str(inner)}


def _codes(error: Mapping[str, Any]) -> set[str]:
    return {value.lower() for value in (error.get("code"), error.get("type")) if isinstance(value, str)}


def _asked_in_words(error: Mapping[str, Any]) -> int | None:
    """The wait in "Please try again in 1m12.5s": an event has no headers."""
    found = _TRY_AGAIN.search(str(error.get("message") or ""))
    if not found or not (found[1] or found[2]):
        return None
    seconds = float(found[2].rstrip(".") or 0) * (0.001 if found[3] == "ms" else 1) if found[2] else 0.0
    return math.ceil(60 * int(found[1] or 0) + seconds)
