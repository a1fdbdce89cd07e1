"""Ask the gates, in order, whether a job may run, before it is claimed.

A job that must wait is held and its message is acknowledged, so no worker waits with it (protocol:
a gate uses up no attempt).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.errors import JobTypeNotFound, Unavailable, UnreadableRecord
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.transitions import OWN_PAUSE
from chalicelib.domain.limits.admission import Admission, HoldReason, RateTaken, RunNow, WaitUntil
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, Origin, Permission, check_permission, origin_of, retry_at
from chalicelib.domain.limits.rate_limit import TooLarge
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.limits.tenant_lines import is_shared, joins_by_user
from chalicelib.domain.queues.causes import CauseKind, cause_of, kind_of
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.domain.units import Ms
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.scheduling.slot_lines import release_held, release_instead
from chalicelib.services.scheduling.visits import SELF_SERVED, wake_if_idle
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up
from chalicelib.services.worker.admission.api_key_gate import api_key_gate
from chalicelib.services.worker.admission.circuit_gate import acquire_probe, load_circuit_breakers
from chalicelib.services.worker.admission.pause_gate import pause_gate
from chalicelib.services.worker.admission.rate_gate import FALLBACK_AFTER_MS, ask_rate, give_back, granted_rate
from chalicelib.services.worker.admission.slot_gate import slot_gate
from chalicelib.services.worker.admission.type_gate import count_start, counted_by, uncount_start
from chalicelib.services.worker.context import WorkerContext

SLOW_HOLD_MS = 10_000  # a hold that took so long joins its line again: the scheduler deletes the row of an empty one after 30 s
SOON_MS = 2_000  # within which a rate has room again
LIMITS_RETRY_MS = 5_000  # about how long a job waits if the limits cannot be read


async def admit_job(ctx: WorkerContext, job: Job, grant: Grant | None = None) -> Admission:
    """Decide whether the job may run now, and with which model.

    A job that its claim ends skips the gates: it is too late to start, or its type has become
    another kind. A job of an unknown type is held: a newer version of the code may have accepted
    it, and its workers may claim it. A resumable attempt skips the other gates, because it makes no
    new request.

    If the limits cannot be read the job waits some seconds, because a limit protects something.

    Args:
        grant: what the scheduler has taken for the job, if it released it.
    """
    if transitions.expire_if_late(job, ctx.clock.now()) is not None:
        return RunNow(job.asked_model, counted_at=counted_by(job, grant))
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:
        return WaitUntil(None, HoldReason.TYPE_UNKNOWN, cause_of(CauseKind.CODE, job.type))
    if job.is_resumable:
        return RunNow(job.asked_model)
    if kind.is_task != job.is_task:
        return RunNow(job.asked_model)
    admission: Admission | None = await pause_gate(ctx, job) or await api_key_gate(ctx, kind)
    try:
        admission = admission or await _within_limits(ctx, kind, job, grant)
    except (Unavailable, UnreadableRecord) as exc:
        ctx.log("limits_unavailable", job_id=job.id, tenant=job.tenant, error=exc)
        admission = WaitUntil(ctx.clock.now() + round((1 + ctx.random()) * LIMITS_RETRY_MS), HoldReason.LIMITS_UNKNOWN)
    if isinstance(admission, WaitUntil):
        if grant is not None and grant.is_valid(ctx.clock.now()):  # the gate of the type gives back an expired one
            await uncount_start(ctx, job, counted_by(job, grant))
        await give_back(ctx, granted_rate(job, grant, ctx.clock.now()))
    return admission


async def _within_limits(ctx: WorkerContext, kind: JobType, job: Job, grant: Grant | None) -> Admission:
    """Look at all limits first, then take what is taken before the claim: the start of a limited type."""
    slots = await slot_gate(ctx, kind, job)
    if isinstance(slots, WaitUntil) and slots.reason is HoldReason.TYPE_CONCURRENCY:
        return slots
    waits_for_slot = isinstance(slots, WaitUntil)
    admission = RunNow(job.asked_model) if kind.is_task else await _model_gates(ctx, job, grant, may_start=not waits_for_slot)
    if isinstance(admission, WaitUntil):
        return admission
    if isinstance(slots, WaitUntil):
        return slots
    counted_at = await count_start(ctx, kind, job, grant)
    if isinstance(counted_at, WaitUntil):
        if admission.rate != granted_rate(job, grant, ctx.clock.now()):  # a grant is given back by the caller
            await give_back(ctx, admission.rate)
        return counted_at
    return replace(admission, slots=slots, counted_at=counted_at)


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
        return transitions.hold(seen, wake_up.generation, wait.reason, wait.when, clock.now(), wait.cause, by_user=joined.by_user)

    joined = await join_line(ctx, job, wait)
    held = await offload_with_retry(ctx, update_job, ctx.jobs, job, change)
    if held is not None and held.status is Status.HELD:
        await announce_hold(ctx, held, joined)
    if held is not None and held.cause != job.cause and not _comes_back(wait, clock.now()):
        await pass_on(ctx, job)
    return held


def _comes_back(wait: WaitUntil, now: Ms) -> bool:
    """Whether a job that was sent for a slot is released soon by a scheduler, and takes the slot then.

    If others were sent for the slot meanwhile, all of its line would move to that of the scheduler.
    """
    return wait.cause is not None and kind_of(wait.cause) in (CauseKind.RATE, CauseKind.TYPE) and (wait.when or now) - now <= SOON_MS


async def pass_on(ctx: WorkerContext, job: Job) -> None:
    """Send another job for a slot for which this one was sent: it has left the line without taking it."""
    if job.cause is not None and kind_of(job.cause) is SELF_SERVED:
        await ctx.offload(release_instead, ctx, ctx.local_state.sent_for_slots, job)


@dataclass(frozen=True, slots=True)
class Joined:
    """That a line was joined."""

    at: Ms
    is_new: bool = False  # it had no row before
    by_user: bool = False  # it is the line by user


async def join_line(ctx: WorkerContext, job: Job, wait: WaitUntil | None) -> Joined:
    """Note that the line has a job, before the job is held in it: no job is in a line that nobody serves."""
    now = ctx.clock.now()
    if wait is None or wait.cause in (None, OWN_PAUSE):
        return Joined(now)
    by_user = await _joins_by_user(ctx, job, wait.cause)
    return Joined(now, await offload_with_retry(ctx, partial(ctx.lines.touch, by_user=by_user), wait.cause, job.tenant, now), by_user)


async def _joins_by_user(ctx: WorkerContext, job: Job, cause: str) -> bool:
    """Whether a job stands in the line by user: as long as it is in one line it does not change. If the
    limits of its tenant cannot be read it stands in the other one: nothing but the order is worse.
    """
    if job.is_in_line and job.cause == cause:
        return job.line_by_user
    if not is_shared(cause, job.tenant):
        return False
    try:
        limits: TenantLimits = await ctx.offload(ctx.limits_of, job.tenant)
    except (Unavailable, UnreadableRecord) as exc:
        ctx.log("tenant_limits_unavailable", tenant=job.tenant, error=exc)
        return False
    return joins_by_user(limits, cause)


async def announce_hold(ctx: WorkerContext, held: Job, joined: Joined) -> None:
    """Let a held job be woken: by the scheduler of its line, by who gives a slot back, or by a message for its time.

    The row of a line that nobody seems to be in is deleted after a while, so a hold that took long
    joins its line again (protocol rule 27: the row before the record). Of a job that is paused itself
    nobody serves the line: who resumes it wakes it.
    """
    if held.cause == OWN_PAUSE:
        return
    if held.cause is None:
        await ctx.offload(try_send_wake_up, ctx, held)
        return
    is_new = joined.is_new
    if ctx.clock.now() - joined.at >= SLOW_HOLD_MS or held.line_by_user != joined.by_user:
        touch = partial(ctx.lines.touch, by_user=held.line_by_user)
        is_new = await offload_with_retry(ctx, touch, held.cause, held.tenant, ctx.clock.now())
    if kind_of(held.cause) is SELF_SERVED:
        await ctx.offload(release_held, ctx, ctx.local_state.sent_for_slots, held)
    else:
        await ctx.offload(partial(wake_if_idle, ctx, held.cause, is_new=is_new))


async def _model_gates(ctx: WorkerContext, job: Job, grant: Grant | None, *, may_start: bool) -> Admission:
    """Choose the first model, of the job's own and its fallback models, whose circuit allows it and
    whose rate limits have room. For a short while the job waits for a rate limit, though it has
    fallback models.

    A probe is identified by the wake-up, not by the worker: if two workers have the same wake-up,
    one must not hold the job while the other claims it (protocol: one probe).

    Args:
        may_start: the job may take what it needs, and become the probe; otherwise it waits for something else anyway.
    """
    circuits, now, mark = await load_circuit_breakers(ctx), ctx.clock.now(), f"{job.id}#{job.generation}"
    origin = origin_of(mark, job.tenant, job.id)
    waits = []
    for model in (job.model, *job.fallback_models):
        circuit = circuits.get(model) or CircuitBreaker(model=model)
        permission = check_permission(circuit, origin, now)
        if permission is Permission.DENIED:
            waits.append(_wait_for_circuit(ctx, circuit, origin, now))
            continue
        taken = await ask_rate(ctx, job, model, grant, may_take=may_start)
        if isinstance(taken, TooLarge):
            return RunNow(model, refusal=str(taken))
        if isinstance(taken, WaitUntil):
            waits.append(taken)
            if (taken.when or now) - now <= FALLBACK_AFTER_MS:
                break
            continue
        rate = taken if isinstance(taken, RateTaken) else None
        if permission is Permission.PROBE and may_start:
            permission = await acquire_probe(ctx, circuit, origin)
        if permission is not Permission.DENIED:
            return RunNow(model, probe=mark if permission is Permission.PROBE else None, rate=rate)
        if rate != granted_rate(job, grant, now):
            await give_back(ctx, rate)
        waits.append(_wait_for_circuit(ctx, circuit, origin, now))
    return min(waits, key=lambda wait: wait.when or 0)


def _wait_for_circuit(ctx: WorkerContext, circuit: CircuitBreaker, origin: Origin, now: Ms) -> WaitUntil:
    denied = ctx.local_state.circuit_breakers.get(circuit.model, circuit)
    cause = cause_of(CauseKind.CIRCUIT, circuit.model)
    return WaitUntil(retry_at(denied, origin.tenant, now), HoldReason.CIRCUIT_OPEN, cause)
