"""Errors of OpenAI as `AttemptFailed`: by code, type and words, then by the status of the response.

`SIGNS` has what each is known by, in the order in which they are looked for. What is about one
request fails that request only. Whoever writes a prompt may choose words that the provider quotes,
so words make an error one of the account only at their beginning, and only with a status that says
so.

Codes: https://platform.openai.com/docs/guides/error-codes and the SDK's
`types/responses/response_error.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from chalicelib.adapters.openai.error_body import ErrorBody, read_error
from chalicelib.adapters.openai.rate_headers import rate_headers_of, refusal_of
from chalicelib.adapters.openai.redaction import redact_message
from chalicelib.adapters.openai.waits import wait_of
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

REQUEST_FAULTS = frozenset(range(400, 500))
SHARED_LIMITS = frozenset({"requests", "tokens", "input", "output"})  # what `x-ratelimit-reset-*` headers are named by


@dataclass(frozen=True, slots=True)
class Error:
    """An error response, or an error inside a stream."""

    status: int | None  # None: in a stream that names none
    body: ErrorBody


@dataclass(frozen=True, slots=True)
class Sign:
    """What an error is known by: one of its codes or words, or, without any, its status alone.

    `statuses`: only with these; empty: with every one, and in a stream.
    """

    kind: type[AttemptFailed]
    meaning: str  # for the docs
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()  # of codes
    words: tuple[str, ...] = ()  # regular expressions
    begins: bool = False  # the message begins with the words
    check: Callable[[Error], bool] | None = None  # what codes and words cannot say
    suggestion: str = ""  # where that of the class does not fit

    def matches(self, error: Error) -> bool:
        if self.statuses and error.status is not None and error.status not in self.statuses:
            return False
        if error.body.codes & self.codes or any(code.startswith(self.prefixes) for code in error.body.codes if self.prefixes):
            return True
        if self.statuses and error.status is None:
            return False
        if _says(self.words, error.body.message, begins=self.begins):
            return True
        if self.check is not None:
            return self.check(error)
        return not (self.codes or self.prefixes or self.words)


def _says(words: tuple[str, ...], message: str, *, begins: bool = False) -> bool:
    return any((re.match if begins else re.search)(one, message, re.IGNORECASE) for one in words)


def _is_above_limit(error: Error) -> bool:
    """Whether the message says that the request alone is larger than the limit, so that no wait helps."""
    numbers = {name: re.search(rf"\b{name}:?\s+([\d,]+)", error.body.message, re.IGNORECASE) for name in ("limit", "requested")}
    limit, requested = (int(found[1].replace(",", "") or 0) if found else None for found in numbers.values())
    return limit is not None and requested is not None and requested > limit


def _lacks_other_scope(error: Error) -> bool:
    """Whether the key lacks a right that only some requests need, such as that to read files."""
    scopes = re.findall(r"\b(?:api\.)?[a-z_]+(?:\.[a-z_]+)+\b", error.body.message.partition("issing scopes")[2])
    return bool(scopes) and not any(scope in ("model.request", "api.responses.write") for scope in scopes)


def _is_no_api(error: Error) -> bool:
    """Whether a 404 is of a server that has no such path, and not about what the request names."""
    message = error.body.message.lower()
    if error.body.param or re.search(r"\b(?:models?|deployment|engine)\b", message) or any("model" in code for code in error.body.codes):
        return False
    return not error.body.is_structured or _says(NO_PATH, message)


KEY_WORDS = (
    r"(?:error:? )?(?:incorrect|invalid|unknown|expired|revoked|disabled|missing) (?:\w+ ){0,2}api[- ]key",
    r"(?:the |your )?api[- ]key (?:is |was |has )?(?:been )?(?:not (?:valid|found)|invalid|incorrect|expired|revoked|disabled|missing)",
    r"you (?:must be a member of an organization|didn't provide an api key)",
    r"(?:this|your|the) (?:organization|account|project) (?:has been|is|was) (?:deactivated|disabled|suspended|archived|blocked)",
    r"country, region, or territory not supported",
    r"(?:your|the) ip (?:address )?(?:is )?not (?:authorized|allowed)",
    r"access denied due to invalid subscription key",
)
QUOTA_WORDS = (
    r"you(?:'ve| have)? (?:exceeded|reached|used up) your (?:\w+ ){0,2}(?:quota|usage limits?|credits?|budget)",
    r"insufficient (?:balance|credits?|quota|funds)",
    r"(?:key|spend\w*|billing|budget|credit) (?:hard )?limit (?:was |has been )?(?:exceeded|reached)",
    r"budget has been exceeded",
    r"your (?:account|organization) (?:is not active, please check your billing|has no credits?)",
    r"your credit balance is too low",
    r"out of credits",
)
LENGTH_WORDS = (
    r"maximum context length",
    r"context[ _](?:length|window|size)",
    r"(?:prompt|input|request)\b.{0,40} (?:is )?too (?:long|large)",
    r"too many (?:input |prompt )?tokens",
    r"reduce the length",
)
CONTENT_WORDS = (
    r"\b(?:was|were|been|is) flagged\b",
    r"requires moderation",
    r"content[ _-](?:management |moderation |safety )?(?:policy|filter)",
    r"usage polic(?:y|ies)",
    r"safety (?:system|policy|filter)",
    r"violat\w+ (?:our|the|openai's) ",
    r"prohibited content",
)
NO_PATH = (
    r"(?:unknown|unrecognized|no such|invalid) (?:request )?(?:url|endpoint|path|route|api)",
    r"no (?:matching )?route",
    r"cannot (?:post|get)",
    r"^(?:404:? )?(?:error:? )?(?:page |resource |route |endpoint |url |path |file )?(?:was )?not found[.!]?$",
    r"requested (?:url|resource) was not found",
    r"does not exist on this server",
)

SIGNS: tuple[Sign, ...] = (
    Sign(
        RequestRefused,
        "The request alone is above a limit: no wait helps.",
        words=(r"request too large", r"\blimit: 0\b", r"tokens must be reduced"),
        check=_is_above_limit,
        suggestion="Shorten the prompt, lower `config.max_tokens`, or choose a model with a higher limit; then submit the job again.",
    ),
    Sign(
        RequestRefused,
        "The account could pay for a smaller request.",
        statuses=frozenset({402, 403}),
        words=(r"can only afford", r"fewer max_tokens"),
        suggestion="Lower `config.max_tokens` and submit the job again, or ask the operator to add credit.",
    ),
    Sign(
        RequestRefused,
        "The key lacks a right that only this request needs.",
        statuses=frozenset({401, 403}),
        check=_lacks_other_scope,
        suggestion="Leave out what needs the right that the message names, or ask the operator for a key that has it.",
    ),
    Sign(
        RequestRefused,
        "The account may not use this model, or there is none of this name.",
        codes=frozenset({"model_not_found", "deploymentnotfound", "model_not_available", "model_not_supported"}),
        suggestion="Choose another model (`config.model`), or ask the operator to allow this one for the OpenAI project.",
    ),
    Sign(
        ProviderQuotaExhausted,
        "The account has no credit.",
        codes=frozenset(
            {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance", "budget_exceeded"}
        ),
    ),
    Sign(ProviderQuotaExhausted, "Payment is required.", statuses=frozenset({402})),
    Sign(
        ProviderQuotaExhausted,
        "The message begins by saying so.",
        statuses=frozenset({400, 403, 429}),
        words=QUOTA_WORDS,
        begins=True,
    ),
    Sign(
        AuthenticationFailed,
        "The key or the account is refused.",
        codes=frozenset(
            {
                "invalid_api_key",
                "api_key_invalid",
                "invalid_organization",
                "mismatched_organization",
                "mismatched_project",
                "invalid_project",
                "account_deactivated",
                "organization_deactivated",
                "missing_scope",
                "insufficient_permissions",
                "ip_not_authorized",
                "unsupported_country_region_territory",
            }
        ),
    ),
    Sign(AuthenticationFailed, "The key is refused.", statuses=frozenset({401})),
    Sign(
        AuthenticationFailed,
        "The message begins by saying so.",
        statuses=frozenset({400, 403}),
        words=KEY_WORDS,
        begins=True,
    ),
    Sign(
        ContentRefused,
        "A policy refuses the content.",
        codes=frozenset(
            {
                "content_policy_violation",
                "image_content_policy_violation",
                "bio_policy",
                "misalignment_policy_violation",
                "content_filter",
                "responsibleaipolicyviolation",
            }
        ),
    ),
    Sign(ContentRefused, "The message says so.", statuses=frozenset({400, 403, 422, 451}), words=CONTENT_WORDS),
    Sign(
        RequestRefused,
        "The prompt is too long for the model.",
        codes=frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large", "tokens_limit_reached"}),
        words=LENGTH_WORDS,
        suggestion="Shorten the prompt, lower `config.max_tokens`, or choose a model with a larger context; then submit the job again.",
    ),
    Sign(
        ProviderRateLimited,
        "The rate limit is reached.",
        codes=frozenset(
            {
                "rate_limit_exceeded",
                "rate_limit_error",
                "ratelimitreached",
                "too_many_requests",
                "slow_down",
                "resource_exhausted",
                "throttlingexception",
            }
        ),
    ),
    Sign(ProviderRateLimited, "There were too many requests.", statuses=frozenset({429})),
    Sign(
        AddressInvalid,
        "There is no Responses API at this address: no such path, another method, or a redirect.",
        statuses=frozenset({405, 421, *range(300, 400)}),
    ),
    Sign(AddressInvalid, "A proxy asks for a password.", statuses=frozenset({407, 511})),
    Sign(
        AddressInvalid,
        "The answer is a page or plain text, or says that there is no such path; it does not speak of a model.",
        statuses=frozenset({404}),
        check=_is_no_api,
    ),
    Sign(ProviderTimeout, "The server waited too long.", statuses=frozenset({408})),
    Sign(ProviderTimeout, "The code says so.", codes=frozenset({"request_timeout"})),
    Sign(
        RequestRefused,
        "A page, not the API, refuses this request: something in front of it, such as a firewall.",
        statuses=frozenset({400, 403, 406, 413, 414, 431}),
        check=lambda error: error.body.is_page,
        suggestion="Something in front of the provider refused this request: change the prompt, or ask the operator to allow it.",
    ),
    Sign(
        RequestRefused,
        "The code is about the request.",
        statuses=REQUEST_FAULTS,
        codes=frozenset(
            {"data_residency_mismatch", "badrequesterror", "bad_request", "validationerror", "notfounderror", "unprocessableentityerror"}
        ),
        prefixes=("invalid_", "image_", "unsupported_", "missing_", "unknown_", "failed_to_download_", "empty_image_"),
    ),
    Sign(RequestRefused, "Any other answer that blames the request.", statuses=REQUEST_FAULTS),
    Sign(ProviderUnavailable, "The server failed, or its answer says nothing that is known."),
)


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
    sign = next(sign for sign in SIGNS if sign.matches(error))
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
        failure.refusal, failure.rate = refusal_of(said.message, wait), rate_headers_of(headers)
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
