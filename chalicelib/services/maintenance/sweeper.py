"""Recover every job, lease and connection that its worker has left behind.

Runs every minute and decides from the records alone; the due index only says which to read
(protocol rule 15: everything unfinished is due; rule 16: act only on an unchanged record).
Concurrent sweeps are safe, because every change is a compare-and-swap. A run stops before its time
is over; the next one continues with the longest overdue. A job whose check fails is postponed, so
that it does not delay the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from chalicelib.domain.jobs.backlog import due_cutoff
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import HOME_QUEUES
from chalicelib.domain.units import Ms
from chalicelib.ports import Lease
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.maintenance.check_job import ERROR_BACKOFF_MS, LEASE_GRACE_MS, check_job
from chalicelib.services.maintenance.context import SweepContext, SweepResult
from chalicelib.services.maintenance.recover_job import recover_job
from chalicelib.services.streaming.prune_connections import ConnectionState, prune_stale_connections

LOOKAHEAD_MS = 65_000  # jobs due before the next sweep are woken now, with a message delay, so that they start on time
MAX_PER_PARTITION = 100  # due jobs per index partition and run
LOAD_BATCH_SIZE = 100
BUDGET_MS = 40_000  # of the function's 55 s, since a call that hangs takes up to 10 s
LEASE_BUDGET_MS = 20_000  # limits the time for dead leases, so that many dead workers do not block the due jobs
CONNECTIONS_DEADLINE_MS = 45_000  # since the start of the run

T = TypeVar("T")


def sweep(ctx: SweepContext) -> Counter[SweepResult]:
    """Run one sweep. Returns how often each result occurred; errors are logged and never raised."""
    started_at, none = ctx.clock.now(), Counter[SweepResult]()
    leases: list[Lease] = _guarded(ctx, ctx.leases.all, [], what="leases")
    done = _reap_dead_leases(ctx, leases, started_at + LEASE_BUDGET_MS)
    done += _check_due_jobs(ctx, leases, started_at + BUDGET_MS)
    done += _guarded(ctx, partial(_prune_connections, ctx, started_at + CONNECTIONS_DEADLINE_MS), none, what="connections")
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


def _guarded(ctx: SweepContext, work: Callable[[], T], fallback: T, **fields: str) -> T:
    """Call `work`; log any error with `fields` and return `fallback` instead."""
    try:
        return work()
    except Exception as exc:  # noqa: BLE001 - one bad record must not stop the sweep
        ctx.log("sweep_step_failed", error=exc, **fields)
        return fallback


def _reap_dead_leases(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """Reap the leases of dead workers: those not fenced yet first, then by expiry."""
    done: Counter[SweepResult] = Counter()
    now = ctx.clock.now()
    dead = [lease for lease in leases if not _is_alive(lease, now)]
    for lease in sorted(dead, key=lambda lease: (lease.fenced, lease.expires_at)):
        is_late = ctx.clock.now() >= deadline
        done[SweepResult.DEFERRED if is_late else _guarded(ctx, partial(_reap_lease, ctx, lease), SweepResult.FAILED, lease=lease.id)] += 1
    return done


def _is_alive(lease: Lease, now: Ms) -> bool:
    return not lease.fenced and lease.expires_at >= now - LEASE_GRACE_MS


def _reap_lease(ctx: SweepContext, lease: Lease) -> SweepResult:
    """Fence a dead worker's lease, recover its jobs, then delete the lease.

    Fencing first keeps a slow worker from finishing a recovered job (protocol rule 19: clocks
    decide when, never whether). The lease stays if one of its jobs could not be recovered; the next
    run tries again.
    """
    if not ctx.leases.fence(lease):
        return SweepResult.LEASE_ALIVE
    results = [
        _guarded(ctx, partial(recover_job, ctx, job, lease.id), SweepResult.FAILED, job_id=job.id, tenant=job.tenant)
        for job in _load_jobs(ctx, lease.jobs, consistent=True)
    ]
    if SweepResult.FAILED in results:
        return SweepResult.LEASE_KEPT
    ctx.leases.delete_fenced(lease)
    return SweepResult.LEASE_REAPED


def _check_due_jobs(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """Check the jobs that are due, queue by queue in turn."""
    done: Counter[SweepResult] = Counter()
    ids = _due_ids(ctx, leases, deadline)
    for start in range(0, len(ids), LOAD_BATCH_SIZE):
        if ctx.clock.now() >= deadline:
            done[SweepResult.DEFERRED] += len(ids) - start
            break
        jobs: list[Job] = _guarded(ctx, partial(_load_jobs, ctx, ids[start : start + LOAD_BATCH_SIZE]), [], what="jobs")
        for job in jobs:
            done[SweepResult.DEFERRED if ctx.clock.now() >= deadline else check_job(ctx, job)] += 1
    return done


def _due_ids(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> list[str]:
    """Ids of due jobs, interleaved by queue, so that no queue delays another."""
    groups: list[list[str]] = [
        _guarded(ctx, partial[list[str]](_due_ids_of, ctx, queue, leases), [], what=queue or "scheduled")
        for queue in (None, *HOME_QUEUES)
        if ctx.clock.now() < deadline
    ]
    return [job_id for interleaved in zip_longest(*groups) for job_id in interleaved if job_id is not None]


def _due_ids_of(ctx: SweepContext, queue: str | None, leases: Sequence[Lease]) -> list[str]:
    now = ctx.clock.now()
    until = now + LOOKAHEAD_MS
    watermarks = [lease.watermark for lease in leases if lease.lane == queue and lease.watermark and _is_alive(lease, now)]
    if queue is not None and watermarks:
        until = due_cutoff(until, watermarks, _guarded(ctx, partial(ctx.queues.depth, queue), 0, what=queue))
    return ctx.jobs.due(queue, until, MAX_PER_PARTITION)


def _load_jobs(ctx: SweepContext, ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
    return load_jobs(ctx.jobs, ctx.log, ids, ctx.clock.now() + ERROR_BACKOFF_MS, consistent=consistent)
