"""How an attempt ends without a result.

The provider's adapter translates its errors into these once, with `from exc`.

Users see the code; `error_class` groups codes. "retried": a new attempt follows while attempts are
left. "not counted": it does not count as an attempt.

AttemptFailed                 internal_error              retried; a fault of Headrace
├── ProviderRateLimited       provider_rate_limited       retried, after OpenAI's Retry-After
├── ProviderQuotaExhausted    provider_quota_exhausted
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
├── AuthenticationFailed      authentication_failed
├── NotConfigured             openai_not_configured       the job is held until a key is stored
├── ContentExpired            content_gone
├── DependencyFailed          dependency_failed
├── WorkerShutdown            worker_ending               retried at once; not counted
├── StoreUnavailable          store_unavailable           retried
└── AttemptTimedOut           timeout                     retried
"""

from __future__ import annotations

from typing import ClassVar

from chalicelib.domain.errors import HeadraceError


class AttemptFailed(HeadraceError):
    """The attempt failed."""

    code = "internal_error"
    error_class: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = True  # whether a new attempt may succeed
    counts_as_attempt: ClassVar[bool] = True  # whether it counts against `max_attempts`
    # What the user can do.
    suggestion: ClassVar[str] = "Retry the job. If it fails again, send the request id to the operator."

    def __init__(
        self,
        message: str = "",
        *,
        provider_status: int | None = None,
        provider_request_id: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.provider_status = provider_status
        self.provider_request_id = provider_request_id


class ProviderRateLimited(AttemptFailed):
    """OpenAI's rate limit was reached. The job waits as long as OpenAI asked for."""

    code, error_class = "provider_rate_limited", "rate_limit"
    suggestion = "No action needed: the job is retried. If this happens often, ask OpenAI for a higher rate limit or use a lower lane."


class ProviderQuotaExhausted(AttemptFailed):
    """The OpenAI account has no credit left or reached its spending limit."""

    code, error_class, retryable = "provider_quota_exhausted", "quota", False
    suggestion = "Add credit to the OpenAI account or raise its spending limit, then retry the job."


class ProviderUnavailable(AttemptFailed):
    """OpenAI answered with a server error."""

    code, error_class = "provider_unavailable", "server_error"
    suggestion = "No action needed: the job is retried. If this continues, check OpenAI's status page."


class ProviderTimeout(AttemptFailed):
    """OpenAI did not answer, or stopped answering, in time."""

    code, error_class = "provider_timeout", "timeout"
    suggestion = "No action needed: the job is retried. For long answers, raise `config.timeout`."


class ProviderConnectionLost(AttemptFailed):
    """The connection to OpenAI was lost."""

    code, error_class = "provider_connection_lost", "connection"
    suggestion = "No action needed: the job is retried."


class StreamCut(AttemptFailed):
    """OpenAI's stream ended without its final event, so the text may be incomplete."""

    code, error_class = "stream_cut", "stream"
    suggestion = "No action needed: the job is retried as a new attempt."


class StreamMalformed(AttemptFailed):
    """OpenAI's stream contained an event that could not be parsed."""

    code, error_class = "stream_malformed", "stream"
    suggestion = "No action needed: the job is retried as a new attempt."


class ReattachRefused(AttemptFailed):
    """OpenAI no longer streams this response."""

    code, error_class = "reattach_refused", "stream"
    suggestion = "No action needed: the response is fetched instead."


class ResponseLost(AttemptFailed):
    """OpenAI no longer stores the response of this attempt, or it was cancelled there."""

    code, error_class, counts_as_attempt = "response_lost", "stream", False
    suggestion = "No action needed: the job is retried as a new attempt."


class OutputInvalid(AttemptFailed):
    """The answer does not match the schema of its job type. The raw text is kept."""

    code, error_class = "output_invalid", "output"
    suggestion = "The job is retried. If it keeps failing, simplify the prompt or use a stronger model."


class ContentRefused(AttemptFailed):
    """The model refused to answer."""

    code, error_class, retryable = "content_refused", "refusal", False
    suggestion = "Change the prompt. The text of the job is the model's refusal."


class RequestRefused(AttemptFailed):
    """OpenAI refused the request as invalid."""

    code, error_class, retryable = "request_invalid", "invalid_request", False
    suggestion = "Correct the field that the message names, then submit the job again."


class AuthenticationFailed(AttemptFailed):
    """OpenAI refused the configured API key."""

    code, error_class, retryable = "authentication_failed", "authentication", False
    suggestion = "Ask the operator to replace the OpenAI key of this stage."


class NotConfigured(AttemptFailed):
    """No OpenAI key is configured for this stage."""

    code, error_class, retryable = "openai_not_configured", "configuration", False
    suggestion = "Ask the operator to store a key: `make openai-key STAGE=...`. The job is `held` until then and continues automatically."


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


class StoreUnavailable(AttemptFailed):
    """A service that the task depends on did not answer."""

    code, error_class = "store_unavailable", "server_error"
    suggestion = "No action needed: the task is run again from its beginning."


class AttemptTimedOut(AttemptFailed):
    """The attempt took longer than `config.timeout`."""

    code, error_class = "timeout", "timeout"
    suggestion = "Raise `config.timeout`, or lower `config.max_tokens`."
