"""Evaluate an attempt whose text is complete: outcome, result, and the failure if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.execution.result import Result
from chalicelib.domain.failures import AttemptFailed, ContentRefused, ProviderRateLimited, RequestRefused
from chalicelib.domain.jobs.job import Job, JobError, Status
from chalicelib.domain.jobs.transitions import COMPLETED_RETENTION_DAYS, AttemptOutcome
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import ResponseEnded
from chalicelib.services.prompts.model_request import parsed_output
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.usage import cost_of, measure_usage

MAX_MESSAGE_LENGTH = 300  # stored in the job record; every change of it is charged by the size of the whole record


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of one attempt."""

    outcome: AttemptOutcome  # for the job record
    result: Result  # stored with the job's data
    failure: AttemptFailed | None  # None unless it failed


async def evaluate_attempt(ctx: WorkerContext, attempt: Attempt, ended: ResponseEnded | None, failure: AttemptFailed | None) -> Evaluation:
    """Evaluate an attempt.

    Args:
        ended: the provider's final event; None if it did not come.
        failure: why the attempt failed. With neither the attempt was cancelled.
    """
    parsed: Any = None
    if ended is not None:
        attempt.output.start_stage("validation", ctx.clock.now())
        try:
            parsed = await _parse_output(ctx, attempt, ended)
        except AttemptFailed as exc:
            failure = exc
    now = ctx.clock.now()
    attempt.output.start_stage("finalization", now)
    usage = None if _is_refused(attempt, failure) else measure_usage(attempt, ended)
    model = (ended.model if ended else None) or attempt.spec.config.model
    outcome = AttemptOutcome(
        status=_status(ended, failure),
        length=len(attempt.output.transcript),
        usage=usage,
        cost=0 if attempt.is_free else cost_of(ctx.prices, model, usage, ended.tier if ended else attempt.asked_tier),
        error=job_error(failure, attempt.job) if failure else None,
        incomplete_reason=ended.incomplete_reason if ended else None,
        first_token_at=attempt.output.first_token_at,
    )
    result = Result(
        job_id=attempt.job.id,
        attempt=attempt.number,
        text=attempt.output.transcript.text,
        generation=attempt.generation,
        parsed=parsed,
        status=outcome.status.value,
        finish_reason=_finish_reason(outcome),
        model=model,
        usage=usage,
        cost=outcome.cost,
        looked_up=attempt.cache_lookup,
        started_at=attempt.started_at,
        first_token_at=attempt.output.first_token_at,
        finished_at=now,
        error_code=outcome.error.code if outcome.error else None,
        fallback=attempt.used_fallback,
        ttl=now // 1000 + COMPLETED_RETENTION_DAYS * 86_400,
    )
    return Evaluation(outcome, result, failure)


def _is_refused(attempt: Attempt, failure: AttemptFailed | None) -> bool:
    """Whether the provider refused the request after its response had begun, and charges nothing."""
    return isinstance(failure, (RequestRefused, ProviderRateLimited)) and attempt.output.first_token_at is None and not attempt.is_free


def job_error(failure: AttemptFailed, job: Job) -> JobError:
    """Return the failure as the job record stores it."""
    return JobError(
        code=failure.code,
        error_class=failure.error_class,
        retryable=failure.retryable,
        message=repair_surrogates(failure.message)[:MAX_MESSAGE_LENGTH],
        suggestion=failure.suggestion,
        attempt=job.attempt,
        provider_status=failure.provider_status,
        provider_request_id=failure.provider_request_id,
    )


async def _parse_output(ctx: WorkerContext, attempt: Attempt, ended: ResponseEnded) -> Any:
    """Return the parsed output; None for an incomplete response, because it fits no schema.

    It is validated on a thread: meanwhile the leases of this worker have to be renewed.

    Raises:
        AttemptFailed: the model refused to answer, or the output does not fit its schema.
    """
    if attempt.refused:
        raise ContentRefused
    if ended.incomplete_reason:
        return None
    return await ctx.offload(parsed_output, attempt.output.transcript.text, attempt.spec, attempt.kind, attempt.last_message_at)


def _status(ended: ResponseEnded | None, failure: AttemptFailed | None) -> Status:
    if failure is not None:
        return Status.FAILED
    if ended is None:
        return Status.CANCELLED
    return Status.INCOMPLETE if ended.incomplete_reason else Status.COMPLETED


def _finish_reason(outcome: AttemptOutcome) -> str:
    if outcome.status is Status.COMPLETED:
        return "stop"
    return outcome.incomplete_reason or outcome.status.value
