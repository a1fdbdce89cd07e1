"""How an attempt ends without a result. A provider's adapter translates its errors into these, once, with `from exc`."""

from __future__ import annotations

from typing import ClassVar

from chalicelib.domain.errors import HeadraceError


class AttemptFailed(HeadraceError):
    """The attempt failed."""

    code = "internal_error"
    error_class: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = True
    counts_as_attempt: ClassVar[bool] = True  # it counts against `max_attempts`
    suggestion: ClassVar[str] = "Retry the job; if it fails again, tell the operator the request id."

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
    """OpenAI's rate limit was reached; the job waits as long as OpenAI asked."""

    code, error_class = "provider_rate_limited", "rate_limit"
    suggestion = "Nothing to do: it is retried. If it happens often, ask for a higher rate limit or use a lower lane."


class ProviderQuotaExhausted(AttemptFailed):
    """The OpenAI account has no credit left or reached its spending limit."""

    code, error_class, retryable = "provider_quota_exhausted", "quota", False
    suggestion = "Add credit or raise the limit of the OpenAI account, then retry the job."


class ProviderUnavailable(AttemptFailed):
    """OpenAI answered with a server error."""

    code, error_class = "provider_unavailable", "server_error"
    suggestion = "Nothing to do: it is retried. See OpenAI's status page if it goes on."


class ProviderTimeout(AttemptFailed):
    """OpenAI did not answer, or stopped answering, in time."""

    code, error_class = "provider_timeout", "timeout"
    suggestion = "Nothing to do: it is retried. For long answers raise `config.timeout`."


class ProviderConnectionLost(AttemptFailed):
    """The connection to OpenAI was lost."""

    code, error_class = "provider_connection_lost", "connection"
    suggestion = "Nothing to do: it is retried."


class StreamCut(AttemptFailed):
    """OpenAI's stream ended without its final event, so the text may be incomplete."""

    code, error_class = "stream_cut", "stream"
    suggestion = "Nothing to do: it is retried as a new attempt."


class StreamMalformed(AttemptFailed):
    """OpenAI's stream had an event that could not be read."""

    code, error_class = "stream_malformed", "stream"
    suggestion = "Nothing to do: it is retried as a new attempt."


class ReattachRefused(AttemptFailed):
    """OpenAI streams this response no more."""

    code, error_class = "reattach_refused", "stream"
    suggestion = "Nothing to do: the answer is fetched instead."


class ResponseLost(AttemptFailed):
    """OpenAI no longer has the response that this attempt began, or it was cancelled there."""

    code, error_class, counts_as_attempt = "response_lost", "stream", False
    suggestion = "Nothing to do: it is retried as a new attempt."


class OutputInvalid(AttemptFailed):
    """The answer does not fit the schema of its job type; the raw text is kept."""

    code, error_class = "output_invalid", "output"
    suggestion = "It is retried; if it keeps failing, simplify the prompt or use a stronger model."


class ContentRefused(AttemptFailed):
    """The model refused to answer."""

    code, error_class, retryable = "content_refused", "refusal", False
    suggestion = "Change the prompt. The refusal is kept as the text of the job."


class RequestRefused(AttemptFailed):
    """OpenAI refused the request as invalid."""

    code, error_class, retryable = "request_invalid", "invalid_request", False
    suggestion = "Correct the field that the message names and submit again."


class AuthenticationFailed(AttemptFailed):
    """OpenAI refused the configured API key."""

    code, error_class, retryable = "authentication_failed", "authentication", False
    suggestion = "Tell the operator: the OpenAI key of this stage has to be replaced."


class NotConfigured(AttemptFailed):
    """No OpenAI key is configured for this stage."""

    code, error_class, retryable = "openai_not_configured", "configuration", False
    suggestion = "Tell the operator to store a key: `make openai-key STAGE=...`. The job waits as `held`, and goes on by itself then."


class ContentExpired(AttemptFailed):
    """What this job was asked to do is no longer kept."""

    code, error_class, retryable = "content_gone", "internal", False
    suggestion = "Submit the job again."


class DependencyFailed(AttemptFailed):
    """A job that this one depends on did not complete."""

    code, error_class, retryable = "dependency_failed", "dependency", False
    suggestion = "Look at the job that the message names; when it is completed, retry this one. `on_parent_failure` says what to do else."


class WorkerShutdown(AttemptFailed):
    """The worker's time was over before the answer was."""

    code, error_class, counts_as_attempt = "worker_ending", "internal", False
    suggestion = "Nothing to do: it is tried again at once. Answers that take minutes are safer with `config.durable`."


class StoreUnavailable(AttemptFailed):
    """Something that the work needs did not answer."""

    code, error_class = "store_unavailable", "server_error"
    suggestion = "Nothing to do: it is done again from its beginning."


class AttemptTimedOut(AttemptFailed):
    """The attempt took longer than `config.timeout`."""

    code, error_class = "timeout", "timeout"
    suggestion = "Raise `config.timeout`, or lower `config.max_tokens`."
