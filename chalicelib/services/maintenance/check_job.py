"""Check one job that is due: decide from its record what it needs, and do it."""

from __future__ import annotations

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.units import Ms
from chalicelib.services.dependencies.release_dependents import resolve_dependencies
from chalicelib.services.maintenance.context import SweepContext, SweepResult, apply_transition
from chalicelib.services.maintenance.recover_job import recover_job
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up

LEASE_GRACE_MS = 5_000  # a lease counts as dead only this long after its expiry, because clocks differ
UNAVAILABLE_BACKOFF_MS = 30_000  # a job whose store did not answer is checked again in the next run, after the others
ERROR_BACKOFF_MS = 600_000  # a job whose check failed otherwise will most likely fail again


def check_job(ctx: SweepContext, job: Job) -> SweepResult:
    """Check a job; postpone it if the check fails, so that it does not delay the others."""
    try:
        return _decide(ctx, job)
    except Exception as exc:  # noqa: BLE001 - one bad record must not stop the sweep
        ctx.log("sweep_step_failed", error=exc, job_id=job.id, tenant=job.tenant)
        now = ctx.clock.now()
        _postpone(ctx, job, now + (UNAVAILABLE_BACKOFF_MS if isinstance(exc, Unavailable) else ERROR_BACKOFF_MS))
        return SweepResult.FAILED


def _postpone(ctx: SweepContext, job: Job, until: Ms) -> None:
    try:
        update_job(ctx.jobs, job, lambda current: transitions.postpone(current, until, ctx.clock.now()))
    except Exception as exc:  # noqa: BLE001 - as in `check_job`
        ctx.log("sweep_step_failed", error=exc, job_id=job.id, tenant=job.tenant)


def _decide(ctx: SweepContext, job: Job) -> SweepResult:
    """Decide from the record what a due job needs, and do it. Returns what was done."""
    now = ctx.clock.now()
    if job.status.is_terminal or job.due_at is None:
        return SweepResult.NOTHING
    if job.status is Status.PROCESSING:
        return _check_worker(ctx, job, now)
    if now >= job.expires_at and job.started_at is None:
        return apply_transition(ctx, job, lambda current: _if_same(current, job, transitions.expire(current, now)), SweepResult.EXPIRED)
    if transitions.give_up(job, now) is not None:
        return apply_transition(ctx, job, lambda current: transitions.give_up(current, now), SweepResult.GIVEN_UP)
    if job.due_at > now and not (job.resume_at and transitions.is_claimable(job)):
        return SweepResult.NOT_DUE
    if transitions.waits_for_parents(job):
        return _check_dependencies(ctx, job, now)
    if transitions.is_claimable(job) and not job.is_in_line:  # a scheduler wakes those
        return _resend(ctx, job, now)
    return apply_transition(ctx, job, lambda current: transitions.postpone_check(current, now), SweepResult.CHECKED)


def _check_worker(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    if (job.due_at or 0) > now:
        return SweepResult.NOT_DUE
    lease_id = transitions.lease_of(job)
    lease = ctx.leases.get(lease_id)
    if lease is not None and lease.expires_at + LEASE_GRACE_MS >= now:
        return apply_transition(ctx, job, lambda current: transitions.postpone_check(current, now), SweepResult.ALIVE)
    if lease is not None and not ctx.leases.fence(lease):
        return SweepResult.ALIVE
    return recover_job(ctx, job, lease_id)


def _check_dependencies(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    """Release the job if its parents have ended; the consumer that should have may have died."""
    resolved = resolve_dependencies(ctx, job)
    if not transitions.waits_for_parents(resolved):
        return SweepResult.RELEASED
    return apply_transition(ctx, resolved, lambda current: transitions.postpone_check(current, now), SweepResult.CHECKED)


def _resend(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    """Send the wake-up again.

    Workers drop duplicates (protocol rule 17: resending keeps the generation).
    """
    delay = send_wake_up(ctx.queues, job, now)
    if delay is None:
        return SweepResult.NOT_DUE
    later = now + delay * 1000
    return apply_transition(
        ctx,
        job,
        lambda current: transitions.postpone_check(current, later) if current.generation == job.generation else None,
        SweepResult.RESENT,
    )


def _if_same(current: Job, job: Job, new: Job) -> Job | None:
    return new if current.version == job.version else None
