"""Ask the gates, in order, whether a job may run, before it is claimed.

A job that must wait is held and its message is acknowledged, so no worker waits with it (protocol:
a gate uses up no attempt).
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.admission import Admission, HoldReason, RunNow, WaitUntil
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, Permission, check_permission, origin_of, retry_at
from chalicelib.domain.limits.model_pause import FALLBACK_AFTER_MS, is_paused, spread
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up
from chalicelib.services.worker.admission.api_key_gate import api_key_gate
from chalicelib.services.worker.admission.circuit_gate import acquire_probe, add_jitter, load_circuit_breakers
from chalicelib.services.worker.admission.type_limit_gate import acquire_permit, release_permit
from chalicelib.services.worker.context import WorkerContext

UNKNOWN_TYPE_RECHECK_MS = 120_000  # a deployment takes some minutes


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
        return WaitUntil(add_jitter(ctx, ctx.clock.now() + UNKNOWN_TYPE_RECHECK_MS), HoldReason.TYPE_UNKNOWN)
    if job.is_resumable:
        return RunNow(job.asked_model)
    if kind.is_task != job.is_task:
        return RunNow(job.asked_model)
    if (wait := await api_key_gate(ctx, kind)) is not None:
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
    """Mark the job as held, then send a delayed wake-up
    (protocol rule 9: no frame before the write).

    Returns: the job record as it is now; None if the wake-up no longer applies to it.

    Raises:
        Unavailable: it is unknown whether the hold was written; the message must not be
            acknowledged.
    """
    clock = ctx.clock

    def change(seen: Job) -> Job | None:
        return transitions.hold(seen, wake_up.generation, wait.reason, wait.when, clock.now())

    held = await offload_with_retry(ctx, update_job, ctx.jobs, job, change)
    if held is not None and held.status is Status.HELD:
        await ctx.offload(try_send_wake_up, ctx, held)
    return held


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
            waits.append(WaitUntil(circuit.paused_until + spread(remaining, ctx.random()), HoldReason.RATE_LIMITED))
            if remaining <= FALLBACK_AFTER_MS:
                break
            continue
        permission = check_permission(circuit, origin, now)
        if permission is Permission.PROBE:
            permission = await acquire_probe(ctx, circuit, origin)
        if permission is not Permission.DENIED:
            return RunNow(model, probe=mark if permission is Permission.PROBE else None)
        denied = ctx.local_state.circuit_breakers.get(model, circuit)
        waits.append(WaitUntil(add_jitter(ctx, retry_at(denied, origin.tenant, now)), HoldReason.CIRCUIT_OPEN))
    return min(waits, key=lambda wait: wait.when)
