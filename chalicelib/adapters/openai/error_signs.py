"""By which signs an error of OpenAI, or of a server in its place, is known.

`SIGNS` is in the order in which they are looked for: codes, types and words first, then the status
of the response. What is about one request fails that request only. Whoever writes a prompt may
choose words that the provider quotes, so words make an error one of the account only at their
beginning, and only with a status that says so.

Codes: https://platform.openai.com/docs/guides/error-codes and the SDK's
`types/responses/response_error.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.adapters.openai.error_body import ErrorBody
from chalicelib.adapters.openai.waits import wait_of
from chalicelib.domain.failures import (
    AddressInvalid,
    AttemptFailed,
    AuthenticationFailed,
    ContentRefused,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
)

REQUEST_FAULTS = frozenset(range(400, 500))


@dataclass(frozen=True, slots=True)
class Error:
    """An error response, or an error inside a stream."""

    status: int | None  # None: in a stream that names none; 200: an answer that is an error and names none
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
        if self.statuses and error.status not in (None, 200, *self.statuses):
            return False
        if error.body.codes & self.codes or any(code.startswith(self.prefixes) for code in error.body.codes if self.prefixes):
            return True
        if self.statuses and error.status not in self.statuses:
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
    pattern = r"\b{name}:?\s+([\d,]{{1,20}}(?:\.\d{{1,20}})?)(k|m)?(?!\w)"
    found = [re.search(pattern.format(name=name), error.body.message, re.IGNORECASE) for name in ("limit", "requested")]
    numbers = [float(one[1].replace(",", "") or 0) * MULTIPLES[(one[2] or "").lower()] for one in found if one]
    return len(numbers) == 2 and numbers[1] > numbers[0]


def _says_when(error: Error) -> bool:
    """Whether the answer says when the next request may come."""
    return wait_of({}, error.body.message, error.body.fields, frozenset(), time.time()) is not None


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


MULTIPLES = {"": 1, "k": 1_000, "m": 1_000_000}
KEY_WORDS = (
    r"(?:error:? )?(?:incorrect|invalid|unknown|expired|revoked|disabled|missing) (?:\w+ ){0,2}api[- ]key",
    r"(?:the |your )?api[- ]key (?:is |was |has )?(?:been )?(?:not (?:valid|found)|invalid|incorrect|expired|revoked|disabled|missing)",
    r"you (?:must be a member of an organization|didn't provide an api key)",
    r"(?:this|your|the) (?:organization|account|project) (?:has been|is|was) (?:deactivated|disabled|suspended|archived|blocked)",
    r"(?:this |your |the )?(?:organization|account|project) has been restricted",
    r"access denied due to (?:invalid|missing) subscription key",
    r"authentication (?:error|failed|fails|required)\b",
    r"the security token included in the request is (?:invalid|expired)",
    r"key based authentication is disabled",
    r"the principal .{0,80} lacks the required",
)
NETWORK_WORDS = (
    r"country, region, or territory not supported",
    r"user location is not supported",
    r"(?:your|the) ip (?:address )?(?:[\d.:a-f]{2,45} )?(?:is )?not (?:authorized|allowed|on the allowlist)",
    r"access denied due to virtual network",
    r"public access is disabled",
    r"traffic is not from an approved private endpoint",
)
RATE_WORDS = (
    r"(?:request|requests|api|the|your)? ?rate limit (?:is |was |has been )?(?:exceeded|reached)",
    r"(?:token |call |bandwidth |request )?quota (?:is |was |has been )?exceeded",
    r"out of call volume quota",
    r"rate exceeded",
    r"too many requests",
)
ACCOUNT = "(?:your|this|the) (?:newly created )?(?:account|teams?|organization|project)"
QUOTA_WORDS = (
    r"you(?:'ve| have)? (?:exceeded|reached|used up) your (?:\w+ ){0,2}(?:quota|usage limits?|credits?|budget)",
    r"insufficient (?:balance|credits?|quota|funds)",
    r"(?:key|spend\w*|billing|budget|credit) (?:hard )?limit (?:was |has been )?(?:exceeded|reached)",
    r"(?:authentication error, )?(?:budget has been exceeded|exceeded(?:token|user|team|model)?budget)",
    r"(?:\w{1,20}error: )?you have used up your (?:\w+ ){0,3}(?:allocation|quota|credits?)",
    rf"{ACCOUNT}\b.{{0,60}} (?:has|have) (?:either )?used all available credits",
    rf"{ACCOUNT}\b.{{0,60}} (?:doesn't|does not|don't) have any credits",
    r"(?:your |this |the )?account\b.{0,80} is (?:suspended|disabled|inactive)\b.{0,40} (?:balance|billing|spending|payment)",
    r"access denied, please make sure your account is in good standing",
    r"(?:\w+ ){0,3}requires a valid (?:credit card|payment method)",
    r"your (?:account|organization) (?:is not active, please check your billing|has no credits?)",
    r"your credit balance is too low",
    r"out of credits",
)
LENGTH_WORDS = (
    r"maximum context length",
    r"context[ _](?:length|window|size)",
    r"(?:prompt|input|request)\b.{0,40} (?:is )?too (?:long|large)",
    r"too many (?:input |prompt )?tokens(?!,? (?:per|please wait)\b)",
    r"\btokens?\b.{0,40} must be (?:<=?|less than|at most) ",
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
    r"inappropriate content",
    r"prompt (?:was |has been )?blocked",
    r"\bguardrails?\b",
)
OTHER_API = (
    r"unexpected endpoint or method",
    r"(?:the )?(?:azure openai )?responses api is (?:enabled only for|not (?:enabled|supported|available)[.!]?$)",
    r"api version not supported",
    r"missing authentication token$",  # API Gateway's words for a path that it does not have
    r"(?:400 )?(?:bad request - )?(?:.{0,80} - )?(?:400 )?the plain http request was sent to https port",
    r"client sent an http request to an https server",
    r".{0,200}you're speaking plain http to an ssl-enabled",
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
        words=(r"request too large", r"(?<!remaining )\blimit: 0\b(?![.,]\d)", r"tokens must be reduced"),
        check=_is_above_limit,
        suggestion="Shorten the prompt, lower `config.max_tokens`, or choose a model with a higher limit; then submit the job again.",
    ),
    Sign(
        RequestRefused,
        "The account could pay for a smaller request.",
        statuses=frozenset({402, 403}),
        words=(r"can only afford", r"fewer max_tokens", r"prompt tokens limit exceeded"),
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
        codes=frozenset(
            {
                *("model_not_found", "deployment_not_found", "model_not_available", "model_not_supported"),
                *("unknown_model", "invalid_model"),
                *(f"{who}_model_access_denied" for who in ("key", "team", "user", "org", "project")),
            }
        ),
        words=(r"\b(?:key|team|user|token|organization|org|project) not allowed to access (?:this )?model\b",),
        check=lambda error: error.status in (401, 403) and error.body.param == "model",
        suggestion="Choose another model (`config.model`), or ask the operator to allow this one for the OpenAI project.",
    ),
    Sign(
        ProviderQuotaExhausted,
        "The account has no credit.",
        codes=frozenset(
            {
                *("insufficient_quota", "insufficient_balance", "insufficient_user_quota", "insufficient_credits", "insufficient_funds"),
                *("billing_hard_limit_reached", "billing_not_active", "billing_error", "budget_exceeded", "arrearage", "payment_required"),
                *("exceeded_current_quota_error", "customer_verification_required"),
            }
        ),
    ),
    Sign(ProviderQuotaExhausted, "Payment is required.", statuses=frozenset({402})),
    Sign(ProviderRateLimited, "A limit that is over soon: the answer says when.", statuses=frozenset({429}), check=_says_when),
    Sign(
        ProviderQuotaExhausted,
        "The message begins by saying so.",
        statuses=frozenset({400, 403, 412, 429}),
        words=QUOTA_WORDS,
        begins=True,
    ),
    Sign(
        AuthenticationFailed,
        "The network or the country of the worker is refused.",
        codes=frozenset({"ip_not_authorized", "unsupported_country_region_territory"}),
        suggestion="Ask the operator to let the worker's network in at the provider. The key is right.",
    ),
    Sign(
        AuthenticationFailed,
        "The message begins by saying so.",
        statuses=frozenset({400, 401, 403}),
        words=NETWORK_WORDS,
        begins=True,
        suggestion="Ask the operator to let the worker's network in at the provider. The key is right.",
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
                "authentication_error",
                "authentication_type_disabled",
                "expired_key",
                "token_not_found_in_db",
                "organization_restricted",
                "unrecognized_client_exception",
                "expired_token_exception",
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
                "cyber_policy_violation",
                "data_inspection_failed",
                "hooks_failed",
                "responsible_ai_policy_violation",
            }
        ),
    ),
    Sign(ContentRefused, "The message says so.", statuses=frozenset({400, 403, 422, 424, 446, 451}), words=CONTENT_WORDS),
    Sign(
        RequestRefused,
        "The prompt is too long for the model.",
        codes=frozenset(
            {"context_length_exceeded", "string_above_max_length", "request_too_large", "tokens_limit_reached", "exceed_context_size_error"}
        ),
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
                "rate_limit_reached_error",
                "rate_limited",
                "throttling_error",
                "capacity_exceeded",
                "rate_limit_reached",
                "too_many_requests",
                "slow_down",
                "resource_exhausted",
                "throttling_exception",
            }
        ),
    ),
    Sign(ProviderRateLimited, "There were too many requests.", statuses=frozenset({429})),
    Sign(
        ProviderRateLimited,
        "The message begins by saying so.",
        statuses=frozenset({400, 403, 503}),
        words=RATE_WORDS,
        begins=True,
    ),
    Sign(
        AddressInvalid,
        "There is no Responses API at this address: no such path, another method, or a redirect.",
        statuses=frozenset({405, 421, *range(300, 400)}),
    ),
    Sign(
        AddressInvalid,
        "The message begins by saying that this is another API, another version of it, or one for https.",
        statuses=frozenset({200, 400, 403, 404, 501}),
        words=OTHER_API,
        begins=True,
    ),
    Sign(AddressInvalid, "A proxy asks for a password.", statuses=frozenset({407, 511})),
    Sign(
        AddressInvalid,
        "The answer is a page or plain text, or says that there is no such path; it does not speak of a model.",
        statuses=frozenset({404}),
        check=_is_no_api,
    ),
    Sign(ProviderUnavailable, "Another request is in the way: it passes.", codes=frozenset({"conversation_locked"})),
    Sign(ProviderUnavailable, "The request came too early, or something on its way hung up.", statuses=frozenset({425, 460, 499})),
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
            {
                "data_residency_mismatch",
                "bad_request_error",
                "bad_request",
                "validation_error",
                "not_found_error",
                "unprocessable_entity_error",
            }
        ),
        prefixes=("invalid_", "image_", "unsupported_", "missing_", "unknown_", "failed_to_download_", "empty_image_"),
    ),
    Sign(RequestRefused, "Any other answer that blames the request.", statuses=REQUEST_FAULTS),
    Sign(ProviderUnavailable, "The server failed, or its answer says nothing that is known."),
)


def sign_of(error: Error) -> Sign:
    """Return the first sign that fits; the last one fits every error."""
    return next(sign for sign in SIGNS if sign.matches(error))
