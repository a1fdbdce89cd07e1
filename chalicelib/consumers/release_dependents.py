"""Release the dependents of ended jobs, from the change stream and from the `tasks` queue.

The change stream releases one page of dependents per parent, for several parents at once. If more
are left, or time runs out, a task message continues after the last dependent that was handled.
Failures are logged and skipped: every dependent has a due time, so the sweeper releases it later.
Repeating is safe (protocol rule 22: a dependent is released only from waiting).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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


def release_dependents(ctx: ReleaseContext, changes: Iterable[Change]) -> None:
    """Release or cancel the dependents of each job that has ended. Never raises."""
    until = ctx.clock.now() + TIME_BUDGET_MS
    ended = [change for change in changes if _is_end(change)]
    ctx.parallel_map(partial(_release_of_parent, ctx, until), [group[-1] for group in changes_by_job(ended)])


def _is_end(change: Change) -> bool:
    _, before, after = change
    return after is not None and after.status.is_terminal and (before is None or not before.status.is_terminal)


def _release_of_parent(ctx: ReleaseContext, until: Ms, change: Change) -> None:
    job_id, _, after = change
    tenant = after.tenant if after is not None else ""
    try:
        rest = _release_first_page(ctx, RemainingDependents(tenant, job_id), until)
        if rest is not None:
            _enqueue_rest(ctx, rest, until + ENQUEUE_MS)
    except Exception as exc:  # noqa: BLE001 - a record that always fails would block its shard; the sweeper finds the dependents
        ctx.log("release_dependents_failed", job_id=job_id, tenant=tenant, error=exc)


def release_remaining(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> None:
    """Release the remaining dependents of a parent until `until`, then enqueue a task for the rest.

    At least one page is released, so that every task makes progress.

    Raises:
        Unavailable: a store did not answer; the message is delivered again, and dependents that
            were released are skipped.
    """
    left: RemainingDependents | None = rest
    while left is not None:
        left = _release_page(ctx, left, until)
        if left is not None and ctx.clock.now() >= until:
            ctx.queues.send_task(TASKS, left.to_json(), left.tenant)
            return


def _release_first_page(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> RemainingDependents | None:
    """Release the first page; after `until`, only check whether there are dependents at all.

    Raises:
        Unavailable: there was no time for that either.
    """
    now = ctx.clock.now()
    if now < until:
        return _release_page(ctx, rest, until, stop=until)
    if now >= until + ENQUEUE_MS:
        raise Unavailable("No time was left to release the dependents; the sweeper does it.")
    return rest if ctx.dependencies.children(rest.job_id, None, 1) else None


def _release_page(ctx: ReleaseContext, rest: RemainingDependents, until: Ms, stop: Ms | None = None) -> RemainingDependents | None:
    """Release one page of dependents. Returns those that are left, None if there are no more.

    Reads the parent's record instead of using its image in the stream: a replayed image may predate
    a retry of the parent.

    Args:
        until: no group but the first is started later, and no failed call is repeated.
        stop: no dependent at all is started later.
    """
    edges = call_with_retry(ctx.clock, partial(ctx.dependencies.children, rest.job_id, rest.after, PAGE_SIZE), until)
    parent = call_with_retry(ctx.clock, partial(ctx.jobs.get, rest.job_id), until) if edges else None
    if parent is None or not parent.status.is_terminal or parent.is_deleted:
        return None
    waiting = _waiting(ctx, edges, until)
    for start in range(0, len(waiting), CONCURRENCY):
        if start and ctx.clock.now() >= until:
            return replace(rest, after=waiting[start - 1][1].id)
        started = ctx.parallel_map(partial(_release_one, ctx, parent, until, stop), waiting[start : start + CONCURRENCY])
        if not all(started):
            at = start + started.index(False)
            return replace(rest, after=waiting[at - 1][1].id) if at else rest
    return replace(rest, after=edges[-1].child) if len(edges) == PAGE_SIZE else None


def _waiting(ctx: ReleaseContext, edges: Sequence[DependencyEdge], until: Ms) -> list[tuple[DependencyEdge, Job]]:
    """The dependents that still wait, in the order of their edges."""
    ids, retry_at = [edge.child for edge in edges], ctx.clock.now() + ERROR_BACKOFF_MS
    jobs = call_with_retry(ctx.clock, partial(load_jobs, ctx.jobs, ctx.log, ids, retry_at, consistent=True), until)
    children = {child.id: child for child in jobs if waits_for_parents(child)}
    return [(edge, children[edge.child]) for edge in edges if edge.child in children]


def _release_one(ctx: ReleaseContext, parent: Job, until: Ms, stop: Ms | None, dependent: tuple[DependencyEdge, Job]) -> bool:
    """Release one dependent. Returns False if it is too late to start."""
    edge, child = dependent
    if stop is not None and ctx.clock.now() >= stop:
        return False
    try:
        call_with_retry(ctx.clock, partial(release_dependent, ctx, parent, edge, child), until)
    except Exception as exc:  # noqa: BLE001 - one dependent must not stop the others
        ctx.log("dependent_not_released", job_id=child.id, tenant=child.tenant, error=exc)
    return True


def _enqueue_rest(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> None:
    """Pass what is left to a task message; after `until`, to the sweeper."""
    try:
        if ctx.clock.now() >= until:
            raise Unavailable("No time was left to send a task message.")
        ctx.queues.send_task(TASKS, rest.to_json(), rest.tenant)
    except Unavailable as exc:
        ctx.log("remaining_dependents_not_enqueued", job_id=rest.job_id, tenant=rest.tenant, error=exc)
