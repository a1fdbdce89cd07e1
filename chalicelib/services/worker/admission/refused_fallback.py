"""Leave out a fallback model that refuses the job's request.

A fallback model may take less than the job's own: other parameters, a shorter context, no schemas, a
stricter filter of content. It is asked only for more safety, so its refusal does not end the job: the next fallback model is
asked, or the job waits for its own model. The model is removed from the job record, so it is not
asked again in this run, and the attempt does not count.
"""

from __future__ import annotations

from chalicelib.domain.failures import AttemptFailed, ContentRefused, RequestRefused
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext


def refused_fallback(attempt: Attempt, failure: AttemptFailed | None) -> str | None:
    """Return the fallback model of the attempt if it refused the request before there was any text.

    Some servers find out when the stream is open, such as that the prompt is too long.
    """
    refused = isinstance(failure, (RequestRefused, ContentRefused)) and attempt.output.first_token_at is None
    return attempt.job.attempt_model if refused else None


def skip_refused_fallback(ctx: WorkerContext, attempt: Attempt, failure: AttemptFailed | None) -> WaitUntil | None:
    """Return that the job is admitted anew, at once, if its fallback model refused the request; None otherwise."""
    model = refused_fallback(attempt, failure)
    if model is None:
        return None
    ctx.log("fallback_model_skipped", job_id=attempt.job.id, tenant=attempt.job.tenant, model=model)
    return WaitUntil(ctx.clock.now(), HoldReason.CIRCUIT_OPEN)
