"""Recover every job, lease and connection that its worker has left behind.

Runs every minute and decides from the records alone; the due index only says which to read
(protocol rule 15: everything unfinished is due; rule 16: act only on an unchanged record).
Concurrent sweeps are safe, because every change is a compare-and-swap. A run stops before its time
is over; the next one continues with the longest overdue. A job whose check fails is postponed, so
that it does not delay the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.backlog import Backlog, newest
from chalicelib.domain.jobs.index_keys import due_shard
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.queues.lanes import HOME_QUEUES
from chalicelib.domain.units import Ms
from chalicelib.ports import Lease
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.maintenance.check_job import ERROR_BACKOFF_MS, LEASE_GRACE_MS, check_job
from chalicelib.services.maintenance.context import SweepContext, SweepResult, guarded
from chalicelib.services.maintenance.recover_job import recover_job
from chalicelib.services.streaming.prune_connections import ConnectionState, prune_stale_connections
from chalicelib.services.update_job import update_job

LOOKAHEAD_MS = 65_000  # jobs due before the next sweep are woken now, with a message delay, so that they start on time
MAX_PER_PARTITION = 100  # due jobs per index partition and run
MAX_DEEP = 500  # the same of a queue with a backlog, in which most of them only wait
LOAD_BATCH_SIZE = 100
BUDGET_MS = 40_000  # of the function's 55 s, since a call that hangs takes up to 10 s
LEASE_BUDGET_MS = 20_000  # limits the time for dead leases, so that many dead workers do not block the due jobs
CONNECTIONS_DEADLINE_MS = 45_000  # since the start of the run
NO_BACKLOG = Backlog()


def sweep(ctx: SweepContext) -> Counter[SweepResult]:
    """Run one sweep. Returns how often each result occurred; errors are logged and never raised."""
    started_at, none = ctx.clock.now(), Counter[SweepResult]()
    leases: list[Lease] = guarded(ctx, ctx.leases.all, [], what="leases")
    done = _reap_dead_leases(ctx, leases, started_at + LEASE_BUDGET_MS)
    done += _check_due_jobs(ctx, leases, started_at + BUDGET_MS)
    done += guarded(ctx, partial(_prune_connections, ctx, started_at + CONNECTIONS_DEADLINE_MS), none, what="connections")
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


def _reap_dead_leases(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """Reap the leases of dead workers: those not fenced yet first, then by expiry."""
    done: Counter[SweepResult] = Counter()
    now = ctx.clock.now()
    dead = [lease for lease in leases if not _is_alive(lease, now)]
    for lease in sorted(dead, key=lambda lease: (lease.fenced, lease.expires_at)):
        is_late = ctx.clock.now() >= deadline
        done[SweepResult.DEFERRED if is_late else guarded(ctx, partial(_reap_lease, ctx, lease), SweepResult.FAILED, lease=lease.id)] += 1
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
        guarded(ctx, partial(recover_job, ctx, job, lease.id), SweepResult.FAILED, job_id=job.id, tenant=job.tenant)
        for job in _load_jobs(ctx, lease.jobs, consistent=True)
    ]
    if SweepResult.FAILED in results:
        return SweepResult.LEASE_KEPT
    ctx.leases.delete_fenced(lease)
    return SweepResult.LEASE_REAPED


def _check_due_jobs(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> Counter[SweepResult]:
    """Check the jobs that are due, queue by queue in turn.

    Those that only wait behind others in a deep queue are left alone. Where there are more of them
    than are read, they are put off at the end, so that the next run reads what is behind them.
    """
    done: Counter[SweepResult] = Counter()
    due = _read_due(ctx, leases, deadline)
    waiting: list[Job] = []
    for start in range(0, len(due.ids), LOAD_BATCH_SIZE):
        if ctx.clock.now() >= deadline:
            done[SweepResult.DEFERRED] += len(due.ids) - start
            break
        jobs: list[Job] = guarded(ctx, partial(_load_jobs, ctx, due.ids[start : start + LOAD_BATCH_SIZE]), [], what="jobs")
        for job in jobs:
            if due.backlogs.get(queue_of(job), NO_BACKLOG).waits(job, ctx.clock.now()):
                waiting.append(job)
            else:
                done[SweepResult.DEFERRED if ctx.clock.now() >= deadline else check_job(ctx, job)] += 1
    for job in waiting:
        if queue_of(job) in due.cut and ctx.clock.now() < deadline:
            put_off = partial(update_job, ctx.jobs, job, lambda current: transitions.postpone_check(current, ctx.clock.now()))
            guarded(ctx, put_off, None, job_id=job.id, tenant=job.tenant)
        done[SweepResult.WAITING] += 1
    return done


@dataclass
class _Due:
    """The jobs that are due, as far as they were read."""

    ids: list[str]  # interleaved by queue, so that no queue delays another
    backlogs: dict[str, Backlog]  # by queue
    cut: set[str]  # queues of which more jobs are due


def _read_due(ctx: SweepContext, leases: Sequence[Lease], deadline: Ms) -> _Due:
    backlogs = {queue: _backlog_of(ctx, queue, leases) for queue in HOME_QUEUES}
    groups: dict[str | None, list[str]] = {}
    for queue in (None, *HOME_QUEUES):
        if ctx.clock.now() < deadline:
            backlog = backlogs.get(queue or "", NO_BACKLOG)
            groups[queue] = guarded(ctx, partial[list[str]](_due_ids_of, ctx, queue, backlog), [], what=queue or "scheduled")
    ids = [job_id for interleaved in zip_longest(*groups.values()) for job_id in interleaved if job_id is not None]
    cut = {queue for queue, found in groups.items() if queue and max(Counter(map(due_shard, found)).values(), default=0) >= MAX_DEEP}
    return _Due(ids, backlogs, cut)


def _backlog_of(ctx: SweepContext, queue: str, leases: Sequence[Lease]) -> Backlog:
    """A queue whose workers say nothing, or that has none, counts as empty: all its due jobs are checked."""
    now = ctx.clock.now()
    alive = [lease for lease in leases if lease.lane == queue and lease.watermark and _is_alive(lease, now)]
    return Backlog(
        is_deep=bool(alive) and guarded(ctx, partial(ctx.queues.depth, queue), 0, what=queue) > 0,
        marks=newest(lease.watermarks for lease in alive),
        of_all=max((lease.watermark for lease in alive if not lease.watermarks), default=0),
    )


def _due_ids_of(ctx: SweepContext, queue: str | None, backlog: Backlog) -> list[str]:
    now = ctx.clock.now()
    until = backlog.due_until(now + LOOKAHEAD_MS, now)
    return ctx.jobs.due(queue, until, MAX_DEEP if backlog.is_deep else MAX_PER_PARTITION)


def _load_jobs(ctx: SweepContext, ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
    return load_jobs(ctx.jobs, ctx.log, ids, ctx.clock.now() + ERROR_BACKOFF_MS, consistent=consistent)
