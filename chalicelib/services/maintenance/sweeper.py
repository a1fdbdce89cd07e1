"""Look at everything that is due, and bring right what nobody is working on any more: "nothing is lost, whatever dies".

Runs every minute, and decides afresh on what it finds: nothing here trusts what an index or an earlier look said [15, 16]. Two sweeps at
once do no harm, because every change is a swap of the head that was looked at. A run ends in good time; what it leaves is the next one's,
the longest overdue first. What fails is put off, so that it stands in nobody's way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.backlog import due_cutoff
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms
from chalicelib.ports import Lease
from chalicelib.services.dependencies.release_dependents import resolve_dependencies
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.maintenance.context import SweepContext, SweepResult, apply_transition
from chalicelib.services.maintenance.recover_job import recover_job
from chalicelib.services.streaming.prune_connections import ConnectionState, prune_stale_connections
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up

LEASE_GRACE_MS = 5_000  # a lease is dead only so long after its end: clocks differ
LOOKAHEAD_MS = 65_000  # what comes due before the next sweep is sent now, with a delay, so that it begins in time
MAX_PER_PARTITION = 100  # of each part of the index, for one run
LOAD_BATCH_SIZE = 100
BUDGET_MS = 40_000  # of the function's 55 s; a call that hangs takes up to ten
LEASE_BUDGET_MS = 20_000  # of them for the leases of dead workers, so that a thousand dead ones leave time for what else is due
SOCKETS_MS = 45_000
UNAVAILABLE_BACKOFF_MS = 30_000  # a job whose look met a store that did not answer is looked at in the next run, behind the others
ERROR_BACKOFF_MS = 600_000  # one whose look fails for another reason: most likely it will again

T = TypeVar("T")


def sweep(ctx: SweepContext) -> Counter[SweepResult]:
    """One run; the answer counts what was done. What fails is looked at again later, and never stops the others."""
    began, none = ctx.clock.now(), Counter[SweepResult]()
    leases: list[Lease] = _guarded(ctx, ctx.leases.all, [], what="leases")
    done = _reap_dead_leases(ctx, leases, began + LEASE_BUDGET_MS)
    done += _check_due_jobs(ctx, leases, began + BUDGET_MS)
    done += _guarded(ctx, partial(_prune_connections, ctx, began + SOCKETS_MS), none, what="connections")
    if done:
        ctx.log("swept", **{result.value: count for result, count in done.items()})
    return done


def _prune_connections(ctx: SweepContext, deadline: Ms) -> Counter[SweepResult]:
    found = prune_stale_connections(ctx.clock, ctx.connections, ctx.sockets, ctx.subscriptions, deadline)
    return Counter({_PRUNED[state]: count for state, count in found.items()})


_PRUNED = {
    ConnectionState.EXPIRED: SweepResult.CONNECTION_EXPIRED,
    ConnectionState.CLOSED: SweepResult.CONNECTION_CLOSED,
    ConnectionState.UNKNOWN: SweepResult.CONNECTION_UNKNOWN,
}


def _guarded(ctx: SweepContext, work: Callable[[], T], otherwise: T, **about: str) -> T:
    try:
        return work()
    except Exception as exc:  # noqa: BLE001 - what one record does to the sweep must not happen to all others
        ctx.log("sweep_step_failed", error=exc, **about)
        return otherwise


def _reap_dead_leases(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """The leases of dead workers: those that nobody has tried to bury first, the oldest first."""
    done: Counter[SweepResult] = Counter()
    now = ctx.clock.now()
    dead = [lease for lease in leases if not _is_alive(lease, now)]
    for lease in sorted(dead, key=lambda lease: (lease.fenced, lease.expires_at)):
        late = ctx.clock.now() >= deadline
        done[SweepResult.DEFERRED if late else _guarded(ctx, partial(_reap_lease, ctx, lease), SweepResult.FAILED, lease=lease.id)] += 1
    return done


def _is_alive(lease: Lease, now: Ms) -> bool:
    return not lease.fenced and lease.expires_at >= now - LEASE_GRACE_MS


def _reap_lease(ctx: SweepContext, lease: Lease) -> SweepResult:
    """Fence a dead worker's lease first, so that it can finish nothing more; then take its jobs back; then forget the lease [19].

    A lease of which a job could not be taken back stays, for the next run.
    """
    if not ctx.leases.fence(lease):
        return SweepResult.LEASE_ALIVE
    taken = [
        _guarded(ctx, partial(recover_job, ctx, job, lease.id), SweepResult.FAILED, job_id=job.id, tenant=job.tenant)
        for job in _heads(ctx, lease.jobs, consistent=True)
    ]
    if SweepResult.FAILED in taken:
        return SweepResult.LEASE_KEPT
    ctx.leases.delete_fenced(lease)
    return SweepResult.LEASE_REAPED


def _check_due_jobs(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """What is due, of all lanes in turn."""
    done: Counter[SweepResult] = Counter()
    ids = _due(ctx, leases, deadline)
    for start in range(0, len(ids), LOAD_BATCH_SIZE):
        if ctx.clock.now() >= deadline:
            done[SweepResult.DEFERRED] += len(ids) - start
            break
        heads: list[Job] = _guarded(ctx, partial(_heads, ctx, ids[start : start + LOAD_BATCH_SIZE]), [], what="heads")
        for job in heads:
            done[SweepResult.DEFERRED if ctx.clock.now() >= deadline else _check_guarded(ctx, job)] += 1
    return done


def _due(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> list[str]:
    """Ids of what is due: one of each lane and one of what waits for a time in turn, so that none has to wait for all of another."""
    groups: list[list[str]] = [
        _guarded(ctx, partial[list[str]](_due_of, ctx, lane, leases), [], what=lane or "times")
        for lane in (None, *LANES)
        if ctx.clock.now() < deadline
    ]
    return [job_id for turn in zip_longest(*groups) for job_id in turn if job_id is not None]


def _due_of(ctx: SweepContext, lane: str | None, leases: Sequence[Lease]) -> list[str]:
    now = ctx.clock.now()
    until = now + LOOKAHEAD_MS
    watermarks = [lease.watermark for lease in leases if lease.lane == lane and lease.watermark and _is_alive(lease, now)]
    if lane is not None and watermarks:
        until = due_cutoff(until, watermarks, _guarded(ctx, partial(ctx.queues.depth, lane), 0, what=lane))
    return ctx.jobs.due(lane, until, MAX_PER_PARTITION)


def _heads(ctx: SweepContext, ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
    return load_jobs(ctx.jobs, ctx.log, ids, ctx.clock.now() + ERROR_BACKOFF_MS, consistent=consistent)


def _check_guarded(ctx: SweepContext, job: Job) -> SweepResult:
    """Look, and put the job off if that fails: it goes to the end of the line, and comes up again."""
    try:
        return _check_job(ctx, job)
    except Exception as exc:  # noqa: BLE001 - as above
        ctx.log("sweep_step_failed", error=exc, job_id=job.id, tenant=job.tenant)
        now = ctx.clock.now()
        until = now + (UNAVAILABLE_BACKOFF_MS if isinstance(exc, Unavailable) else ERROR_BACKOFF_MS)
        put_off = partial(update_job, ctx.jobs, job, lambda seen: transitions.postpone(seen, until, now))
        _guarded(ctx, put_off, None, job_id=job.id, tenant=job.tenant)
        return SweepResult.FAILED


def _check_job(ctx: SweepContext, job: Job) -> SweepResult:
    """Decide afresh what a job that is due needs. The answer names what was done."""
    now = ctx.clock.now()
    if job.status.is_terminal or job.due_at is None:
        return SweepResult.NOTHING
    if job.status is Status.PROCESSING:
        return _check_worker(ctx, job, now)
    if now >= job.expires_at and job.started_at is None:
        return apply_transition(ctx, job, lambda seen: _if_same(seen, job, transitions.expire(seen, now)), SweepResult.EXPIRED)
    if transitions.give_up(job, now) is not None:
        return apply_transition(ctx, job, lambda seen: transitions.give_up(seen, now), SweepResult.GIVEN_UP)
    if job.due_at > now and not (job.resume_at and transitions.is_claimable(job)):
        return SweepResult.NOT_DUE
    if transitions.waits_for_parents(job):
        return _check_dependencies(ctx, job, now)
    if transitions.is_claimable(job):
        return _resend(ctx, job, now)
    return apply_transition(ctx, job, lambda seen: transitions.postpone_check(seen, now), SweepResult.CHECKED)


def _check_worker(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    if (job.due_at or 0) > now:
        return SweepResult.NOT_DUE
    lease_id = transitions.lease_of(job)
    lease = ctx.leases.get(lease_id)
    if lease is not None and lease.expires_at + LEASE_GRACE_MS >= now:
        return apply_transition(ctx, job, lambda seen: transitions.postpone_check(seen, now), SweepResult.ALIVE)
    if lease is not None and not ctx.leases.fence(lease):
        return SweepResult.ALIVE
    return recover_job(ctx, job, lease_id)


def _check_dependencies(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    """Whoever was to tell it of its parents' ends may have died, or they were too many for one go."""
    looked = resolve_dependencies(ctx, job)
    if not transitions.waits_for_parents(looked):
        return SweepResult.RELEASED
    return apply_transition(ctx, looked, lambda seen: transitions.postpone_check(seen, now), SweepResult.CHECKED)


def _resend(ctx: SweepContext, job: Job, now: Ms) -> SweepResult:
    """Send the wake-up again, with the generation it had [17]: sent too often it is dropped, sent too seldom the job would wait."""
    delay = send_wake_up(ctx.queues, job, now)
    if delay is None:
        return SweepResult.NOT_DUE
    later = now + delay * 1000
    return apply_transition(
        ctx, job, lambda seen: transitions.postpone_check(seen, later) if seen.generation == job.generation else None, SweepResult.RESENT
    )


def _if_same(seen: Job, job: Job, new: Job) -> Job | None:
    return new if seen.version == job.version else None
