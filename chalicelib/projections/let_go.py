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
from typing import Any

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.lanes import TASKS
from chalicelib.domain.parents import Edge
from chalicelib.domain.transitions import waits_for_parents
from chalicelib.projections.each_change import patiently
from chalicelib.usecases.let_go import Doorkeeper, let_go
from chalicelib.usecases.read_heads import read_heads

LET_GO = "let_go"  # the task of going on with a parent's children
PATIENCE_MS = 15_000  # of one batch of the stream; the function has time for that of all its projections
PAGE = 100
AT_ONCE = 20  # children between two looks at the time
WRONG_AGAIN_MS = 600_000  # a record that cannot be read hides no other

Change = tuple[str, Job | None, Job | None]


@dataclass(frozen=True, slots=True)
class Rest:
    """The children of a job beyond one of them; `after` is None for all."""

    tenant: str
    job_id: str
    after: str | None = None

    def to_json(self) -> str:
        return json.dumps({"task": LET_GO, "tenant": self.tenant, "job_id": self.job_id, "after": self.after})

    @classmethod
    def from_message(cls, asked: Mapping[str, Any]) -> Rest | None:
        """What a message asks for; None if it does not name them."""
        tenant, job_id, after = (asked.get(name) for name in ("tenant", "job_id", "after"))
        if not isinstance(tenant, str) or not isinstance(job_id, str) or not isinstance(after, str | None):
            return None
        return cls(tenant, job_id, after) if is_job_id(job_id) and (after is None or is_job_id(after)) else None


def let_children_go(door: Doorkeeper, changes: Iterable[Change]) -> None:
    """For each change `(job id, before, after)` to an end: let its children go that wait for nothing else, or cancel them. Never raises."""
    until = door.clock.now() + PATIENCE_MS
    for job_id, before, after in changes:
        if after is None or not after.status.is_terminal or (before is not None and before.status.is_terminal):
            continue
        try:
            left = _begin(door, Rest(after.tenant, job_id), until)
            if left is not None:
                _pass_on(door, left)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard; the sweep finds the children
            door.log("children were not let go", job_id=job_id, tenant=after.tenant, error=exc)


def go_on(door: Doorkeeper, rest: Rest, until: Ms) -> None:
    """Let the rest of a parent's children go, as far as there is time: some at least, so that it comes to an end.

    Raises:
        Unavailable: a store did not answer; the message comes again, and those that were let go wait no longer.
    """
    left: Rest | None = rest
    while left is not None:
        left = _page(door, left, until)
        if left is not None and door.clock.now() >= until:
            door.queues.send_task(TASKS, left.to_json(), left.tenant)
            return


def _begin(door: Doorkeeper, rest: Rest, until: Ms) -> Rest | None:
    """The first page; or, if time is over, a look at whether there is any."""
    if door.clock.now() < until:
        return _page(door, rest, until)
    return rest if door.dependencies.children(rest.job_id, None, 1) else None


def _page(door: Doorkeeper, rest: Rest, until: Ms) -> Rest | None:
    """Let a page of children go. The answer is what is left then, or was left when time was over.

    What counts is the record of the parent and not its image: a replayed one may be from before the job was started again.
    """
    edges = patiently(door.clock, partial(door.dependencies.children, rest.job_id, rest.after, PAGE), until)
    parent = patiently(door.clock, partial(door.jobs.get, rest.job_id), until) if edges else None
    if parent is None or not parent.status.is_terminal or parent.is_deleted:
        return None
    waiting = _waiting(door, edges, until)
    for start in range(0, len(waiting), AT_ONCE):
        if start and door.clock.now() >= until:
            return replace(rest, after=waiting[start - 1][1].id)
        door.parallel_map(partial(_let_one_go, door, parent, until), waiting[start : start + AT_ONCE])
    return replace(rest, after=edges[-1].child) if len(edges) == PAGE else None


def _waiting(door: Doorkeeper, edges: Sequence[Edge], until: Ms) -> list[tuple[Edge, Job]]:
    """The children that still wait, in the order of their edges."""
    ids, again = [edge.child for edge in edges], door.clock.now() + WRONG_AGAIN_MS
    heads = patiently(door.clock, partial(read_heads, door.jobs, door.log, ids, again, consistent=True), until)
    children = {child.id: child for child in heads if waits_for_parents(child)}
    return [(edge, children[edge.child]) for edge in edges if edge.child in children]


def _let_one_go(door: Doorkeeper, parent: Job, until: Ms, one: tuple[Edge, Job]) -> None:
    edge, child = one
    try:
        patiently(door.clock, partial(let_go, door, parent, edge, child), until)
    except Exception as exc:  # noqa: BLE001 - one child must not stop the others
        door.log("a child was not let go", job_id=child.id, tenant=child.tenant, error=exc)


def _pass_on(door: Doorkeeper, left: Rest) -> None:
    try:
        door.queues.send_task(TASKS, left.to_json(), left.tenant)
    except Unavailable as exc:
        door.log("children were left to the sweep", job_id=left.job_id, tenant=left.tenant, error=exc)
