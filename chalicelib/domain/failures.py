"""How an attempt ends without a result.

The provider's adapter translates its errors into these once, with `from exc`.

Users see the code; `error_class` groups codes. "retried": a new attempt follows while attempts are
left. "held": the job waits, and the attempt does not count. "not counted": it does not count as an
attempt.

AttemptFailed                 internal_error              retried; a fault of Headrace
├── ProviderRateLimited       provider_rate_limited       held, as long as OpenAI asks; its model is paused
├── ProviderQuotaExhausted    provider_quota_exhausted    held while the circuit is open
├── ProviderUnavailable       provider_unavailable        retried
├── ProviderTimeout           provider_timeout            retried
├── ProviderConnectionLost    provider_connection_lost    retried
├── StreamCut                 stream_cut                  retried
├── StreamMalformed           stream_malformed            retried
├── ReattachRefused           reattach_refused            not final: the response is fetched instead
├── ResponseLost              response_lost               retried; not counted
├── OutputInvalid             output_invalid              retried
├── ContentRefused            content_refused
├── RequestRefused            request_invalid
├── AuthenticationFailed      authentication_failed       held while the circuit is open
├── NotConfigured             openai_not_configured       held until a key is stored
│   ├── AddressInvalid        openai_address_invalid      held until the address is mended
│   └── WorkerMisconfigured   worker_misconfigured        held until the worker is mended
├── ContentExpired            content_gone
├── DependencyFailed          dependency_failed
├── WorkerShutdown            worker_ending               retried at once; not counted
├── StoreUnavailable          store_unavailable           retried
└── AttemptTimedOut           timeout                     retried
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.rate_headers import RateHeaders, Refusal


class AttemptFailed(HeadraceError):
    """The attempt failed."""

    code = "internal_error"
    error_class: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = True  # whether a new attempt may succeed
    counts_as_attempt: ClassVar[bool] = True  # whether it counts against `max_attempts`
    # Whether the job is held until the cause is over: it is outside of the job and costs nothing.
    waits: ClassVar[bool] = False
    # What the user can do while the job goes on, or in the end if there is nothing more to do then.
    suggestion: str = "Retry the job. If it fails again, send the request id to the operator."
    final_suggestion: ClassVar[str] = ""  # the same once the job has failed; empty: `suggestion`

    def __init__(
        self,
        message: str = "",
        *,
        provider_status: int | None = None,
        provider_request_id: str | None = None,
        retry_after: int | None = None,
        suggestion: str = "",
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.provider_status = provider_status
        self.provider_request_id = provider_request_id
        if suggestion:
            self.suggestion = suggestion


class ProviderRateLimited(AttemptFailed):
    """OpenAI's rate limit was reached."""

    code, error_class, waits = "provider_rate_limited", "rate_limit", True
    suggestion = "No action needed: the job waits and goes on by itself. If this happens often, ask OpenAI for a higher rate limit."
    final_suggestion = "Retry the job later, or with a longer `config.retry_for`. A higher rate limit at OpenAI shortens the wait."
    is_shared = True  # the limit is that of the model, so that its other jobs wait, too
    refusal = Refusal()  # the numbers that the message names
    rate: RateHeaders | None = None  # what the headers of the response say


class ProviderQuotaExhausted(AttemptFailed):
    """The OpenAI account has no credit left or reached its spending limit."""

    code, error_class, retryable, waits = "provider_quota_exhausted", "quota", False, True
    suggestion = "Ask the operator to add credit to the OpenAI account or to raise its spending limit. The job is `held` until then."
    final_suggestion = "Ask the operator to add credit to the OpenAI account or to raise its spending limit, then retry the job."


class ProviderUnavailable(AttemptFailed):
    """OpenAI answered with a server error."""

    code, error_class = "provider_unavailable", "server_error"
    suggestion = "No action needed: the job is retried. If this continues, check OpenAI's status page."
    final_suggestion = "Check OpenAI's status page, then retry the job. If only this job fails, change its prompt."


class ProviderTimeout(AttemptFailed):
    """OpenAI did not answer, or stopped answering, in time."""

    code, error_class = "provider_timeout", "timeout"
    suggestion = "No action needed: the job is retried. For long answers, raise `config.timeout`."
    final_suggestion = "Retry the job later. For long answers, raise `config.timeout`."


class ProviderConnectionLost(AttemptFailed):
    """The connection to OpenAI was lost."""

    code, error_class = "provider_connection_lost", "connection"
    suggestion = "No action needed: the job is retried."
    final_suggestion = "Check OpenAI's status page, then retry the job."


class StreamCut(AttemptFailed):
    """OpenAI's stream ended without its final event, so the text may be incomplete."""

    code, error_class = "stream_cut", "stream"
    suggestion = "No action needed: the job is retried as a new attempt."
    final_suggestion = "Retry the job. If it fails again, send the request id to the operator."


class StreamMalformed(AttemptFailed):
    """OpenAI's stream contained an event that could not be parsed."""

    code, error_class = "stream_malformed", "stream"
    suggestion = "No action needed: the job is retried as a new attempt."
    final_suggestion = "Retry the job. If it fails again, send the request id to the operator."


