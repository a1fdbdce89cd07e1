"""Where no key of OpenAI is stored: types with a fallback answer by it, all other jobs wait until there is a key.

A gate asks before the claim, so that waiting uses nothing up, however long it lasts. An attempt that meets it all the same, because the key
was taken away a moment ago, is given back. A fallback answers only for a key that is not there, never for an OpenAI that fails.
"""

from __future__ import annotations

import json

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.failures import AttemptFailed, NotConfigured
from chalicelib.domain.jobs.job import Job, Usage
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.units import Ms
from chalicelib.ports import ResponseEnded
from chalicelib.services.worker.admission.circuit_gate import add_jitter
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.log_events import log_missing_api_key

RECHECK_MS = 300_000  # how soon a job that waits for a key looks again
CACHE_TTL_MS = 15_000  # how long an environment believes what it saw
LOCAL = "local"  # the model that results name where none was asked


async def api_key_gate(ctx: WorkerContext, job: Job) -> WaitUntil | None:
    """Until when a job that only OpenAI could answer has to wait; None: it need not.

    A type without instructions asks no model, and a type that is not known any more is told so by the claim.
    """
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:
        return None
    if not kind.instructions or kind.fallback is not None or await _has_key(ctx):
        return None
    log_missing_api_key(ctx)
    return WaitUntil(_next_check(ctx), HoldReason.OPENAI_NOT_CONFIGURED)


def hold_if_not_configured(ctx: WorkerContext, attempt: Attempt, failure: AttemptFailed | None) -> WaitUntil | None:
    """How long the job waits, if its attempt found no API key before a response was created: it counts for nothing."""
    if not isinstance(failure, NotConfigured) or attempt.response_started:
        return None
    ctx.local_state.api_key_present, ctx.local_state.key_read_at = False, ctx.clock.now()
    log_missing_api_key(ctx)
    return WaitUntil(_next_check(ctx), HoldReason.OPENAI_NOT_CONFIGURED)


def answer_with_fallback(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded | None:
    """The type's own answer, as if it had been streamed; None where it has none, or where the caller asked for a form of their own."""
    kind, body, now = attempt.kind, attempt.spec, ctx.clock.now()
    if kind.fallback is None or attempt.response_started or isinstance(body.config.response_format, dict):
        return None
    log_missing_api_key(ctx)
    answer = json.dumps(kind.fallback(body.input, body.options), ensure_ascii=False)
    attempt.used_fallback = True
    attempt.output.start_stage(kind.stages[1], now)
    attempt.output.append(answer, now)
    return ResponseEnded(Usage(), LOCAL)


async def _has_key(ctx: WorkerContext) -> bool:
    board, now = ctx.local_state, ctx.clock.now()
    if board.key_read_at is None or not 0 <= now - board.key_read_at < CACHE_TTL_MS:
        has_key = await ctx.provider.is_configured()
        board.api_key_present, board.key_read_at = has_key, ctx.clock.now()
    return board.api_key_present


def _next_check(ctx: WorkerContext) -> Ms:
    return add_jitter(ctx, ctx.clock.now() + RECHECK_MS)
