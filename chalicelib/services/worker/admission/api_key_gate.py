"""While no OpenAI key is stored, answer jobs with their type's fallback and hold all others.

The gate comes before the claim, so that waiting uses up no attempt. If the key is removed between
the gate and the request, the attempt is given back and does not count. A fallback replaces only a
missing key, never a failing OpenAI.
"""

from __future__ import annotations

import json

from chalicelib.domain.failures import AttemptFailed, NotConfigured
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.queues.causes import MISSING_KEY, CauseKind, cause_of
from chalicelib.ports import ResponseEnded
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.log_events import log_missing_api_key

CACHE_TTL_MS = 15_000  # how long an environment caches whether there is a key
_CAUSES = {
    HoldReason.OPENAI_NOT_CONFIGURED: MISSING_KEY,
    HoldReason.OPENAI_ADDRESS_INVALID: cause_of(CauseKind.OPENAI, "address"),
    HoldReason.WORKER_MISCONFIGURED: cause_of(CauseKind.OPENAI, "worker"),
}
LOCAL_MODEL = "local"  # the model that results name if the fallback answered


async def api_key_gate(ctx: WorkerContext, kind: JobType) -> WaitUntil | None:
    """Return that a job of this type waits for an OpenAI key; None if it need not wait.

    A type without instructions asks no model.
    """
    if not kind.instructions or kind.fallback is not None or await _has_key(ctx):
        return None
    log_missing_api_key(ctx)
    return WaitUntil(None, HoldReason.OPENAI_NOT_CONFIGURED, MISSING_KEY)


def hold_if_not_configured(ctx: WorkerContext, attempt: Attempt, failure: AttemptFailed | None) -> WaitUntil | None:
    """Return that the job waits if its attempt found no OpenAI key, or one that cannot be used
    because of its address or of the worker; None otherwise.

    Such an attempt does not count. If it has created a response, which is charged, the job does not
    wait here but fails or retries as usual. Only a missing key keeps other jobs from their attempt:
    what a server answers may be about this request.
    """
    if not isinstance(failure, NotConfigured) or attempt.response_started:
        return None
    reason = HoldReason(failure.code)
    if reason is HoldReason.OPENAI_NOT_CONFIGURED:
        ctx.local_state.api_key_present, ctx.local_state.api_key_read_at = False, ctx.clock.now()
    log_missing_api_key(ctx, failure)
    return WaitUntil(None, reason, _CAUSES[reason])


def answer_with_fallback(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded | None:
    """Append the type's fallback answer to the transcript as if it had been streamed.

    Returns: None if the type has no fallback, the provider had created a response, or the caller
        gave a JSON schema, which the fallback's answer need not fit.
    """
    kind, spec, now = attempt.kind, attempt.spec, ctx.clock.now()
    if kind.fallback is None or attempt.response_started or isinstance(spec.config.response_format, dict):
        return None
    log_missing_api_key(ctx)
    answer = json.dumps(kind.fallback(spec.input, spec.options), ensure_ascii=False)
    attempt.used_fallback = True
    attempt.output.start_stage(kind.stages[1], now)
    attempt.output.append(answer, now)
    return ResponseEnded(Usage(), LOCAL_MODEL)


async def _has_key(ctx: WorkerContext) -> bool:
    state, now = ctx.local_state, ctx.clock.now()
    if state.api_key_read_at is None or not 0 <= now - state.api_key_read_at < CACHE_TTL_MS:
        has_key = await ctx.provider.is_configured()
        state.api_key_present, state.api_key_read_at = has_key, ctx.clock.now()
    return state.api_key_present
