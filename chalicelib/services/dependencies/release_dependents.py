"""Release or cancel jobs when their parents have ended, each job once, even if a process dies in
between (protocol rule 22: a dependent is released only from waiting).

The dependency record is written before the child's job record, the edges after it, and then the
parents are read. A parent that ends later finds the edge; a parent that ended earlier is found by
reading it. The open parents are a set, so marking a parent as ended twice is safe. The sweeper
finds what all of this misses: it decides again from the job records of the parents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.dependencies import RUN_ANYWAY, DependencyEdge, DependencyRecord, first_failed, has_ended, has_failed, status_of
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.ports import Dependencies, Jobs
from chalicelib.services.context import QueueContext
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import try_send_wake_up


class DependencyContext(QueueContext, Protocol):
    """What releasing dependents needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def dependencies(self) -> Dependencies: ...


def record_dependencies(ctx: DependencyContext, child: Job, spec: JobSpec) -> None:
    """Store the dependencies of `child`. Call it before its job record is created."""
    ctx.dependencies.put(child.id, spec.depends_on, run_anyway=spec.on_parent_failure == RUN_ANYWAY, ttl=transitions.spec_ttl(child))


def resolve_dependencies(ctx: DependencyContext, child: Job) -> Job:
    """Release or cancel `child` if its parents allow it now, and return its record.

    Its creator calls it after it has written the job record; the sweeper calls it for each due
    child.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    record = ctx.dependencies.get(child.id)
    if record is None:
        ctx.log("dependency_record_missing", job_id=child.id, tenant=child.tenant)
        return child
    until = transitions.spec_ttl(child)
    linked = record.linked_until >= until
    if not linked:
        ctx.dependencies.link(child.id, record.parents, run_anyway=record.run_anyway, ttl=until)
    parents = _load_parents(ctx, record)
    failed = None if record.run_anyway else first_failed(record.parents.values(), parents)
    if failed is not None:
        return _cancel(ctx, child, failed, parents.get(failed))
    remaining: int | None = len(record.open)
    ended = [parent for parent in record.open if has_ended(parents.get(parent))]
    if ended or not linked:
        remaining = ctx.dependencies.mark_parents_ended(child.id, ended, linked_until=None if linked else until)
    return _release(ctx, child) if remaining == 0 else child


def release_dependent(ctx: DependencyContext, parent: Job, edge: DependencyEdge, child: Job) -> Job:
    """Release or cancel a child of `parent`, which has ended, and return its record.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    if has_failed(parent) and not edge.run_anyway:
        return _cancel(ctx, child, parent.id, parent)
    return _release(ctx, child) if ctx.dependencies.mark_parents_ended(child.id, [parent.id]) == 0 else child


def _load_parents(ctx: DependencyContext, record: DependencyRecord) -> Mapping[str, Job]:
    """Return the existing parents. Those that have not ended know afterwards that they have
    dependents: an end before that write is seen here, and a later one is due until the child is
    released (protocol rule 26).
    """
    existing = [job for job in ctx.jobs.get_many(list(record.parents.values()), consistent=True) if not job.is_deleted]
    current = (update_job(ctx.jobs, job, lambda seen: transitions.add_dependent(seen, ctx.clock.now())) for job in existing)
    return {job.id: job for job in current if job is not None and not job.is_deleted}


def _cancel(ctx: DependencyContext, child: Job, parent_id: str, parent: Job | None) -> Job:
    status = status_of(parent)
    cancelled = update_job(ctx.jobs, child, lambda seen: transitions.dependency_failed(seen, parent_id, status, ctx.clock.now()))
    return cancelled or ctx.jobs.get(child.id) or child


def _release(ctx: DependencyContext, child: Job) -> Job:
    """Release the child, then send its wake-up (protocol rule 9: no frame before the write)."""
    released = update_job(ctx.jobs, child, lambda seen: transitions.release(seen, ctx.clock.now()))
    if released is None:
        return ctx.jobs.get(child.id) or child
    try_send_wake_up(ctx, released)
    return released
