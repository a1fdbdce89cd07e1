"""Keep within the rate limits of a model: ask before the claim, and learn from what the provider answers.

Models without known limits make no request. If the store does not answer, jobs run: the provider
refuses what is too much.

A job whose tenant has a line joins it and does not ask, so it does not pass those that wait. A job
that a scheduler has released brings a grant, for which the window was taken already.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.failures import ProviderRateLimited
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits import rate_limit as rules
from chalicelib.domain.limits.admission import HoldReason, RateTaken, WaitUntil
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit, TooLarge
from chalicelib.domain.limits.sliding_window import CEILINGS, Frames, added, fits, free_at
from chalicelib.domain.limits.waiting import JobWait, limit_of_model, start_by_record
from chalicelib.domain.queues.causes import CauseKind, cause_of, kind_of, subject_of
from chalicelib.domain.queues.wakeup import Grant
from chalicelib.domain.rate_headers import RateHeaders, Refusal
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.services.compare_and_swap import update_async
from chalicelib.services.scheduling.user_lines import first_held
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

CACHE_TTL_MS = 2_000
LIMITED_CACHE_TTL_MS = 500  # while a model may start nothing: who starts after that must see the next refusal soon
LINE_TTL_MS = 1_000  # how long an environment remembers whether a tenant has a line
LEARN_MS = 2_000  # between two writes of an environment about one model, without a refusal
STORE_TIMEOUT_SECONDS = 2.0
MAX_ATTEMPTS = 5
FALLBACK_AFTER_MS = 60_000  # a job with fallback models waits for its own model if that may start by then
UNASKED_MS, MAX_ALONE_MS = 2_000, 300_000  # the wait of a job that waits alone, if the provider asks for none


@dataclass(frozen=True, slots=True)
class Unlimited:
    """No limit of the model is known, so nothing was taken."""


async def load_rate_limits(ctx: WorkerContext) -> dict[str, RateLimit]:
    """Return the limits by model, at most two seconds old; empty if unavailable."""
    state, now = ctx.local_state, ctx.clock.now()
    is_blocked = any((limit.blocked_until or 0) + CACHE_TTL_MS > now for limit in state.rate_limits.values())
    ttl = LIMITED_CACHE_TTL_MS if is_blocked else CACHE_TTL_MS
    if state.rate_limits_read_at is None or not 0 <= now - state.rate_limits_read_at < ttl:
        state.rate_limits_read_at = now  # concurrent calls use the earlier values instead of reading too
        try:
            async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                limits = await ctx.offload(ctx.rates.limits)
            state.rate_limits = {limit.model: limit for limit in limits if limit.account == ACCOUNT}
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            ctx.log("rate_limits_unavailable", error=exc)
            state.rate_limits = {}
    return state.rate_limits


async def ask_rate(
    ctx: WorkerContext, job: Job, model: str, grant: Grant | None, *, may_take: bool = True
) -> RateTaken | Unlimited | TooLarge | WaitUntil:
    """Take what the next attempt of a job uses of its model's limits.

    Args:
        may_take: it is taken; otherwise the job only looks whether the model may start anything at all.
    """
    limit, now, cause = (await load_rate_limits(ctx)).get(model), ctx.clock.now(), cause_of(CauseKind.RATE, model)
    is_granted = grant is not None and grant.cause == cause
    if (granted := granted_rate(job, grant, now)) is not None and granted.model == model:
        return granted
    if is_granted and grant is not None:  # it has expired
        await give_back(ctx, RateTaken(model, job.tokens, grant.at))
    if limit is None:
        return Unlimited()
    allowed = rules.effective(limit, now)
    if (allowed.blocked_until or 0) > now:
        return WaitUntil(allowed.blocked_until, HoldReason.RATE_LIMITED, cause)
    if not may_take or not allowed.is_limited:
        return Unlimited()
    if (refused := rules.too_large(limit, job.tokens, now)) is not None:
        return refused
    try:
        if not is_granted and await _has_line(ctx, cause, job):
            return WaitUntil(now, HoldReason.RATE_LIMITED, cause)
        frames = await ctx.offload(ctx.rates.take, ACCOUNT, model, job.tokens, 1, now)
        taken = RateTaken(model, job.tokens, now)
        if fits(frames, allowed, job.tokens, now, CEILINGS.get(job.lane, 1.0)):
            return taken
        await give_back(ctx, taken)
    except Exception as exc:  # noqa: BLE001 - as in `load_rate_limits`
        ctx.log("rate_limits_unavailable", error=exc)
        return Unlimited()
    without = added(frames, now, -1, -job.tokens)  # this request was given back
    return WaitUntil(free_at(without, allowed, job.tokens, now), HoldReason.RATE_LIMITED, cause)


def granted_rate(job: Job, grant: Grant | None, now: Ms) -> RateTaken | None:
    """Return what a scheduler has taken for a job of the limits of a model; None: nothing, or too long ago."""
    if grant is None or kind_of(grant.cause) is not CauseKind.RATE or not grant.is_valid(now):
        return None
    return RateTaken(subject_of(grant.cause), job.tokens, grant.at)


async def _has_line(ctx: WorkerContext, cause: str, job: Job) -> bool:
    """Whether other jobs of the tenant wait for the cause; not, if that cannot be read: the window still counts."""
    known, now = ctx.local_state.lines_seen, ctx.clock.now()
    seen = known.get((cause, job.tenant))
    if seen is None or not 0 <= now - seen[0] < LINE_TTL_MS:
        try:
            held = await ctx.offload(first_held, ctx, cause, job.tenant, 2)
        except Exception as exc:  # noqa: BLE001 - as in `load_rate_limits`
            ctx.log("rate_line_unavailable", cause=cause, error=exc)
            return False
        seen = now, frozenset(one.job_id for one in held)
        known.put((cause, job.tenant), seen)
    return bool(seen[1] - {job.id})


async def give_back(ctx: WorkerContext, taken: RateTaken | None) -> None:
    """Give back what an attempt that does not start has taken. If that fails it counts for a minute."""
    if taken is None:
        return
    try:
        await ctx.offload(ctx.rates.give_back, ACCOUNT, taken.model, taken.tokens, 1, taken.at)
    except Exception as exc:  # noqa: BLE001 - a minute of the limit is lost, and nothing else
        ctx.log("rate_limits_unavailable", error=exc)


def wait_for_rate(ctx: WorkerContext, job: Job) -> JobWait | None:
    """Return what is known of the wait of a job in the line of a model, without a request; None: it is in no such line."""
    if job.cause is None or not job.is_in_line or kind_of(job.cause) is not CauseKind.RATE:
        return None
    model, now = subject_of(job.cause), ctx.clock.now()
    known = ctx.local_state.rate_limits.get(model)
    limit = limit_of_model(model, rules.effective(known, now), (), job.tokens, now) if known is not None else None
    return JobWait(limit=limit, start_at=start_by_record(job, now))


async def learn_from_answer(ctx: WorkerContext, model: str, headers: RateHeaders | None) -> None:
    """Learn from the headers of an answer; without any it still ends a row of refusals."""
    state, now = ctx.local_state, ctx.clock.now()
    seen = state.rate_limits.get(model) or RateLimit(model=model, account=ACCOUNT)
    told = headers or RateHeaders()
    if rules.learn_from_headers(seen, told, now) is seen or now - state.rates_learnt_at.get(model, 0) < LEARN_MS:
        return
    state.rates_learnt_at[model] = now
    await _update(ctx, seen, partial(_learnt_from_headers, headers=told, now=now))


async def learn_from_refusal(ctx: WorkerContext, attempt: Attempt, failure: ProviderRateLimited) -> WaitUntil:
    """Let all jobs of the model wait after a refusal, and learn the limit if it names one.

    Returns: how long the job waits: in the line of its model, or alone, if the limit is not that of
        the model, or others were answered since the job was refused the last time.
    """
    model, now, job = attempt.spec.config.model, ctx.clock.now(), attempt.job
    seen = (await load_rate_limits(ctx)).get(model) or RateLimit(model=model, account=ACCOUNT)
    was_refused = job.error is not None and job.error.code == ProviderRateLimited.code
    is_odd = was_refused and not seen.refusals and not failure.refusal.limit
    if failure.is_shared and not is_odd:
        frames = await _frames(ctx, model, now)
        refusal = replace(failure.refusal, wait=failure.refusal.wait if failure.retry_after is None else failure.retry_after * 1000)
        learnt = await _update(ctx, seen, partial(_learnt_from_refusal, refusal=refusal, frames=frames, headers=failure.rate, now=now))
        if learnt is not None and (learnt.blocked_until or 0) > now:
            return _wait_with_others(job, model, learnt, now)
    refusals = job.attempt - job.tries + 1
    unasked = round((0.5 + ctx.random() / 2) * min(MAX_ALONE_MS, UNASKED_MS << min(max(0, refusals - 1), 16)))
    wait = failure.retry_after * 1000 if failure.retry_after is not None else unasked
    return WaitUntil(now + min(rules.MAX_WAIT_MS, wait), HoldReason.RATE_LIMITED)


def _wait_with_others(job: Job, model: str, limit: RateLimit, now: Ms) -> WaitUntil:
    """One with fallback models does not wait for long: the gate chooses another model."""
    until = limit.blocked_until or now
    if job.fallback_models and until - now > FALLBACK_AFTER_MS:
        return WaitUntil(now, HoldReason.RATE_LIMITED)
    return WaitUntil(until, HoldReason.RATE_LIMITED, cause_of(CauseKind.RATE, model))


async def _frames(ctx: WorkerContext, model: str, now: Ms) -> Frames:
    """Return the starts of the last minute, as far as they were counted."""
    try:
        frames: Frames = await ctx.offload(ctx.rates.frames, ACCOUNT, model, now)
    except Exception as exc:  # noqa: BLE001 - as in `load_rate_limits`
        ctx.log("rate_limits_unavailable", error=exc)
        return ()
    return frames


def _learnt_from_headers(limit: RateLimit, *, headers: RateHeaders, now: Ms) -> RateLimit:
    return rules.learn_from_headers(limit, headers, now)


def _learnt_from_refusal(limit: RateLimit, *, refusal: Refusal, frames: Frames, headers: RateHeaders | None, now: Ms) -> RateLimit:
    return rules.learn_from_refusal(limit, refusal, frames, now, headers)


async def _update(ctx: WorkerContext, seen: RateLimit, change: partial[RateLimit]) -> RateLimit | None:
    """Change the limits of a model by compare-and-swap; None if the store does not answer in time."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            write = partial(ctx.offload, ctx.rates.save_limit)
            before, after = await update_async(
                write, seen, change, missing=RateLimit(model=seen.model, account=ACCOUNT), attempts=MAX_ATTEMPTS
            )
    except Exception as exc:  # noqa: BLE001 - no fault of the store may delay the end of a job
        ctx.log("rate_limits_unavailable", error=exc)
        return None
    known = ctx.local_state.rate_limits.get(seen.model, before)
    ctx.local_state.rate_limits[seen.model] = after
    if (after.blocked_until or 0) > (known.blocked_until or 0):
        ctx.log("model_paused", model=after.model, until=rfc3339(after.blocked_until), refusals=after.refusals)
    if (after.requests, after.tokens) != (known.requests, known.tokens):
        source = after.source.value if after.source is not None else None
        ctx.log("rate_limit_learnt", model=after.model, requests=after.requests, tokens=after.tokens, source=source)
    return after
