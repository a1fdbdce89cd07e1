"""Errors of OpenAI as `AttemptFailed`, by the signs of `error_signs.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from chalicelib.adapters.openai.error_body import ErrorBody, read_error
from chalicelib.adapters.openai.error_signs import Error, sign_of
from chalicelib.adapters.openai.redaction import redact_message
from chalicelib.adapters.openai.waits import wait_of
from chalicelib.domain.failures import (
    AddressInvalid,
    AttemptFailed,
    ContentRefused,
    ProviderConnectionLost,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
    WorkerMisconfigured,
)

SHARED_LIMITS = frozenset({"requests", "tokens", "input", "output"})  # what `x-ratelimit-reset-*` headers are named by


def from_exception(exc: Exception) -> AttemptFailed:
    """Translate what the SDK or the HTTP client under it raised."""
    import httpx2
    import openai

    if isinstance(exc, openai.APIStatusError):
        return from_response(exc.status_code, exc.response.headers, exc.body, str(exc.request.url))
    if isinstance(exc, (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError)):
        return ProviderTimeout()
    if isinstance(exc, (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError)):
        return _not_connected(exc)
    return ProviderUnavailable()


def from_response(status: int, headers: Mapping[str, str], body: object, url: str = "") -> AttemptFailed:
    """Translate a response that is an error.

    Args:
        status: of the response; 200 of one whose body is an error all the same.
        body: its JSON, or its text.
        url: what was asked, for an error that is about the address.
    """
    said = read_error(body)
    return _failure(Error(status if status != 200 else said.status, said), headers, url)


def from_event(error: object) -> AttemptFailed:
    """Translate the error in an event, in any shape: `{"code", "message", ...}`.

    There is no status, because it was 200 before; a code may be one.
    """
    said = read_error(error)
    return _failure(Error(said.status, said), {}, "")


def no_api(url: str, body: object) -> AddressInvalid:
    """Return the error of an address that answers with a page where an answer was expected."""
    return AddressInvalid(_message(AddressInvalid, read_error(body), url))


def misconfigured(exc: BaseException) -> WorkerMisconfigured:
    """Return the error of a worker that cannot make requests, such as without a package that its proxy needs."""
    return WorkerMisconfigured(f"The worker cannot make requests to OpenAI: {redact_message(str(exc))}")


def _failure(error: Error, headers: Mapping[str, str], url: str) -> AttemptFailed:
    sign = sign_of(error)
    kind, said = sign.kind, error.body
    wait = None
    if kind is ProviderRateLimited or "retry-after" in headers or "retry-after-ms" in headers:
        wait = wait_of(headers, said.message, said.fields, said.codes & SHARED_LIMITS, time.time())
    failure = kind(
        _message(kind, said, url),
        provider_status=error.status,
        provider_request_id=headers.get("x-request-id"),
        retry_after=wait,
        suggestion=sign.suggestion,
    )
    if isinstance(failure, ProviderRateLimited):  # capacity for cheap requests says nothing about others
        failure.is_shared = "resource_unavailable" not in said.codes
    return failure


def _not_connected(exc: Exception) -> AttemptFailed:
    """Translate an error of the connection: an address that cannot be asked is the operator's to mend."""
    import httpx2

    cause: BaseException = exc.__cause__ or exc
    words = redact_message(str(cause))
    if isinstance(cause, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return AddressInvalid(f"The address of OpenAI cannot be used: {words}")
    if isinstance(cause, httpx2.LocalProtocolError):
        return WorkerMisconfigured("The request could not be sent: the configured key or address has characters that HTTP does not allow.")
    if isinstance(cause, httpx2.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in words:
        return AddressInvalid(f"The certificate of the configured address is not trusted: {words}")
    if isinstance(cause, httpx2.ProxyError):
        return ProviderConnectionLost(f"The proxy did not make the connection to OpenAI: {words}")
    return ProviderConnectionLost()


def _message(kind: type[AttemptFailed], said: ErrorBody, url: str) -> str:
    """Return our sentence and the provider's words."""
    words = redact_message(said.message)
    if kind is AddressInvalid:
        ours = f"There is no Responses API at {_shown(url)}." if url else ""
        return f"{ours} The server says: {words}".strip() if words else ours
    if not words:
        return ""
    if kind in (RequestRefused, ContentRefused):
        return f"OpenAI refused the request: {words}"
    return f"{kind().message} OpenAI says: {words}"


def _shown(url: str) -> str:
    """Return an address without what may be secret in it."""
    parts = urlsplit(url)
    return redact_message(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
