"""Let the children of jobs go that have ended, from the change stream and, where there are many, from the queue `tasks` [22].

The stream lets a page of each parent's children go. What is left, because there are more or time is short, is asked for by a message that
says after which child to go on, and sends itself on in turn. Nothing is lost here: every child is due, and the sweep decides afresh. So
what fails is said in the log, the others go on, and what is done twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from chalicelib.consumers.change_loop import Change, call_with_retry
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

RELEASE_DEPENDENTS = "release_dependents"  # the task of going on with a parent's children
TIME_BUDGET_MS = 15_000  # of one batch of the stream; the function has time for that of all its projections
PAGE_SIZE = 100
CONCURRENCY = 20  # children between two looks at the time
ERROR_BACKOFF_MS = 600_000  # a record that cannot be read hides no other


class ReleaseContext(DependencyContext, Protocol):
    """What releasing many dependents needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


@dataclass(frozen=True, slots=True)
class RemainingDependents:
    """The children of a job beyond one of them; `after` is None for all."""

    tenant: str
    job_id: str
    after: str | None = None

    def to_json(self) -> str:
        return json.dumps({"task": RELEASE_DEPENDENTS, "tenant": self.tenant, "job_id": self.job_id, "after": self.after})

    @classmethod
    def from_message(cls, asked: Mapping[str, Any]) -> RemainingDependents | None:
        """What a message asks for; None if it does not name them."""
        tenant, job_id, after = (asked.get(name) for name in ("tenant", "job_id", "after"))
        if not isinstance(tenant, str) or not isinstance(job_id, str) or not isinstance(after, str | None):
            return None
        return cls(tenant, job_id, after) if is_job_id(job_id) and (after is None or is_job_id(after)) else None


def release_dependents(ctx: ReleaseContext, changes: Iterable[Change]) -> None:
    """For each change `(job id, before, after)` to an end: let its children go that wait for nothing else, or cancel them. Never raises."""
    until = ctx.clock.now() + TIME_BUDGET_MS
    for job_id, before, after in changes:
        if after is None or not after.status.is_terminal or (before is not None and before.status.is_terminal):
            continue
        try:
            left = _begin(ctx, RemainingDependents(after.tenant, job_id), until)
            if left is not None:
                _pass_on(ctx, left)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard; the sweep finds the children
            ctx.log("release_dependents_failed", job_id=job_id, tenant=after.tenant, error=exc)


def release_remaining(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> None:
    """Let the rest of a parent's children go, as far as there is time: some at least, so that it comes to an end.

    Raises:
        Unavailable: a store did not answer; the message comes again, and those that were let go wait no longer.
    """
    left: RemainingDependents | None = rest
    while left is not None:
        left = _page(ctx, left, until)
        if left is not None and ctx.clock.now() >= until:
            ctx.queues.send_task(TASKS, left.to_json(), left.tenant)
            return


def _begin(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> RemainingDependents | None:
    """The first page; or, if time is over, a look at whether there is any."""
    if ctx.clock.now() < until:
        return _page(ctx, rest, until)
    return rest if ctx.dependencies.children(rest.job_id, None, 1) else None


def _page(ctx: ReleaseContext, rest: RemainingDependents, until: Ms) -> RemainingDependents | None:
    """Let a page of children go. The answer is what is left then, or was left when time was over.

    What counts is the record of the parent and not its image: a replayed one may be from before the job was started again.
    """
    edges = call_with_retry(ctx.clock, partial(ctx.dependencies.children, rest.job_id, rest.after, PAGE_SIZE), until)
    parent = call_with_retry(ctx.clock, partial(ctx.jobs.get, rest.job_id), until) if edges else None
    if parent is None or not parent.status.is_terminal or parent.is_deleted:
        return None
    waiting = _waiting(ctx, edges, until)
    for start in range(0, len(waiting), CONCURRENCY):
        if start and ctx.clock.now() >= until:
            return replace(rest, after=waiting[start - 1][1].id)
        ctx.parallel_map(partial(_let_one_go, ctx, parent, until), waiting[start : start + CONCURRENCY])
    return replace(rest, after=edges[-1].child) if len(edges) == PAGE_SIZE else None


def _waiting(ctx: ReleaseContext, edges: Sequence[DependencyEdge], until: Ms) -> list[tuple[DependencyEdge, Job]]:
    """The children that still wait, in the order of their edges."""
    ids, again = [edge.child for edge in edges], ctx.clock.now() + ERROR_BACKOFF_MS
    heads = call_with_retry(ctx.clock, partial(load_jobs, ctx.jobs, ctx.log, ids, again, consistent=True), until)
    children = {child.id: child for child in heads if waits_for_parents(child)}
    return [(edge, children[edge.child]) for edge in edges if edge.child in children]


def _let_one_go(ctx: ReleaseContext, parent: Job, until: Ms, one: tuple[DependencyEdge, Job]) -> None:
    edge, child = one
    try:
        call_with_retry(ctx.clock, partial(release_dependent, ctx, parent, edge, child), until)
    except Exception as exc:  # noqa: BLE001 - one child must not stop the others
        ctx.log("dependent_not_released", job_id=child.id, tenant=child.tenant, error=exc)


def _pass_on(ctx: ReleaseContext, left: RemainingDependents) -> None:
    try:
        ctx.queues.send_task(TASKS, left.to_json(), left.tenant)
    except Unavailable as exc:
        ctx.log("remaining_dependents_not_enqueued", job_id=left.job_id, tenant=left.tenant, error=exc)
