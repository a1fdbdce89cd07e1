"""Errors of OpenAI as `AttemptFailed`, by the signs of `error_signs.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chalicelib.adapters.openai.error_body import ErrorBody, code_of, read_error
from chalicelib.adapters.openai.error_signs import Error, sign_of
from chalicelib.adapters.openai.rate_headers import rate_headers_of, refusal_of
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

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import APIStatusError

NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
UNSHARED = frozenset({"resource_unavailable", "capacity_exceeded"})  # capacity for cheap requests says nothing about others
SHARED_LIMITS = frozenset({"requests", "tokens", "input", "output"})  # what `x-ratelimit-reset-*` headers are named by


def from_exception(exc: Exception) -> AttemptFailed:
    """Translate what the SDK or the HTTP client under it raised."""
    import httpx2
    import openai

    if isinstance(exc, openai.APIStatusError):
        return redirected(exc.response) or from_response(exc.status_code, exc.response.headers, _body_of(exc), str(exc.request.url))
    if isinstance(exc.__cause__ or exc, httpx2.ConnectTimeout):
        return _not_connected(exc)
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
    if kind := headers.get("x-amzn-errortype", ""):
        said = replace(said, codes=said.codes | {code_of(kind.partition(":")[0])})
    return _failure(Error(status if status != 200 else said.status or 200, said), headers, url)


def from_event(error: object) -> AttemptFailed:
    """Translate the error in an event, in any shape: `{"code", "message", ...}`.

    There is no status, because it was 200 before; a code may be one.
    """
    said = read_error(error)
    return _failure(Error(said.status, said), {}, "")


def redirected(response: Response) -> AddressInvalid | None:
    """Return the error of an address that redirects to where the request cannot follow; None: it does not.

    After most redirects a request is sent without its content, and to another host without the key.
    """
    if not response.history:
        return None
    first, last = response.history[0].request, response.request
    if first.method == last.method and (first.url.host == last.url.host or response.status_code != 401):
        return None
    ours = f"The configured address redirects from {_shown(str(first.url))} to {_shown(str(last.url))}, where the request cannot follow."
    return AddressInvalid(f"{ours} The address has to be the one that answers.", provider_status=response.history[0].status_code)


def no_api(url: str, body: object) -> AddressInvalid:
    """Return the error of an address that answers with a page where an answer was expected."""
    return AddressInvalid(_message(AddressInvalid, read_error(body), url))


def other_api() -> AddressInvalid:
    """Return the error of an address that answers with Chat Completions, whatever it is asked."""
    return AddressInvalid("The configured address answers as the Chat Completions API, and not as the Responses API.")


def misconfigured(exc: BaseException) -> WorkerMisconfigured:
    """Return the error of a worker that cannot make requests, such as without a package that its proxy needs."""
    return WorkerMisconfigured(f"The worker cannot make requests to OpenAI: {redact_message(str(exc))}")


def _failure(error: Error, headers: Mapping[str, str], url: str) -> AttemptFailed:
    sign = sign_of(error)
    kind, said = sign.kind, error.body
    limits = said.codes & SHARED_LIMITS
    wait = wait_of(headers, said.message, said.fields, limits, time.time(), resets=kind is ProviderRateLimited)
    failure = kind(
        _message(kind, said, url),
        provider_status=error.status,
        provider_request_id=headers.get("x-request-id"),
        retry_after=wait,
        suggestion=sign.suggestion,
    )
    if isinstance(failure, ProviderRateLimited):
        failure.is_shared = not UNSHARED & said.codes
        failure.refusal, failure.rate = refusal_of(said.message, wait), rate_headers_of(headers)
    return failure


def _body_of(exc: APIStatusError) -> object:
    """Return the body of an error response. The SDK's own `body` lacks what stands beside `error`."""
    import httpx2

    try:
        return exc.response.content
    except httpx2.ResponseNotRead:
        return exc.body


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
    if isinstance(cause, httpx2.ConnectError) and any(sign in words for sign in NO_TLS):
        return AddressInvalid(f"The server at the configured address does not speak https: {words}")
    if isinstance(cause, httpx2.ProxyError):
        return ProviderConnectionLost(f"The proxy did not make the connection to OpenAI: {words}")
    if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        request = getattr(exc, "request", None)
        host = redact_message(request.url.host) if request is not None else "OpenAI"
        return ProviderConnectionLost(f"No connection to {host} could be made{f': {words}' if words else ' in time.'}")
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
