"""The limits of a kind of work as its jobs meet them: asked before the claim, kept while a job runs, given back at its end.

Only types that have limits come here; all others pay nothing. In doubt a job waits for some seconds: a limit is there to protect something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.limits import type_limiter as limiter_rules
from chalicelib.domain.limits.admission import HoldReason, RunNow, WaitUntil
from chalicelib.domain.limits.type_limiter import PermitDecision, TypeLimiter
from chalicelib.services.compare_and_swap import update_async
from chalicelib.services.worker.admission.circuit_gate import add_jitter
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

MAX_ATTEMPTS = 40  # each lost round means that somebody else has moved the turnstile on
MAX_BACKOFF_SECONDS = 0.1  # seconds between two rounds, by chance, so that those who come together do not stay together
STORE_TIMEOUT_SECONDS = 5.0
RENEW_SECONDS = 10.0  # a third of a slot's time
FALLBACK_DELAY_MS = 5_000


def limits_of(kind: JobType) -> Limits | None:
    """None: there are none, and nobody has to ask."""
    return None if kind.limits is None or kind.limits.is_unlimited else kind.limits


async def acquire_permit(ctx: WorkerContext, kind: JobType, job: Job) -> RunNow | WaitUntil:
    """Come in, or wait for the time that it is told; without a call where the type has no limits, else with one write.

    Whoever comes at its time has its place, and only needs a slot. The mark is that of a wake-up, not of a worker: of two workers with the
    same one neither may keep the other out.
    """
    limits = limits_of(kind)
    if limits is None:
        return RunNow(job.asked_model)
    now, mark = ctx.clock.now(), f"{job.id}#{job.generation}"
    told = job.resume_at if job.status is Status.HELD and job.reason in (HoldReason.TYPE_RATE, HoldReason.TYPE_CONCURRENCY) else None
    if told is not None and told > now + limiter_rules.CLOCK_TOLERANCE_MS:
        return WaitUntil(told, HoldReason(job.reason or HoldReason.TYPE_RATE))  # its wake-up came too early: its place is not used up
    in_time = told is not None and told >= now - limiter_rules.RESERVATION_TTL_MS
    latest = job.expires_at if job.started_at is None else job.retry_until or None

    decisions: list[PermitDecision] = []

    def acquire(seen: TypeLimiter) -> TypeLimiter:
        decisions.append(limiter_rules.acquire(seen, limits, mark, ctx.clock.now(), has_reservation=in_time, latest=latest))
        return decisions[-1].limiter

    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            await _update(ctx, kind.name, acquire)
    except (Unavailable, TimeoutError) as exc:
        ctx.log("type_limit_unavailable", job_id=job.id, tenant=job.tenant, type=kind.name, error=exc)
        return WaitUntil(add_jitter(ctx, now + FALLBACK_DELAY_MS), HoldReason.TYPE_LIMITS_UNKNOWN)
    decision = decisions[-1]
    if decision.until is not None:
        return WaitUntil(decision.until, HoldReason.TYPE_RATE if decision.by_rate else HoldReason.TYPE_CONCURRENCY)
    return RunNow(job.asked_model, permit=mark if limits.concurrency is not None else None)


async def renew_permit(ctx: WorkerContext, attempt: Attempt) -> None:
    """Renew the slot for as long as the attempt runs. What fails is tried again; a slot that is lost for a while costs only order."""
    if attempt.admission.permit is None:
        return
    mark = attempt.admission.permit
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await _update(ctx, attempt.kind.name, lambda seen: limiter_rules.renew(seen, mark, ctx.clock.now()))
        except Unavailable as exc:
            ctx.log("permit_not_renewed", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)


async def release_permit(ctx: WorkerContext, job_type: str, mark: str | None, *, ran: bool = True) -> None:
    """Let another one in. If that fails the slot comes back by its time."""
    if mark is None:
        return
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            await _update(ctx, job_type, lambda seen: limiter_rules.release(seen, mark, ctx.clock.now(), ran=ran))
    except (Unavailable, TimeoutError) as exc:
        ctx.log("permit_not_released", type=job_type, mark=mark, error=exc)


async def _update(ctx: WorkerContext, job_type: str, change: Callable[[TypeLimiter], TypeLimiter]) -> None:
    """Change the type's limiter, starting from the one that this environment saw last."""
    known = ctx.local_state.type_limiters
    seen = known.get(job_type) or await ctx.offload(ctx.type_limiters.get, job_type) or TypeLimiter(type=job_type)

    async def replace(seen: TypeLimiter, new: TypeLimiter) -> None:
        await ctx.offload(ctx.type_limiters.replace, seen, new, ctx.clock.now())

    _, known[job_type] = await update_async(
        replace,
        seen,
        change,
        missing=TypeLimiter(type=job_type),
        attempts=MAX_ATTEMPTS,
        pause=lambda: ctx.random() * MAX_BACKOFF_SECONDS,
    )
