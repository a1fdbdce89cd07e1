"""Let jobs go on once their parents have ended, each exactly once, whoever dies in between [22].

The child's rows are put before its head, its edges after it, and then the parents are looked at: a parent that ends later finds the edge,
one that ended before is found by the look. Who is left to be waited for is a set, so crossing a parent off twice does no harm; and the head
is released only from where it waits. What all of them miss is the sweep's, which decides afresh on the parents' heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.dependencies import RUN_ANYWAY, DependencyEdge, DependencyRecord, first_failed, has_ended, has_failed, status_of
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.transitions import COMPLETED_RETENTION_DAYS
from chalicelib.domain.units import DAY_MS
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


def record_dependencies(ctx: DependencyContext, child: Job, body: JobSpec) -> None:
    """Before the head of `child` is made: whom it waits for."""
    ctx.dependencies.put(child.id, body.depends_on, run_anyway=body.on_parent_failure == RUN_ANYWAY, ttl=_kept_until(child))


def resolve_dependencies(ctx: DependencyContext, child: Job) -> Job:
    """The head of a job that waits for its parents, after a look at what has become of them: as its creator does once the head is made, and
    the sweep from time to time.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    family = ctx.dependencies.get(child.id)
    if family is None:
        ctx.log("dependency_record_missing", job_id=child.id, tenant=child.tenant)
        return child
    until = _kept_until(child)
    linked = family.linked_until >= until
    if not linked:
        ctx.dependencies.link(child.id, family.parents, run_anyway=family.run_anyway, ttl=until)
    parents = _heads(ctx, family)
    failed = None if family.run_anyway else first_failed(family.parents.values(), parents)
    if failed is not None:
        return _cancel(ctx, child, failed, parents.get(failed))
    left: int | None = len(family.open)
    ended = [parent for parent in family.open if has_ended(parents.get(parent))]
    if ended or not linked:
        left = ctx.dependencies.mark_parents_ended(child.id, ended, linked_until=None if linked else until)
    return _release(ctx, child) if left == 0 else child


def release_dependent(ctx: DependencyContext, parent: Job, edge: DependencyEdge, child: Job) -> Job:
    """The head of a child of `parent`, which has ended.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    if has_failed(parent) and not edge.run_anyway:
        return _cancel(ctx, child, parent.id, parent)
    return _release(ctx, child) if ctx.dependencies.mark_parents_ended(child.id, [parent.id]) == 0 else child


def _heads(ctx: DependencyContext, family: DependencyRecord) -> Mapping[str, Job]:
    """The parents that are there, read consistently: what ended before its edge was put is seen."""
    return {job.id: job for job in ctx.jobs.get_many(list(family.parents.values()), consistent=True) if not job.is_deleted}


def _cancel(ctx: DependencyContext, child: Job, parent: str, head: Job | None) -> Job:
    status = status_of(head)
    cancelled = update_job(ctx.jobs, child, lambda seen: transitions.dependency_failed(seen, parent, status, ctx.clock.now()))
    return cancelled or ctx.jobs.get(child.id) or child


def _release(ctx: DependencyContext, child: Job) -> Job:
    """The wake-up follows the write's answer [9]; one that is lost is the sweep's."""
    released = update_job(ctx.jobs, child, lambda seen: transitions.release(seen, ctx.clock.now()))
    if released is None:
        return ctx.jobs.get(child.id) or child
    try_send_wake_up(ctx, released)
    return released


def _kept_until(child: Job) -> int:
    """As long as the body, in seconds."""
    return (child.expires_at + COMPLETED_RETENTION_DAYS * DAY_MS) // 1000
