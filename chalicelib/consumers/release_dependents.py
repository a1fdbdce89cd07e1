"""Release the dependents of ended jobs, from the change stream and from the `tasks` queue.

The change stream releases one page of dependents per parent, for several parents at once. If more
are left, or time runs out, a task message continues after the last dependent that was handled.
A failure is logged and stops no other dependent: the end of the parent stays due, and the sweep
repeats it (protocol rule 26). Besides, every dependent has a due time of its own. Repeating is safe
(protocol rule 22: a dependent is released only from waiting).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from chalicelib.consumers.change_loop import Change, changes_by_job
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.jobs.dependencies import DependencyEdge
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import waits_for_parents
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.dependencies.release_dependents import DependencyContext, release_dependent
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.retrying import call_with_retry

RELEASE_DEPENDENTS = "release_dependents"  # the task name in the queue message
TIME_BUDGET_MS = 10_000  # per batch of the stream; no dependent is started later, and a call that hangs then takes 15 s more
ENQUEUE_MS = 5_000  # beyond it, in which what is left is passed on to task messages
PAGE_SIZE = 100
CONCURRENCY = 20  # dependents released in parallel; a task checks the time between two groups
ERROR_BACKOFF_MS = 600_000  # an unreadable record is postponed, so that it does not hide the others


class ReleaseContext(DependencyContext, Protocol):
    """What releasing many dependents needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


@dataclass(frozen=True, slots=True)
class RemainingDependents:
    """The dependents of a job that follow the dependent `after`; None means all of them."""

    tenant: str
    job_id: str
    after: str | None = None

    def to_json(self) -> str:
        return json.dumps({"task": RELEASE_DEPENDENTS, "tenant": self.tenant, "job_id": self.job_id, "after": self.after})

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> RemainingDependents | None:
        """Parse a task message; None if its fields are missing or invalid."""
        tenant, job_id, after = (message.get(name) for name in ("tenant", "job_id", "after"))
        if not isinstance(tenant, str) or not isinstance(job_id, str) or not isinstance(after, str | None):
            return None
        return cls(tenant, job_id, after) if is_job_id(job_id) and (after is None or is_job_id(after)) else None


@dataclass(slots=True)
class ReleaseRun:
    """The release of the dependents of one parent, or of a part of them."""

    ctx: ReleaseContext
    until: Ms  # no group but the first is started later, and no failed call is repeated
    stop: Ms | None = None  # no dependent at all is started later; None: at least a group is
    failed: bool = False  # a dependent could not be released


def release_dependents(ctx: ReleaseContext, changes: Iterable[Change], notified: Collection[str] = ()) -> None:
    """Release or cancel the dependents of each job that has ended. Then the end of the job is no
    longer due, unless its recipients could not be notified. Never raises.

    Args:
        notified: the ids of the ended jobs whose notifications are stored; the others stay due.
    """
    until = ctx.clock.now() + TIME_BUDGET_MS
    ended = [change for change in changes if _is_end(change)]
    ctx.parallel_map(partial(_finish_end, ctx, until, notified), [group[-1] for group in changes_by_job(ended)])


def _is_end(change: Change) -> bool:
    _, before, after = change
    return after is not None and after.status.is_terminal and (before is None or not before.status.is_terminal)


def _finish_end(ctx: ReleaseContext, until: Ms, notified: Collection[str], change: Change) -> None:
    job = change[2]
    assert job is not None
    try:
        if release_first(ctx, job, until) and job.is_end_due and job.id in notified:
            ctx.jobs.set_end_due(job, None)
    except Exception as exc:  # noqa: BLE001 - a record that always fails would block its shard; the end stays due
        ctx.log("release_dependents_failed", job_id=job.id, tenant=job.tenant, error=exc)


def release_first(ctx: ReleaseContext, parent: Job, until: Ms) -> bool:
    """Release the first page of dependents of a job that has ended, and pass the rest on.

    Args:
        until: release nothing later, and pass on nothing `ENQUEUE_MS` later.

    Returns:
        Whether all are released. What was passed on may fail, so it does not count.

    Raises:
        Unavailable: a store did not answer, or no time was left.
    """
    run = ReleaseRun(ctx, until, stop=until)
    rest = _release_first_page(run, RemainingDependents(parent.tenant, parent.id))
    if rest is not None:
        if ctx.clock.now() >= until + ENQUEUE_MS:
            raise Unavailable("No time was left to send a task message.")
        ctx.queues.send_task(TASKS, rest.to_json(), rest.tenant)
    return rest is None and not run.failed


