"""Limit the jobs of a type: acquire a permit before the claim, renew it, release it at the end.

Types without limits make no request. If the limiter cannot be read or written the job waits some
seconds, because a limit protects something (protocol: one reservation per job).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.limits import type_limiter as limiter_rules
from chalicelib.domain.limits.admission import HoldReason, RunNow, WaitUntil
from chalicelib.domain.limits.type_limiter import PermitDecision, TypeLimiter
from chalicelib.services.compare_and_swap import update_async
from chalicelib.services.worker.admission.circuit_gate import add_jitter
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

MAX_ATTEMPTS = 40  # each lost attempt means that another worker changed the limiter
MAX_BACKOFF_SECONDS = 0.1  # the pause after a lost attempt is random, so that writers who collided do not collide again
STORE_TIMEOUT_SECONDS = 5.0
RENEW_SECONDS = 10.0  # a third of a slot's lifetime
FALLBACK_DELAY_MS = 5_000  # how long a job waits if the limiter is unavailable


def limits_of(kind: JobType) -> Limits | None:
    """Return the limits of the type; None if it is unlimited."""
    return None if kind.limits is None or kind.limits.is_unlimited else kind.limits


async def acquire_permit(ctx: WorkerContext, kind: JobType, job: Job) -> RunNow | WaitUntil:
    """Acquire a permit for the job, or reserve the earliest time at which it may start.

    Makes no request if the type is unlimited, otherwise one write. A job that comes at its reserved
    time needs only a slot. The holder is the wake-up, not the worker: of two workers with the same
    wake-up neither may keep the other out.

    Returns: `RunNow`, or `WaitUntil` the reserved time; if the limiter is unavailable, until some
        seconds from now.
    """
    limits = limits_of(kind)
    if limits is None:
        return RunNow(job.asked_model)
    now, holder = ctx.clock.now(), f"{job.id}#{job.generation}"
    reserved_at = job.resume_at if job.status is Status.HELD and job.reason in (HoldReason.TYPE_RATE, HoldReason.TYPE_CONCURRENCY) else None
    if reserved_at is not None and reserved_at > now + limiter_rules.CLOCK_TOLERANCE_MS:
        return WaitUntil(reserved_at, HoldReason(job.reason or HoldReason.TYPE_RATE))  # the wake-up came too early; the reservation stays
    has_reservation = reserved_at is not None and reserved_at >= now - limiter_rules.RESERVATION_TTL_MS
    latest = job.expires_at if job.started_at is None else job.retry_until or None

    decisions: list[PermitDecision] = []

    def acquire(seen: TypeLimiter) -> TypeLimiter:
        decisions.append(limiter_rules.acquire(seen, limits, holder, ctx.clock.now(), has_reservation=has_reservation, latest=latest))
        return decisions[-1].limiter

    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            await _update(ctx, kind.name, acquire)
    except (Unavailable, UnreadableRecord, TimeoutError) as exc:
        ctx.log("type_limit_unavailable", job_id=job.id, tenant=job.tenant, type=kind.name, error=exc)
        return WaitUntil(add_jitter(ctx, now + FALLBACK_DELAY_MS), HoldReason.TYPE_LIMITS_UNKNOWN)
    decision = decisions[-1]
    if decision.until is not None:
        return WaitUntil(decision.until, HoldReason.TYPE_RATE if decision.by_rate else HoldReason.TYPE_CONCURRENCY)
    return RunNow(job.asked_model, permit=holder if limits.concurrency is not None else None)


async def renew_permit(ctx: WorkerContext, attempt: Attempt) -> None:
    """Renew the permit's slot until cancelled.

    A renewal that fails is repeated. If the slot expires meanwhile, one more job of the type may
    run than the limit allows.
    """
    if attempt.admission.permit is None:
        return
    holder = attempt.admission.permit
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await _update(ctx, attempt.kind.name, lambda seen: limiter_rules.renew(seen, holder, ctx.clock.now()))
        except (Unavailable, UnreadableRecord) as exc:
            ctx.log("permit_not_renewed", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)


async def release_permit(ctx: WorkerContext, job_type: str, holder: str | None, *, ran: bool = True) -> None:
    """Release the slot of a permit. If that fails, the slot expires by itself.

    Args:
        holder: the permit; None if the type has no concurrency limit.
        ran: the job has run, so the time that it held the slot counts towards the average.
    """
    if holder is None:
        return
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            await _update(ctx, job_type, lambda seen: limiter_rules.release(seen, holder, ctx.clock.now(), ran=ran))
    except (Unavailable, UnreadableRecord, TimeoutError) as exc:
        ctx.log("permit_not_released", type=job_type, mark=holder, error=exc)


async def _update(ctx: WorkerContext, job_type: str, change: Callable[[TypeLimiter], TypeLimiter]) -> None:
    """Change the type's limiter by compare-and-swap.

    The first attempt uses the version that this environment saw last, to save a read.

    Raises:
        Unavailable: the store did not answer, or other workers changed the limiter first each time.
    """
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
