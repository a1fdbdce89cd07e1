"""Ask the gates, in order, whether a job may run, before it is claimed.

A job that must wait is held and its message is acknowledged, so no worker waits with it (protocol:
a gate uses up no attempt).
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import OWN_PAUSE
from chalicelib.domain.limits.admission import Admission, HoldReason, RunNow, WaitUntil
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, Permission, check_permission, origin_of, retry_at
from chalicelib.domain.limits.model_pause import FALLBACK_AFTER_MS, is_paused
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.scheduling.visits import wake_if_idle
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up
from chalicelib.services.worker.admission.api_key_gate import api_key_gate
from chalicelib.services.worker.admission.circuit_gate import acquire_probe, load_circuit_breakers
from chalicelib.services.worker.admission.pause_gate import pause_gate
from chalicelib.services.worker.admission.type_limit_gate import acquire_permit, release_permit
from chalicelib.services.worker.context import WorkerContext

SLOW_HOLD_MS = 10_000  # a hold that took so long joins its line again: the scheduler deletes the row of an empty one after 30 s


async def admit_job(ctx: WorkerContext, job: Job, limiter_lock: asyncio.Lock) -> Admission:
    """Decide whether the job may run now, and with which model.

    A job that its claim ends skips the gates: it is too late to start, or its type has become
    another kind. A job of an unknown type is held: a newer version of the code may have accepted
    it, and its workers may claim it. A resumable attempt skips the other gates, because it makes no
    new request.

    Args:
        limiter_lock: shared by the jobs of one invocation, so that they change a type limiter one
            after another instead of losing each other's compare-and-swaps.
    """
    if transitions.expire_if_late(job, ctx.clock.now()) is not None:
        return RunNow(job.asked_model)
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:
        return WaitUntil(None, HoldReason.TYPE_UNKNOWN, cause_of(CauseKind.CODE, job.type))
    if job.is_resumable:
        return RunNow(job.asked_model)
    if kind.is_task != job.is_task:
        return RunNow(job.asked_model)
    if (wait := await pause_gate(ctx, job) or await api_key_gate(ctx, kind)) is not None:
        return wait
    async with limiter_lock if kind.limits is not None else nullcontext():
        permitted = await acquire_permit(ctx, kind, job)
    if isinstance(permitted, WaitUntil) or kind.is_task:
        return permitted
    admission = await _circuit_gate(ctx, job)
    if isinstance(admission, RunNow):
        return replace(admission, permit=permitted.permit)
    await release_permit(ctx, kind.name, permitted.permit, ran=False)
    return admission


async def hold_job(ctx: WorkerContext, wake_up: WakeUp, job: Job, wait: WaitUntil) -> Job | None:
    """Mark the job as held, then send a delayed wake-up, or wake the scheduler of its line
    (protocol rule 9: no frame before the write).

    Returns: the job record as it is now; None if the wake-up no longer applies to it.

    Raises:
        Unavailable: it is unknown whether the hold was written; the message must not be
            acknowledged.
    """
    clock = ctx.clock

    def change(seen: Job) -> Job | None:
        return transitions.hold(seen, wake_up.generation, wait.reason, wait.when, clock.now(), wait.cause)

    joined = await join_line(ctx, job, wait)
    held = await offload_with_retry(ctx, update_job, ctx.jobs, job, change)
    if held is not None and held.status is Status.HELD:
        await announce_hold(ctx, held, joined)
    return held


@dataclass(frozen=True, slots=True)
class Joined:
    """That a line was joined."""

    at: Ms
    is_new: bool = False  # it had no row before


async def join_line(ctx: WorkerContext, job: Job, wait: WaitUntil | None) -> Joined:
    """Note that the line has a job, before the job is held in it: no job is in a line that nobody serves."""
    now = ctx.clock.now()
    if wait is None or wait.cause in (None, OWN_PAUSE):
        return Joined(now)
    return Joined(now, await offload_with_retry(ctx, ctx.lines.touch, wait.cause, job.tenant, now))


async def announce_hold(ctx: WorkerContext, held: Job, joined: Joined) -> None:
    """Let a held job be woken: by the scheduler of its line, or by a message for its time.

    The row of a line that nobody seems to be in is deleted after a while, so a hold that took long
    joins its line again (protocol rule 27: the row before the record). Of a job that is paused itself
    nobody serves the line: who resumes it wakes it.
    """
    if held.cause == OWN_PAUSE:
        return
    if held.cause is not None:
        is_new = joined.is_new
        if ctx.clock.now() - joined.at >= SLOW_HOLD_MS:
            is_new = await offload_with_retry(ctx, ctx.lines.touch, held.cause, held.tenant, ctx.clock.now())
        await ctx.offload(partial(wake_if_idle, ctx, held.cause, is_new=is_new))
    else:
        await ctx.offload(try_send_wake_up, ctx, held)


async def _circuit_gate(ctx: WorkerContext, job: Job) -> Admission:
    """Choose the first model, of the job's own and its fallback models, whose circuit allows it and
    that is not paused. For the end of a short pause the job waits, though it has fallback models.

    A probe is identified by the wake-up, not by the worker: if two workers have the same wake-up,
    one must not hold the job while the other claims it (protocol: one probe).
    """
    circuits, now, mark = await load_circuit_breakers(ctx), ctx.clock.now(), f"{job.id}#{job.generation}"
    origin = origin_of(mark, job.tenant, job.id)
    waits = []
    for model in (job.model, *job.fallback_models):
        circuit = circuits.get(model) or CircuitBreaker(model=model)
        if circuit.paused_until is not None and is_paused(circuit, now):
            remaining = circuit.paused_until - now
            waits.append(WaitUntil(circuit.paused_until, HoldReason.RATE_LIMITED, cause_of(CauseKind.RATE, model)))
            if remaining <= FALLBACK_AFTER_MS:
                break
            continue
        permission = check_permission(circuit, origin, now)
        if permission is Permission.PROBE:
            permission = await acquire_probe(ctx, circuit, origin)
        if permission is not Permission.DENIED:
            return RunNow(model, probe=mark if permission is Permission.PROBE else None)
        denied = ctx.local_state.circuit_breakers.get(model, circuit)
        cause = cause_of(CauseKind.CIRCUIT, model)
        waits.append(WaitUntil(retry_at(denied, origin.tenant, now), HoldReason.CIRCUIT_OPEN, cause))
    return min(waits, key=lambda wait: wait.when or 0)