def release_all(ctx: ReleaseContext, parent: Job, until: Ms) -> bool:
    """Release the dependents of a job that has ended, page by page. Returns whether all are released.

    Raises:
        Unavailable: a store did not answer.
    """
    run = ReleaseRun(ctx, until)
    left: RemainingDependents | None = RemainingDependents(parent.tenant, parent.id)
    while left is not None and ctx.clock.now() < until:
        left = _release_page(run, left)
    return left is None and not run.failed


def release_remaining(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> None:
    """Release the remaining dependents of a parent until `until`, then enqueue a task for the rest.

    At least one page is released, so that every task makes progress.

    Raises:
        Unavailable: a store did not answer; the message is delivered again, and dependents that
            were released are skipped.
    """
    run = ReleaseRun(ctx, until)
    left: RemainingDependents | None = rest
    while left is not None:
        left = _release_page(run, left)
        if left is not None and ctx.clock.now() >= until:
            ctx.queues.send_task(TASKS, left.to_json(), left.tenant)
            return


def _release_first_page(run: ReleaseRun, rest: RemainingDependents) -> RemainingDependents | None:
    """Release the first page; after `until`, only check whether there are dependents at all.

    Raises:
        Unavailable: there was no time for that either.
    """
    now = run.ctx.clock.now()
    if now < run.until:
        return _release_page(run, rest)
    if now >= run.until + ENQUEUE_MS:
        raise Unavailable("No time was left to release the dependents.")
    return rest if run.ctx.dependencies.children(rest.job_id, None, 1) else None


def _release_page(run: ReleaseRun, rest: RemainingDependents) -> RemainingDependents | None:
    """Release one page of dependents. Returns those that are left, None if there are no more.

    Reads the parent's record instead of using its image in the stream: a replayed image may predate
    a retry of the parent.
    """
    ctx, until = run.ctx, run.until
    edges = call_with_retry(ctx.clock, partial(ctx.dependencies.children, rest.job_id, rest.after, PAGE_SIZE), until)
    parent = call_with_retry(ctx.clock, partial(ctx.jobs.get, rest.job_id), until) if edges else None
    if parent is None or not parent.status.is_terminal or parent.is_deleted:
        return None
    waiting = _waiting(run, edges)
    for start in range(0, len(waiting), CONCURRENCY):
        if start and ctx.clock.now() >= until:
            return replace(rest, after=waiting[start - 1][1].id)
        started = ctx.parallel_map(partial(_release_one, run, parent), waiting[start : start + CONCURRENCY])
        if not all(started):
            at = start + started.index(False)
            return replace(rest, after=waiting[at - 1][1].id) if at else rest
    return replace(rest, after=edges[-1].child) if len(edges) == PAGE_SIZE else None


def _waiting(run: ReleaseRun, edges: Sequence[DependencyEdge]) -> list[tuple[DependencyEdge, Job]]:
    """The dependents that still wait, in the order of their edges."""
    ctx, ids = run.ctx, [edge.child for edge in edges]
    retry_at = ctx.clock.now() + ERROR_BACKOFF_MS
    jobs = call_with_retry(ctx.clock, partial(load_jobs, ctx.jobs, ctx.log, ids, retry_at, consistent=True), run.until)
    children = {child.id: child for child in jobs if waits_for_parents(child)}
    return [(edge, children[edge.child]) for edge in edges if edge.child in children]


def _release_one(run: ReleaseRun, parent: Job, dependent: tuple[DependencyEdge, Job]) -> bool:
    """Release one dependent. Returns False if it is too late to start."""
    ctx, (edge, child) = run.ctx, dependent
    if run.stop is not None and ctx.clock.now() >= run.stop:
        return False
    try:
        call_with_retry(ctx.clock, partial(release_dependent, ctx, parent, edge, child), run.until)
    except Exception as exc:  # noqa: BLE001 - one dependent must not stop the others
        ctx.log("dependent_not_released", job_id=child.id, tenant=child.tenant, error=exc)
        run.failed = True
    return True
