"""The gates before the claim, in order. A job that must wait is given back at once: nobody sleeps with it, and no attempt is used up."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.admission import Admission, HoldReason, RunNow, WaitUntil
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, Permission, check_permission, retry_at
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up
from chalicelib.services.worker.admission.api_key_gate import api_key_gate
from chalicelib.services.worker.admission.circuit_gate import acquire_probe, add_jitter, load_circuit_breakers
from chalicelib.services.worker.admission.type_limit_gate import acquire_permit, release_permit
from chalicelib.services.worker.context import WorkerContext


async def admit_job(ctx: WorkerContext, job: Job, one_by_one: asyncio.Lock) -> Admission:
    """Whether the job may run now, and with which model. Jobs of one batch ask for the limits of their type `one_by_one`: all at once they
    would only be in each other's way.

    An attempt that goes on with a response that OpenAI has begun is not asked, because nothing new is requested; nor is a job whose time
    is over, because its claim ends it.
    """
    if job.is_resumable or transitions.expire_if_late(job, ctx.clock.now()) is not None:
        return RunNow(job.asked_model)
    if (wait := await api_key_gate(ctx, job)) is not None:
        return wait
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:  # the claim ends it
        return RunNow(job.asked_model)
    async with one_by_one if kind.limits is not None else nullcontext():
        turn = await acquire_permit(ctx, kind, job)
    if isinstance(turn, WaitUntil) or kind.handler is not None:
        return turn
    admission = await _circuit_gate(ctx, job)
    if isinstance(admission, RunNow):
        return replace(admission, permit=turn.permit)
    await release_permit(ctx, kind.name, turn.permit, ran=False)
    return admission


async def hold_job(ctx: WorkerContext, wake_up: WakeUp, job: Job, wait: WaitUntil) -> Job | None:
    """Write that it waits, then send the wake-up for its time [9]. The head as it is now, None if it is somebody else's by now.

    Raises:
        Unavailable: whether it was written is unknown; its message has to come again.
    """
    clock = ctx.clock

    def change(seen: Job) -> Job | None:
        return transitions.hold(seen, wake_up.generation, wait.reason, wait.when, clock.now())

    held = await offload_with_retry(ctx, update_job, ctx.jobs, job, change)
    if held is not None and held.status is Status.HELD:
        await ctx.offload(try_send_wake_up, ctx, held)
    return held


async def _circuit_gate(ctx: WorkerContext, job: Job) -> Admission:
    """The job's own model if its circuit lets it through, if only as a probe; else the first of its others that does.

    The probe is a wake-up's, not a worker's: of two workers that have the same one neither may send the job away as the other claims it.
    """
    circuits, now, mark = await load_circuit_breakers(ctx), ctx.clock.now(), f"{job.id}#{job.generation}"
    shut = []
    for model in (job.model, *job.fallback_models):
        circuit = circuits.get(model) or CircuitBreaker(model=model)
        entry = check_permission(circuit, mark, now)
        if entry is Permission.PROBE:
            entry = await acquire_probe(ctx, circuit, mark)
        if entry is not Permission.DENIED:
            return RunNow(model, probe=mark if entry is Permission.PROBE else None)
        shut.append(ctx.local_state.circuits.get(model, circuit))
    return WaitUntil(add_jitter(ctx, min(retry_at(circuit, now) for circuit in shut)), HoldReason.CIRCUIT_OPEN)