class ReattachRefused(AttemptFailed):
    """OpenAI no longer streams this response."""

    code, error_class = "reattach_refused", "stream"
    suggestion = "No action needed: the response is fetched instead."


class ResponseLost(AttemptFailed):
    """OpenAI no longer stores the response of this attempt, or it was cancelled there."""

    code, error_class, counts_as_attempt = "response_lost", "stream", False
    suggestion = "No action needed: the job is retried as a new attempt."
    final_suggestion = "Retry the job. If it fails again, send the request id to the operator."


class OutputInvalid(AttemptFailed):
    """The answer does not match the schema of its job type. The raw text is kept."""

    code, error_class = "output_invalid", "output"
    suggestion = "The job is retried. If it keeps failing, simplify the prompt or use a stronger model."
    final_suggestion = "Simplify the prompt or use a stronger model, then retry the job."


class ContentRefused(AttemptFailed):
    """The model refused to answer."""

    code, error_class, retryable = "content_refused", "refusal", False
    suggestion = "Change the prompt. If the model itself refused, its words are the text of the job."


class RequestRefused(AttemptFailed):
    """OpenAI refused the request as invalid."""

    code, error_class, retryable = "request_invalid", "invalid_request", False
    suggestion = "Correct what the message names, then submit the job again."


class AuthenticationFailed(AttemptFailed):
    """OpenAI refused the configured API key."""

    code, error_class, retryable, waits = "authentication_failed", "authentication", False, True
    suggestion = "Ask the operator to replace the OpenAI key of this stage: `make openai-key STAGE=...`. The job is `held` until then."
    final_suggestion = "Ask the operator to replace the OpenAI key of this stage: `make openai-key STAGE=...`. Then retry the job."


class NotConfigured(AttemptFailed):
    """No OpenAI key is configured for this stage."""

    code, error_class, retryable, waits = "openai_not_configured", "configuration", False, True
    suggestion = "Ask the operator to store a key: `make openai-key STAGE=...`. The job is `held` until then and continues automatically."
    final_suggestion = "Ask the operator to store a key: `make openai-key STAGE=...`. Then retry the job."


class AddressInvalid(NotConfigured):
    """The configured address is not that of a Responses API."""

    code = "openai_address_invalid"
    suggestion = (
        "Ask the operator to store the right address: `OPENAI_BASE_URL=... make openai-key STAGE=...`. "
        "The job is `held` until then and continues automatically."
    )
    final_suggestion = "Ask the operator to store the right address: `OPENAI_BASE_URL=... make openai-key STAGE=...`. Then retry the job."


class WorkerMisconfigured(NotConfigured):
    """The worker lacks something that it needs to run this job."""

    code = "worker_misconfigured"
    suggestion = (
        "Ask the operator to mend what the message names: the worker's packages or its proxy variables. "
        "The job is `held` until then and continues automatically."
    )
    final_suggestion = "Ask the operator to mend what the message names: the worker's packages or its proxy variables. Then retry the job."


class ContentExpired(AttemptFailed):
    """The content of this job (its prompt or input) has expired."""

    code, error_class, retryable = "content_gone", "internal", False
    suggestion = "Submit the job again."


class DependencyFailed(AttemptFailed):
    """A job that this one depends on did not complete."""

    code, error_class, retryable = "dependency_failed", "dependency", False
    suggestion = "Fix the job that the message names, then retry this one. `on_parent_failure` sets what happens when a parent fails."


class WorkerShutdown(AttemptFailed):
    """The worker had to shut down before the answer was complete."""

    code, error_class, counts_as_attempt = "worker_ending", "internal", False
    suggestion = "No action needed: the job is retried at once. For answers that take minutes, set `config.durable`."
    final_suggestion = "Retry the job. For answers that take minutes, set `config.durable`."


class StoreUnavailable(AttemptFailed):
    """A service that the task depends on did not answer."""

    code, error_class = "store_unavailable", "server_error"
    suggestion = "No action needed: the task is run again from its beginning."
    final_suggestion = "Retry the job later."


class AttemptTimedOut(AttemptFailed):
    """The attempt took longer than `config.timeout`."""

    code, error_class = "timeout", "timeout"
    suggestion = "Raise `config.timeout`, or lower `config.max_tokens`. For more than 840 s set `config.durable`."


def final_suggestion(code: str, suggestion: str) -> str:
    """Return what the user of a failed job can do: the suggestion of its error may speak of a job
    that goes on.

    Args:
        suggestion: that of the error.
    """
    kind = _KINDS.get(code)
    is_own = kind is not None and suggestion == kind.suggestion  # one that the provider's words gave is final already
    return kind.final_suggestion or suggestion if kind is not None and is_own else suggestion


def _kinds(kind: type[AttemptFailed]) -> Iterator[type[AttemptFailed]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _kinds(inner)


_KINDS = {kind.code: kind for kind in _kinds(AttemptFailed)}
